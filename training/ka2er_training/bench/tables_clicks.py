"""What simulated clicks are worth: the table, and whether it is what was wanted.

A cell has a row per label.  Labels are averaged within a case before anything is counted, as cases
are what varies in the population.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.stats import bootstrap
from ka2er_training.bench.tables import Results, Table, plain_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# A mask this good should not suffer from a click, and this much is to be closed by the last one;
# see the issue of the core.
GOOD = 0.9
SHARE = 1 / 3


@dataclass(frozen=True, slots=True, eq=False)
class Clicked:
    """What clicks did on one task.

    Parameters
    ----------
    dice : ndarray, shape (n_cases, n_clicks + 1)
        Mean over a case's labels, before the first click and after each.
    good : tuple of ndarray
        Of every case that has a label's mask above `GOOD`, what each click on one did to its Dice.
    """

    dice: NDArray[np.float64]
    good: tuple[NDArray[np.float64], ...]

    @property
    def closed(self) -> float:
        """Share of what was missing to a mean Dice of 1 that the last click has closed."""
        first, last = self.dice[:, 0].mean(), self.dice[:, -1].mean()
        return float((last - first) / max(1 - first, 1e-9))

    @property
    def n_good(self) -> int:
        """Number of clicks on masks above `GOOD`."""
        return sum(len(changes) for changes in self.good)

    @property
    def change_of_good(self) -> float:
        """Change of Dice per click on such a mask, mean within and over cases; NaN without any."""
        return float(np.mean([c.mean() for c in self.good])) if self.good else float("nan")


def clicked(rows: Sequence[Mapping[str, Any]], n_clicks: int) -> Clicked:
    """Return what the first `n_clicks` clicks did.

    Parameters
    ----------
    rows : sequence of mapping
        Of one task, a row per label: its ``case``, and its ``dice`` after 0, 1 … clicks.
    n_clicks : int
        The last click that counts.
    """
    cases = dict.fromkeys(row["case"] for row in rows)
    dice, good = [], []
    for case in cases:
        labels = np.array([row["dice"] for row in rows if row["case"] == case])[:, : n_clicks + 1]
        dice.append(labels.mean(axis=0))
        changes = np.diff(labels, axis=1)[labels[:, :-1] > GOOD]
        if changes.size:
            good.append(changes)
    return Clicked(np.array(dice), tuple(good))


def click_table(results: Results, clicks: tuple[int, ...]) -> Table:
    """Return Dice after each number of clicks and what clicks did to masks that were good."""
    head = (
        "task",
        "cases",
        *(f"Dice after {_clicks(n)}" for n in clicks),
        f"share of what was missing that {_clicks(clicks[-1])} closed",
        f"change of Dice per click on a label's mask above {GOOD}",
        "share of cases that became better",
    )
    note = (
        "Mean over the labels within a case and over cases [95 % bootstrap interval over cases]. "
        "The user clicks the innermost voxel of the largest error (CVPR 2025 challenge), with the "
        "truth at hand; every label is corrected for itself. Missing: to a mean Dice of 1, before "
        "the first click."
    )
    rows = plain_rows(results, "clicks", lambda result: _rows(result["rows"], clicks))
    return Table("Dice after simulated clicks", head, rows, note)


def _rows(rows: Sequence[Mapping[str, Any]], clicks: tuple[int, ...]) -> list[tuple[str, ...]]:
    if not rows:
        return []
    found = clicked(rows, clicks[-1])
    change = f"{found.change_of_good:+.4f}, {_counted(found)}" if found.good else "-"
    return [
        (
            str(len(found.dice)),
            *(str(bootstrap(found.dice[:, n].tolist())) for n in clicks),
            f"{found.closed:.0%}",
            change,
            f"{(found.dice[:, -1] > found.dice[:, 0]).mean():.0%}",
        )
    ]


def _counted(found: Clicked) -> str:
    cases = "1 case" if len(found.good) == 1 else f"{len(found.good)} cases"
    return f"{_clicks(found.n_good)} in {cases}"


def _clicks(n: int) -> str:
    return "1 click" if n == 1 else f"{n} clicks"


def click_verdicts(results: Results, clicks: tuple[int, ...]) -> list[tuple[str, bool]]:
    """Return what was wanted of clicks on each task, with the numbers, and whether it holds.

    Parameters
    ----------
    results : Results
        What was measured.
    clicks : tuple of int
        Numbers of clicks after which Dice is noted; from each to the next it has to rise.
    """
    found = []
    for entry in results.find("clicks"):
        rows = results.store.result(entry.cell)["rows"]
        if rows and len(clicks) > 1:
            found += _judged(clicked(rows, clicks[-1]), entry.task, clicks)
    return found


def _judged(found: Clicked, task: str, clicks: tuple[int, ...]) -> list[tuple[str, bool]]:
    n, last = f"n={len(found.dice)}", clicks[-1]
    least = float(np.diff(found.dice.mean(axis=0)[list(clicks)]).min())
    numbers = ", ".join(map(str, clicks))
    rises = (
        f"Dice on {task} changes by at least {least:+.4f} from each of {numbers} clicks to the "
        f"next, {n}, wanted more than 0"
    )
    closes = (
        f"{_clicks(last)} closed {found.closed:.1%} of what was missing on {task}, {n}, "
        "wanted at least a third"
    )
    judged = [(rises, least > 0), (closes, found.closed >= SHARE)]
    if found.good:
        change = found.change_of_good
        text = (
            f"a click on a mask above {GOOD} changes its Dice by {change:+.6f} on average on "
            f"{task}, {_counted(found)}, wanted at least 0"
        )
        judged.append((text, change >= 0))
    return judged
