"""What changed from one evaluation to another: per task and label, and case by case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.gate_stats import Bounds, bounds, pairs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ka2er_training.evaluate import Row
    from ka2er_training.settings import GateSettings


@dataclass(frozen=True, slots=True)
class CaseChange:
    """How a case changed: mean Dice over labels."""

    task: str
    case: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        """What it gained."""
        return self.after - self.before

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        own = {"task": self.task, "case": self.case, "before": self.before, "after": self.after}
        return {**own, "difference": self.difference}

    def __str__(self) -> str:
        dice = f"Dice {self.before:.3f} before, {self.after:.3f} after ({self.difference:+.3f})"
        return f"{self.task}, case {self.case}: {dice}"


def label_changes(
    before: Sequence[Row], after: Sequence[Row], settings: GateSettings
) -> list[dict[str, Any]]:
    """Return per task and label, and of all labels if there are several, what changed.

    Returns
    -------
    list of dict
        ``task, label, before, after`` (mean Dice of the pairs) and ``change`` (`Bounds.to_json`);
        labels that occur in no case are left out.
    """
    lines = []
    for task in dict.fromkeys(row.task for row in before):
        sides = [[row for row in rows if row.task == task] for rows in (before, after)]
        labels = list(dict.fromkeys(row.label for row in sides[0]))
        for label in [*labels, "all"] if len(labels) > 1 else labels:
            kept = ([r for r in side if label in (r.label, "all")] for side in sides)
            if pairs := list(pairs_of(*kept).values()):
                lines.append(
                    {
                        "task": task,
                        "label": label,
                        "before": float(np.mean([pair.before for pair in pairs])),
                        "after": float(np.mean([pair.after for pair in pairs])),
                        "change": bounds([p.difference for p in pairs], settings).to_json(),
                    }
                )
    return lines


def case_changes(before: Sequence[Row], after: Sequence[Row]) -> list[CaseChange]:
    """Return every case's change, the largest first, losses before equal gains."""
    changes = []
    for task in dict.fromkeys(row.task for row in before):
        sides = ([row for row in rows if row.task == task] for rows in (before, after))
        pairs = pairs_of(*sides)
        changes += [CaseChange(task, case, p.before, p.after) for case, p in pairs.items()]
    return sorted(changes, key=lambda c: (-round(abs(c.difference), 9), c.difference))


def most_changed(changes: Sequence[CaseChange], n_cases: int) -> list[CaseChange]:
    """Return the cases of each task that changed most."""
    tasks = dict.fromkeys(change.task for change in changes)
    return [c for t in tasks for c in [c for c in changes if c.task == t][:n_cases]]


def worst(changes: Sequence[CaseChange]) -> list[CaseChange]:
    """Return of each task the case that lost most, and the one that is found worst now."""
    chosen = []
    for task in dict.fromkeys(change.task for change in changes):
        own = [change for change in changes if change.task == task]
        extremes = (min(own, key=lambda c: c.difference), min(own, key=lambda c: c.after))
        chosen += list(dict.fromkeys(extremes))
    return chosen


def change_table(labels: Sequence[dict[str, Any]]) -> str:
    """Return label changes as aligned text."""
    lines: list[tuple[str, ...]] = [("task", "label", "cases", "before", "after", "change")]
    for line in labels:
        change = Bounds.from_json(line["change"])
        dices = (f"{line[key]:.3f}" for key in ("before", "after"))
        lines.append((line["task"], line["label"], str(change.n), *dices, str(change)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
