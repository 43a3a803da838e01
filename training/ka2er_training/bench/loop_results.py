"""What the loop's finished cells say, asked by arm, round and task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.loop_entries import NO_CHANGE, OURS
from ka2er_training.bench.loop_measuring import clicks_needed
from ka2er_training.bench.stats import mean_over_seeds
from ka2er_training.evaluate import Row, per_case

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ka2er_training.bench.cells import Store
    from ka2er_training.bench.loop_entries import LoopEntry

    Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class LoopResults:
    """Finished cells of the loop.

    Parameters
    ----------
    entries : sequence of LoopEntry
        The plan's.
    store : Store
        Where the cells are.
    good_dice : float
        What counts as good when clicks are counted.
    """

    entries: Sequence[LoopEntry]
    store: Store
    good_dice: float = 0.9

    def find(self, table: str, **wanted: Any) -> list[LoopEntry]:
        """Return the finished entries of a table with these fields."""
        return [
            entry
            for entry in self.entries
            if entry.table == table
            and all(getattr(entry, key) == value for key, value in wanted.items())
            and self.store.is_finished(entry.cell)
        ]

    def results(self, table: str, **wanted: Any) -> list[dict[str, Any]]:
        """Return the results of the finished entries of a table."""
        return [self.store.result(entry.cell) for entry in self.find(table, **wanted)]

    def dice(self, task: str, arm: str, number: int) -> Values:
        """Return each hold-out case's Dice of a task, labels and seeds averaged; empty: missing."""
        by_seed = []
        for result in self.results("measure", arm=arm, round=number):
            rows = [Row.from_json(row) for row in result["rows"] if row["task"] == task]
            by_seed.append(per_case(rows))
        return mean_over_seeds(by_seed)

    def clicks(self, arm: str, number: int, good: float | None = None) -> Values:
        """Return, per hold-out case and label, the clicks until it was good, seeds averaged.

        A label that is not good after all clicks counts as one more than there were.
        """
        goal = self.good_dice if good is None else good
        return self._per_label(arm, number, lambda dice: float(clicks_needed(dice, goal)))

    def clicked(self, arm: str, number: int, n_clicks: int) -> Values:
        """Return, per hold-out case and label, the Dice after so many clicks, or after all."""
        return self._per_label(arm, number, lambda dice: dice[min(n_clicks, len(dice) - 1)])

    def _per_label(
        self, arm: str, number: int, value: Callable[[Sequence[float]], float]
    ) -> Values:
        """Return a value of each curve of Dice over clicks, seeds averaged."""
        by_seed = [
            {f"{row['case']} {row['label']}": value(row["dice"]) for row in result["clicks"]}
            for result in self.results("measure", arm=arm, round=number)
        ]
        return mean_over_seeds(by_seed)

    def curve(self) -> list[tuple[int, str]]:
        """Return round and arm of the points of our curve that are measured; the start is first."""
        points = [(0, NO_CHANGE)]
        points += sorted({(e.round, OURS) for e in self.entries if e.arm == OURS})
        return [(n, arm) for n, arm in points if self.find("measure", arm=arm, round=n)]

    def seconds(self, arm: str, number: int, kind: str = "cpu_s") -> float | None:
        """Return the time of a state's making, mean over seeds; None if it is missing.

        Of a round that was stopped, its stages tell only what they took since it went on.
        """
        found = [
            sum(
                part[kind]
                for part in ([one["round"]] if "round" in one else one["stages"].values())
            )
            for one in self.results("state", arm=arm, round=number)
        ]
        return sum(found) / len(found) if found else None
