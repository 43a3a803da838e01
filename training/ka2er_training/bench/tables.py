"""From finished cells to the benchmark's tables; what is not finished is missing, not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.stats import Interval, bootstrap, compare, holm, mean_over_seeds
from ka2er_training.bench.systems import EXPERTS, JOINT, KA2ER
from ka2er_training.evaluate import Row, per_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ka2er_training.bench.amalgamation import Entry
    from ka2er_training.bench.cells import Store

MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as people read it.

    Parameters
    ----------
    title : str
        One line.
    head : tuple of str
        Column names.
    rows : tuple of tuple of str
        Cells.
    note : str
        What has to be known to read it.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown, with its title as a heading."""
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"## {self.title}\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")


@dataclass(frozen=True, slots=True)
class Results:
    """Finished evaluations, to be asked by table, system, task, seed and column.

    Parameters
    ----------
    entries : sequence of Entry
        The plan's.
    store : Store
        Where the cells are.
    """

    entries: Sequence[Entry]
    store: Store

    def find(self, table: str, **wanted: Any) -> list[Entry]:
        """Return the finished entries of a table with these fields."""
        return [
            entry
            for entry in self.entries
            if entry.table == table
            and all(getattr(entry, key) == value for key, value in wanted.items())
            and self.store.is_finished(entry.cell)
        ]

    def values(
        self, table: str, metric: str = "dice", label: str = "", **wanted: Any
    ) -> list[dict[str, float]]:
        """Return, per seed, each case's mean of a metric over its labels, or of one label."""
        return [
            per_case([row for row in self.rows(entry) if label in ("", row.label)], metric)
            for entry in self.find(table, **wanted)
        ]

    def rows(self, entry: Entry) -> list[Row]:
        """Return an evaluation's raw rows."""
        return [Row.from_json(row) for row in self.store.result(entry.cell)["rows"]]

    def names(self, table: str, field: str) -> list[str]:
        """Return the different values of a field in a table, finished or not, in order."""
        found = (str(getattr(e, field)) for e in self.entries if e.table == table)
        return list(dict.fromkeys(found))


def main_table(results: Results, metric: str = "dice") -> Table:
    """Return the table of all systems on all tasks."""
    tasks = results.names("main", "task")
    rows: list[tuple[str, ...]] = []
    for system in results.names("main", "system"):
        found = [results.values("main", metric, system=system, task=task) for task in tasks]
        rows.append((system, *(cell_text(seeds, metric) for seeds in found)))
    rows, unmeasured = measured(rows)
    title = {"dice": "Dice", "nsd": "Surface Dice (NSD)", "hd95_mm": "HD95 in mm"}[metric]
    note = (
        "Mean over the labels within a case and over the test cases [95 % bootstrap interval over "
        "cases], number of cases. With several seeds a case counts once, with the mean over its "
        "seeds; ± is half the distance between the best and the worst seed's mean."
    )
    note = with_unmeasured(note, unmeasured)
    return Table(f"{title} by system and task", ("system", *tasks), tuple(rows), note)


def measured(rows: list[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows that have a number, and the systems that have none."""
    is_empty = [all(cell == MISSING for cell in row[1:]) for row in rows]
    pairs = list(zip(rows, is_empty, strict=True))
    return [row for row, empty in pairs if not empty], [row[0] for row, empty in pairs if empty]


def with_unmeasured(note: str, systems: Sequence[str]) -> str:
    """Return a table's note, with the systems of which it has no number."""
    return f"{note} Not measured: {', '.join(systems)}." if systems else note


def cell_text(seeds: list[dict[str, float]], metric: str = "dice") -> str:
    """Return mean, interval, spread over seeds and number of cases, or that it is missing."""
    if not seeds:
        return MISSING
    interval = bootstrap(list(mean_over_seeds(seeds).values()))
    text = _number(interval, metric)
    # Seeds that test other cases (folds) differ by their cases: that is no spread of seeds.
    if len(seeds) > 1 and all(seed.keys() == seeds[0].keys() for seed in seeds):
        means = [float(np.mean(list(seed.values()))) for seed in seeds]
        text += f" ± {(max(means) - min(means)) / 2:.3f}"
    return f"{text}, n={interval.n}"


def _number(interval: Interval, metric: str) -> str:
    if metric != "hd95_mm" or interval.n == 0:
        return str(interval)
    ends = "" if np.isnan(interval.low) else f" [{interval.low:.1f}, {interval.high:.1f}]"
    return f"{interval.mean:.1f}{ends}"


def comparison_table(results: Results) -> Table:
    """Return KA²ER against the joint SwinUNETR and against the experts, paired by case."""
    rows: list[list[str]] = []
    p_values = []
    for system in KA2ER:
        for other in (JOINT, EXPERTS):
            for task in results.names("main", "task"):
                pair = [
                    mean_over_seeds(results.values("main", system=s.name, task=task))
                    for s in (system, other)
                ]
                if not all(pair):
                    continue
                outcome = compare(*pair)
                p_values.append(outcome.p)
                difference = outcome.difference
                n = str(difference.n)
                rows.append([system.name, other.name, task, signed(difference), n])
    for row, p in zip(rows, holm(p_values), strict=True):
        row.append("-" if np.isnan(p) else f"{p:.3f}")
    head = ("system", "against", "task", "difference in Dice", "cases", "p (Holm)")
    note = "Paired by case; Wilcoxon's signed-rank test, adjusted for all lines by Holm's method."
    return Table("KA²ER against its rivals", head, tuple(tuple(row) for row in rows), note)


def signed(interval: Interval) -> str:
    """Return a difference with its sign and interval."""
    if interval.n == 0:
        return "-"
    ends = "" if np.isnan(interval.low) else f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    return f"{interval.mean:+.3f}{ends}"


def label_table(results: Results) -> Table:
    """Return Dice per label, for tasks with several."""
    pairs: dict[tuple[str, str], None] = {}
    for entry in results.find("main"):
        pairs.update({(row.task, row.label): None for row in results.rows(entry)})
    rows = [
        (
            system,
            *(
                cell_text(results.values("main", label=label, system=system, task=task))
                for task, label in pairs
            ),
        )
        for system in results.names("main", "system")
    ]
    rows, _ = measured(rows)
    head = ("system", *(f"{task}: {label}" for task, label in pairs))
    return Table("Dice by label", head, tuple(rows))


def plain_rows(
    results: Results, table: str, pick: Callable[[dict[str, Any]], Iterable[tuple[str, ...]]]
) -> tuple[tuple[str, ...], ...]:
    """Return the rows that `pick` makes of each finished cell's result, the task in front."""
    return tuple(
        (entry.task, *row)
        for entry in results.find(table)
        for row in pick(results.store.result(entry.cell))
    )
