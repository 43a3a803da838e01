"""What the gate found: per task, and altogether; plain data that goes into cards and reports."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ka2er_training.gate_stats import Bounds

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """What the gate found for one task.

    Parameters
    ----------
    task : str
        Its name.
    before, after : float
        Mean Dice on the hold-out; NaN without hold-out cases.
    change : Bounds
        Of the paired differences on the hold-out.
    allowed : float
        How far the lower bound may fall, at most the margin.
    corrected : bool
        Whether the round brought corrections of this task.
    held : int
        Corrected cases held from training.
    gain : float or None
        Mean gain that counts for a corrected task: on those, or on the hold-out if too few.
    problems : tuple of str
        Why it may not be promoted; empty if it may.
    contradicted : bool
        Whether its corrections and its hold-out contradict each other.
    notes : tuple of str
        What the hold-out can and cannot tell.
    """

    task: str
    before: float
    after: float
    change: Bounds
    allowed: float
    corrected: bool = False
    held: int = 0
    gain: float | None = None
    problems: tuple[str, ...] = ()
    contradicted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether a corrected task got worse beyond doubt, and further than it may."""
        return self.contradicted and self.change.low < -self.allowed

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        numbers = {k: plain(getattr(self, k)) for k in ("before", "after")}
        return {**asdict(self), **numbers, "change": self.change.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskVerdict:
        """Build a verdict from what `to_json` returned."""
        numbers = {k: float("nan") if data[k] is None else data[k] for k in ("before", "after")}
        texts = {k: tuple(data[k]) for k in ("problems", "notes")}
        return cls(**{**data, **numbers, **texts, "change": Bounds.from_json(data["change"])})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided.

    Parameters
    ----------
    promoted : bool
        Whether the new one may take the old one's place.
    reason : str
        Why, in one line.
    tasks : tuple of TaskVerdict
        Per task, in the order of the old student's rows.
    margin, confidence : float
        The settings that it was judged by.
    share : float
        Share of the new weights: 1 for the new student itself, less for an interpolation.
    """

    promoted: bool
    reason: str
    tasks: tuple[TaskVerdict, ...]
    margin: float
    confidence: float
    share: float = 1.0

    @property
    def contradicted(self) -> bool:
        """Whether corrections contradict a hold-out: then interpolating cannot help."""
        return any(task.contradicted for task in self.tasks)

    def with_share(self, share: float) -> Verdict:
        """Return the same verdict about an interpolation."""
        return replace(self, share=share)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        return {**asdict(self), "tasks": [task.to_json() for task in self.tasks]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Build a verdict from what `to_json` returned."""
        return cls(**{**data, "tasks": tuple(TaskVerdict.from_json(t) for t in data["tasks"])})


def plain(number: float | None) -> float | None:
    """Return a number as JSON can hold it: NaN becomes None."""
    return None if number is None or math.isnan(number) else number
