"""One self-contained HTML page about a round of retraining: the decision first, then why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.belonging_rule import Fit
from ka2er_training.energy import WATTS_PER_CORE, estimated_joules
from ka2er_training.gate_stats import Bounds
from ka2er_training.report import curves, png_uri, write_page
from ka2er_training.round_figures import changes_figure, weights_figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ka2er_training.rounds import PackageIn, Picture, Round, Stage
    from ka2er_training.verdicts import TaskVerdict, Verdict

Table = list[list[str]]


def write_round_report(path: Path, found: Round) -> None:
    """Write a round's page.

    Parameters
    ----------
    path : Path
        The ``.html`` file; missing folders are made, an older page is replaced.
    found : Round
        What happened.  Curves and pictures are read from where it says; those that are gone are
        named on the page and left out.
    """
    parts: dict[str, Any] = {
        "found": found,
        "headline": _headline(found),
        "facts": _facts(found),
        "came": _came_in(found.packages),
        "labels": _labels(found),
        "scores": _scores(found),
        "changes": changes_figure(found.scores, found.verdict),
        "tries": [_try(verdict) for verdict in found.tries],
        "experts": [
            (name, [_try(verdict) for verdict in tries]) for name, tries in found.experts.items()
        ],
        "trained": _trained(found),
        "curves": [
            (training.name, curves(Path(training.scalars)))
            for training in found.trained
            if _has_lines(training.scalars)
        ],
        "pictures": _pictures(found.pictures),
        "lost": [picture.caption for picture in found.pictures if not Path(picture.path).is_file()],
        "map": weights_figure(found.weights_before, found.weights_after),
        "weights": _weights(found),
        "cost": _cost(found.stages),
        "energy": _energy_note(found.stages),
    }
    write_page(path, "round.html", parts)


def _headline(found: Round) -> str:
    """Return the decision in words."""
    if found.decision == "promoted":
        share = found.verdict.share if found.verdict else 1.0
        between = "" if share == 1 else f", an interpolation with {share:g} of the new weights,"
        return f"Promoted: {found.after}{between} takes the place of {found.before}"
    if found.decision == "refused":
        kept = "" if found.after in ("", found.before) else f"; {found.after} is kept, refused"
        return f"Refused: {found.before} stays{kept}"
    return f"{found.decision.capitalize()}: {found.before} stays"


def _facts(found: Round) -> list[tuple[str, str]]:
    facts = [("began", found.started), ("ended", found.finished)]
    for name, values in (("program", found.code), ("seeds", found.seeds)):
        known = {key: value for key, value in values.items() if value not in (None, "")}
        if known:
            facts.append((name, ", ".join(f"{key}: {value}" for key, value in known.items())))
    return facts


def _came_in(packages: Sequence[PackageIn]) -> Table:
    head = ["package", "task", "cases", "trained on", "kept for the gate", "of the hold-out"]
    table = [[*head, "reviewed", "prompts", "time", "by", "corrected", "left out"]]
    for one in packages:
        counts = (one.cases, one.training, one.held, one.holdout)
        share = "-" if one.reviewed_share is None else f"{100 * one.reviewed_share:.0f} %"
        people = (", ".join(one.reviewers) or "-", one.student or "-", "; ".join(one.refused))
        name = f"{one.name} ({one.digest[:8]})"
        work = (share, str(one.clicks), _time(one.seconds))
        table.append([name, one.task, *(str(count) for count in counts), *work, *people])
    return table if packages else []


def _labels(found: Round) -> Table:
    """Return how well each case's labels fit its image."""
    head = ["task", "case", "own labels", "moved", "best of others'", "fit worse", "verdict"]
    table = [head]
    for task, cases in found.labels.items():
        for fit in (Fit.from_json(case) for case in cases):
            name, best = fit.best_other
            moved = "-" if fit.moved is None else f"{fit.moved:.2f}"
            worse = f"{sum(v < fit.own for v in fit.others.values())} of {len(fit.others)}"
            other = f"{best:.2f} ({name})" if name else "-"
            table.append([task, fit.case, f"{fit.own:.2f}", moved, other, worse, fit.verdict])
    return table if len(table) > 1 else []


