"""The loop's report: one Markdown file with tables and plots, and the raw numbers as JSON."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench import loop_figures as figures
from ka2er_training.bench import loop_tables as tables
from ka2er_training.bench.cells import machine, missing
from ka2er_training.bench.loop_entries import ACCEPTED, NO_CHANGE, OURS, SCRATCH
from ka2er_training.bench.loop_results import LoopResults
from ka2er_training.bench.report import json_safe
from ka2er_training.bench.stats import compare
from ka2er_training.workspace import write_json, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from ka2er_training.bench.cells import Store
    from ka2er_training.bench.loop_plan import LoopPlan
    from ka2er_training.bench.tables import Table

# How much another task may lose; and beside training from scratch, as the design has it, how long a
# round may take and what share of the Dice it must reach.
MARGIN, SHARE, REACHED = 0.01, 0.10, 0.99


def write_report(plan: LoopPlan, store: Store, out: Path, command: str) -> Path:
    """Write ``loop.md``, its plots and ``loop.json``; return the first.

    Parameters
    ----------
    plan : LoopPlan
        What was to be measured.
    store : Store
        What has been.
    out : Path
        Folder for the files.
    command : str
        What to type to get the same.
    """
    results = results_of(plan, store)
    tasks = [task.name for task in plan.settings.tasks]
    out.mkdir(parents=True, exist_ok=True)
    plots = [
        figures.round_curves(results, tasks, out / "loop_rounds.svg"),
        figures.arm_forest(results, tasks, out / "loop_arms.svg"),
    ]
    parts = [
        _introduction(plan, store, command),
        verdict_text(plan, results),
        *(f"![{path.stem}]({path.name})" for path in plots if path is not None),
        *(table.markdown() for table in all_tables(plan, results) if table.rows),
        _cases(plan),
    ]
    write_json(out / "loop.json", raw_numbers(results))
    path = out / "loop.md"
    write_text(path, "\n\n".join(part.strip() for part in parts) + "\n")
    return path


def results_of(plan: LoopPlan, store: Store) -> LoopResults:
    """Return what is finished of a plan."""
    return LoopResults(plan.entries(), store, plan.settings.measurement.good_dice)


def all_tables(plan: LoopPlan, results: LoopResults) -> list[Table]:
    """Return the report's tables in order."""
    tasks = [task.name for task in plan.settings.tasks]
    return [
        tables.round_table(results, tasks),
        tables.work_table(results),
        tables.click_table(results),
        tables.time_table(results),
        tables.arm_table(results, tasks),
        tables.control_table(results),
        tables.effort_table(results, plan.settings.corrected),
    ]


def raw_numbers(results: LoopResults) -> list[dict[str, Any]]:
    """Return what every finished cell says."""
    return [
        {
            "table": entry.table,
            "arm": entry.arm,
            "round": entry.round,
            "seed": entry.seed,
            "cell": entry.cell.digest,
            **results.store.result(entry.cell),
        }
        for entry in results.entries
        if results.store.is_finished(entry.cell)
    ]


def verdicts(plan: LoopPlan, results: LoopResults) -> list[tuple[str, bool]]:
    """Return what was wanted, what was got and whether it holds; nothing of what is missing."""
    return [
        *_gains(plan, results),
        *_losses(plan, results),
        *_times(results),
        *_reached(plan, results),
        *_clicks(results),
        *_refusals(results),
    ]


def _gains(plan: LoopPlan, results: LoopResults) -> list[tuple[str, bool]]:
    found, task = [], plan.settings.corrected
    points = results.curve()
    for (n, arm), (later, later_arm) in pairwise(points):
        before, after = results.dice(task, arm, n), results.dice(task, later_arm, later)
        gain = compare(after, before).difference.mean
        found.append((f"round {later} changes {task} by {gain:+.3f}, wanted more than 0", gain > 0))
    return found


def _losses(plan: LoopPlan, results: LoopResults) -> list[tuple[str, bool]]:
    found = []
    for task in (t.name for t in plan.settings.tasks if t.name != plan.settings.corrected):
        start = results.dice(task, NO_CHANGE, 0)
        for number, arm in results.curve():
            if arm == OURS and start:
                change = compare(results.dice(task, arm, number), start).difference.mean
                text = f"after round {number} {task} has changed by {change:+.3f}"
                found.append((f"{text}, wanted at least {-MARGIN:g}", change >= -MARGIN))
    return found


def _times(results: LoopResults) -> list[tuple[str, bool]]:
    last = max((entry.round for entry in results.entries), default=0)
    scratch, found = results.seconds(SCRATCH, last), []
    # The start has the budget of from scratch, and fewer cases.
    whole, name = (
        (scratch, "from scratch") if scratch else (results.seconds(NO_CHANGE, 0), "of the start")
    )
    for number in range(1, last + 1):
        cpu = results.seconds(OURS, number)
        if cpu is not None and whole:
            text = f"round {number} takes {100 * cpu / whole:.0f} % of the CPU time {name}"
            found.append((f"{text}, wanted at most {100 * SHARE:.0f} %", cpu <= SHARE * whole))
    return found


