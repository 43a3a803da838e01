"""The benchmark's report: one Markdown file with tables and plots, and the raw numbers as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ka2er_training.bench import (
    figures,
    tables,
    tables_change,
    tables_clicks,
    tables_control,
    tables_cost,
)
from ka2er_training.bench.cells import machine, missing
from ka2er_training.bench.stats import mean_over_seeds
from ka2er_training.bench.systems import (
    CONTROL,
    EXPERTS,
    HALF_EXPERTS,
    JOINT,
    KA2ER,
    LAYERS,
    TWICE_EXPERTS,
)
from ka2er_training.bench.tables import Results
from ka2er_training.workspace import write_json, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from ka2er_training.bench.amalgamation import Plan
    from ka2er_training.bench.cells import Store
    from ka2er_training.bench.tables import Table

# How far below its expert the student may be; see the issue of the core.
MARGIN = 0.01


def write_report(plan: Plan, store: Store, out: Path, command: str) -> Path:
    """Write ``amalgamation.md``, its plots and ``amalgamation.json``; return the first.

    Parameters
    ----------
    plan : Plan
        What was to be measured.
    store : Store
        What has been.
    out : Path
        Folder for the files.
    command : str
        What to type to get the same.
    """
    results = Results(plan.entries(), store)
    out.mkdir(parents=True, exist_ok=True)
    plots = [
        figures.forest(results, out / "amalgamation_dice.svg"),
        figures.click_curves(results, out / "amalgamation_clicks.svg"),
        figures.cost_curves(results, out / "amalgamation_cost.svg"),
    ]
    parts = [
        _introduction(plan, store, command),
        verdict_text(all_verdicts(plan, results)),
        *(f"![{path.stem}]({path.name})" for path in plots if path is not None),
        *(table.markdown() for table in all_tables(plan, results) if table.rows),
        _splits(plan),
    ]
    write_json(out / "amalgamation.json", raw_numbers(results))
    path = out / "amalgamation.md"
    write_text(path, "\n\n".join(part.strip() for part in parts) + "\n")
    return path


def all_tables(plan: Plan, results: Results) -> list[Table]:
    """Return the report's tables in order."""
    return [
        tables.main_table(results),
        tables.comparison_table(results),
        tables_control.control_table(results),
        tables.label_table(results),
        tables.main_table(results, "nsd"),
        tables.main_table(results, "hd95_mm"),
        tables_change.few_table(results),
        tables_change.long_table(results),
        tables_change.shift_table(results),
        tables_clicks.click_table(results, plan.settings.measurement.clicks),
        tables_cost.cost_table(results),
        tables_cost.expert_table(results),
    ]


def raw_numbers(results: Results) -> list[dict[str, Any]]:
    """Return what every finished cell measured, per case."""
    return [
        {
            "table": entry.table,
            "system": entry.system,
            "task": entry.task,
            "seed": entry.seed,
            "column": entry.column,
            "cell": entry.cell.digest,
            **results.store.result(entry.cell),
        }
        for entry in results.entries
        if results.store.is_finished(entry.cell)
    ]


def verdicts(results: Results) -> list[tuple[str, bool]]:
    """Return what was wanted of each KA²ER mode on each task, and whether it holds."""
    found = []
    for system in KA2ER:
        for task in results.names("main", "task"):
            own, joint, expert = (
                mean_over_seeds(results.values("main", system=s.name, task=task))
                for s in (system, JOINT, EXPERTS)
            )
            for rival, other, margin in (("joint", joint, 0.0), ("expert", expert, MARGIN)):
                shared = sorted(own.keys() & other.keys())
                if shared:
                    gain = sum(own[c] - other[c] for c in shared) / len(shared)
                    text = f"{system.name} minus {rival} on {task} is {gain:+.3f}"
                    found.append((f"{text}, wanted at least {0 - margin:g}", gain >= -margin))
    return found