def _scores(found: Round) -> Table:
    sure = f" ({100 * found.verdict.confidence:g} % interval)" if found.verdict else ""
    table = [["task", "label", "cases", "Dice before", "Dice after", f"change{sure}"]]
    for line in found.scores:
        change = Bounds.from_json(line["change"])
        dices = [f"{line[key]:.3f}" for key in ("before", "after")]
        table.append([line["task"], line["label"], str(change.n), *dices, str(change)])
    return table if len(table) > 1 else []


def _try(verdict: Verdict) -> dict[str, Any]:
    """Return one try at the gate: a title, a reason and a table."""
    name = "the new one" if verdict.share == 1 else f"interpolation, {verdict.share:g} of the new"
    head = ["task", "cases", "before", "after", "change", "may lose", "gain", "what this tells"]
    return {
        "title": f"{name}: {'passed' if verdict.promoted else 'refused'}",
        "reason": verdict.reason,
        "table": [head, *(_task_line(task) for task in verdict.tasks)],
    }


def _task_line(task: TaskVerdict) -> list[str]:
    means = ["-" if math.isnan(value) else f"{value:.3f}" for value in (task.before, task.after)]
    gain = "not corrected" if task.gain is None else f"{task.gain:+.4f}"
    name = f"{task.task}{' *' if task.problems else ''}"
    return [
        name,
        str(task.change.n),
        *means,
        str(task.change),
        f"{task.allowed:.4f}",
        gain,
        "; ".join(task.notes),
    ]


def _trained(found: Round) -> Table:
    table = [["what", "steps", "settings"]]
    for one in found.trained:
        settings = ", ".join(f"{key}: {value}" for key, value in one.settings.items())
        table.append([one.name, str(one.steps), settings])
    return table if found.trained else []


def _pictures(pictures: Iterable[Picture]) -> list[tuple[str, str]]:
    return [
        (picture.caption, png_uri(Path(picture.path).read_bytes()))
        for picture in pictures
        if Path(picture.path).is_file()
    ]


def _weights(found: Round) -> Table:
    """Return the expert map as numbers, before and after."""
    before, after = found.weights_before, found.weights_after
    names = list(dict.fromkeys(n for side in (before, after) for w in side.values() for n in w))
    table = [["task", *names]]
    for task in dict.fromkeys([*before, *after]):
        cells = ([side.get(task, {}).get(name) for side in (before, after)] for name in names)
        shown = (" → ".join("-" if v is None else f"{v:.3f}" for v in cell) for cell in cells)
        table.append([task, *shown])
    return table if len(table) > 1 else []


def _cost(stages: Sequence[Stage]) -> Table:
    table, joules = [["stage", "time", "processor time", "energy"]], 0.0
    for stage in stages:
        spent = estimated_joules(stage.cpu_s) if stage.joules is None else stage.joules
        mark = "~" if stage.joules is None else ""
        table.append([stage.name, *_cost_cells(stage.seconds, stage.cpu_s, spent, mark)])
        joules += spent
    seconds, cpu_s = sum(s.seconds for s in stages), sum(s.cpu_s for s in stages)
    mark = "~" if any(stage.joules is None for stage in stages) else ""
    table.append(["all", *_cost_cells(seconds, cpu_s, joules, mark)])
    return table if stages else []


def _cost_cells(seconds: float, cpu_s: float, joules: float, mark: str) -> list[str]:
    return [_time(seconds), _time(cpu_s), f"{mark}{joules / 3600:.2f} Wh"]


def _energy_note(stages: Sequence[Stage]) -> str:
    """Say where the energy figures come from."""
    if all(stage.joules is not None for stage in stages):
        return "Energy: counted by the processor (RAPL), of the whole machine."
    estimate = f"processor time × {WATTS_PER_CORE:g} W per busy core, an assumption"
    if any(stage.joules is not None for stage in stages):
        return f"Energy: counted by the processor (RAPL); where marked ~, {estimate}."
    return f"Energy: an estimate, {estimate}; graphics cards are not counted."


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _has_lines(scalars: str) -> bool:
    return bool(scalars) and Path(scalars).is_file() and Path(scalars).stat().st_size > 0