def _reached(plan: LoopPlan, results: LoopResults) -> list[tuple[str, bool]]:
    """Compare with training from scratch, which has seen all corrections."""
    found, last = [], max((entry.round for entry in results.entries), default=0)
    for task in (t.name for t in plan.settings.tasks):
        arms = [results.dice(task, arm, last) for arm in (OURS, SCRATCH)]
        shared = arms[0].keys() & arms[1].keys()
        if shared:
            ours, scratch = (float(np.mean([arm[case] for case in shared])) for arm in arms)
            text = f"after round {last} {task} has Dice {ours:.3f} where from scratch has"
            text += f" {scratch:.3f}, wanted at least {100 * REACHED:.0f} % of it"
            found.append((text, ours >= REACHED * scratch))
    return found


def _clicks(results: LoopResults) -> list[tuple[str, bool]]:
    points = [(n, arm) for n, arm in results.curve() if results.clicks(arm, n)]
    if len(points) < 2:
        return []
    first, last = (
        float(np.mean(list(results.clicks(arm, n).values()))) for n, arm in (points[0], points[-1])
    )
    text = f"clicks to {results.good_dice:.2f} on the hold-out go from {first:.2f} to {last:.2f}"
    return [(f"{text}, wanted fewer", last < first)]


def _refusals(results: LoopResults) -> list[tuple[str, bool]]:
    found = []
    controls = [entry for entry in results.entries if entry.table == "control"]
    controls = [entry for entry in controls if not entry.arm.endswith(ACCEPTED)]
    arms = dict.fromkeys(entry.arm for entry in controls)
    told = [result for arm in arms for result in results.results("control", arm=arm)]
    if told:
        refused = sum(result["refused"] for result in told)
        text = f"rounds refuse {refused} of {len(told)} damaged packages"
        found.append((f"{text} (of {len(controls)} planned), wanted all", refused == len(told)))
    for result in results.results("copy"):
        found.append(("the check refuses a copy of a hold-out case", result["refused"]))
    return found


def verdict_text(plan: LoopPlan, results: LoopResults) -> str:
    """Return what was wanted, each with whether it holds."""
    words = {True: "holds", False: "**does not hold**"}
    lines = [f"- {words[holds]}: {text}" for text, holds in verdicts(plan, results)]
    return "## What was wanted\n\n" + ("\n".join(lines) or "Nothing is finished yet.")


def _introduction(plan: LoopPlan, store: Store, command: str) -> str:
    left, shape, chosen = missing(plan.cells(), store), machine(), plan.settings
    budget = chosen.annotation
    seeds = f"{len(chosen.seeds)} seed" + ("" if len(chosen.seeds) == 1 else "s")
    lines = [
        "# The loop on real volumes",
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}, {shape['cpus']} CPUs "
        f"({shape['arch']}), Python {shape['python']}, {seeds}; {len(left)} cells are missing.",
        f"A student of few cases is corrected on new cases of {chosen.corrected}: "
        f"{budget.rounds} rounds of {budget.cases_per_round} cases, at most {budget.n_clicks} "
        f"clicks and {budget.n_strokes} strokes per case, every slice reviewed. The annotator is "
        "simulated, works through the session as a user does, and knows the truth.",
    ]
    if left:
        kinds = Counter(cell.kind for cell in left)
        lines.append("Missing: " + ", ".join(f"{n} of kind {k}" for k, n in kinds.items()) + ".")
    return "\n\n".join(lines)


def _cases(plan: LoopPlan) -> str:
    """Return which cases are trained on and tested, per task."""
    lines = [
        "## Cases",
        "By patient, by the SHA-256 of task and patient; see `bench/splits.py`.",
        "",
    ]
    for name, cases in plan.cases.items():
        lines.append(
            f"- {name}: start with {', '.join(cases.start)}; hold-out {', '.join(cases.holdout)}; "
            f"{len(cases.new)} new ones"
        )
    return "\n".join(lines)


def summary(plan: LoopPlan, store: Store) -> dict[str, Any]:
    """Return what `--json` prints: Dice by round and task, verdicts, and what is missing."""
    results = results_of(plan, store)
    tasks = [task.name for task in plan.settings.tasks]
    rounds = [
        {"round": n, "dice": {task: _mean(results.dice(task, arm, n)) for task in tasks}}
        for n, arm in results.curve()
    ]
    judged = [{"wanted": text, "holds": bool(ok)} for text, ok in verdicts(plan, results)]
    left = [cell.name for cell in missing(plan.cells(), store)]
    return json_safe({"rounds": rounds, "wanted": judged, "missing": left})


def _mean(values: dict[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None