def control_verdicts(results: Results) -> list[tuple[str, bool]]:
    """Return whether untrained experts bring nothing, and experts had converged."""
    found = []
    for task, control in tables_control.paired(results, CONTROL, LAYERS):
        text = f"untrained experts bring {tables.signed(control.difference)} on {task}, wanted 0"
        low = control.difference.low
        # One case has no interval: then nothing shows that they bring something.
        found.append((text, not low > 0))
    for task, longer in tables_control.paired(results, EXPERTS, HALF_EXPERTS):
        gain = longer.difference.mean
        text = f"the second half of the schedule brings the expert of {task} {gain:+.3f}"
        found.append((f"{text}, wanted at most {MARGIN:g}", gain <= MARGIN))
    for task, twice in tables_control.paired(results, TWICE_EXPERTS, EXPERTS):
        gain = twice.difference.mean
        text = f"twice the schedule would bring the expert of {task} {gain:+.3f}"
        found.append((f"{text}, wanted at most {MARGIN:g}", gain <= MARGIN))
    return found


def all_verdicts(plan: Plan, results: Results) -> list[tuple[str, bool]]:
    """Return all that was wanted: of the modes, of the control and the schedules, of clicks."""
    clicks = tables_clicks.click_verdicts(results, plan.settings.measurement.clicks)
    return [*verdicts(results), *control_verdicts(results), *clicks]


def verdict_text(found: list[tuple[str, bool]]) -> str:
    """Return the wanted inequalities, each with its mean difference and whether it holds."""
    words = {True: "holds", False: "**does not hold**"}
    lines = [f"- {words[holds]}: {text}" for text, holds in found]
    return "## What was wanted\n\n" + ("\n".join(lines) or "Nothing is finished yet.")


def _introduction(plan: Plan, store: Store, command: str) -> str:
    left = missing(plan.cells(), store)
    shape = machine()
    lines = [
        "# Amalgamation on real volumes",
        f"Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}, {shape['cpus']} CPUs "
        f"({shape['arch']}), Python {shape['python']}; {len(left)} cells are missing.",
        "All Dice are of whole volumes at the label files' own spacing, on cases that no training "
        "has seen; both the experts and the students were split by the same rule. Dice of a label "
        "that is in the truth and was not found is 0; a label that is in neither is left out.",
    ]
    if left:
        kinds = {cell.kind: sum(c.kind == cell.kind for c in left) for cell in left}
        lines.append(
            "Missing: " + ", ".join(f"{n} of kind {kind}" for kind, n in kinds.items()) + "."
        )
    return "\n\n".join(lines)


def _splits(plan: Plan) -> str:
    """Return which cases are trained on and tested, per task."""
    lines = ["## Splits", "By patient, by the SHA-256 of task and patient; see `bench/splits.py`."]
    seeds = plan.settings.student.seeds
    for task in plan.settings.tasks:
        for seed in seeds if task.folds else seeds[:1]:
            split = plan.split(task, seed)
            fold = f" (seed {seed})" if task.folds else ""
            more = f"; another series, {len(split.shifted)} cases" if split.shifted else ""
            tested = ", ".join(split.test)
            lines.append(
                f"- {task.name}{fold}: {len(split.train)} to train on; test {tested}{more}"
            )
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def summary(plan: Plan, store: Store) -> dict[str, Any]:
    """Return what `--json` prints: mean Dice by system and task, verdicts, and what is missing."""
    results = Results(plan.entries(), store)
    dice: dict[str, dict[str, Any]] = {}
    for system in results.names("main", "system"):
        for task in results.names("main", "task"):
            values = mean_over_seeds(results.values("main", system=system, task=task))
            mean = sum(values.values()) / len(values) if values else None
            dice.setdefault(system, {})[task] = mean
    left = missing(plan.cells(), store)
    judged = [{"wanted": text, "holds": ok} for text, ok in all_verdicts(plan, results)]
    return json_safe({"dice": dice, "wanted": judged, "missing": [cell.name for cell in left]})


def json_safe(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data after a trip through JSON, which refuses NaN."""
    safe: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return safe
