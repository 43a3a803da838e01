"""What simulated work costs, what may be spent, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds that a practised annotator takes; our assumption, not a measurement.

    Parameters
    ----------
    click_s : float
        To find an error, click it and judge the answer.
    undo_s : float
        To take an answer back.
    stroke_s, mm_per_s : float
        To begin a stroke of the brush, and how fast it goes.
    slice_s : float
        To look at one slice and call it reviewed.
    """

    click_s: float = 3.0
    undo_s: float = 0.5
    stroke_s: float = 1.0
    mm_per_s: float = 20.0
    slice_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What an annotator may spend on a case.

    Parameters
    ----------
    n_clicks, n_strokes : int
        At most so many of each.
    content_dice : float
        No click is spent on a label that is this good.
    content_share : float
        No stroke is spent on a slice in which a smaller share of the label's voxels is wrong.
    """

    n_clicks: int = 10
    n_strokes: int = 100
    content_dice: float = 0.97
    content_share: float = 0.05


class WorkClock:
    """Tells a session the time of simulated work: real time does not count.

    Parameters
    ----------
    start_s : float
        Seconds since 1970.
    """

    def __init__(self, start_s: float | None = None) -> None:
        self.now_s = time.time() if start_s is None else start_s

    def __call__(self) -> float:
        """Return the present time."""
        return self.now_s

    def spend(self, seconds: float) -> None:
        """Let time go by."""
        self.now_s += seconds


@dataclass(slots=True)
class Work:
    """What an annotator did, and what it led to.

    Parameters
    ----------
    n_clicks, n_undone, n_strokes : int
        Clicks, those taken back among them, and strokes.
    course : list of (float, dict)
        After each deed, and before the first: seconds of work so far, Dice per label.
    """

    n_clicks: int = 0
    n_undone: int = 0
    n_strokes: int = 0
    course: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    def until(self, threshold: float) -> float | None:
        """Return the seconds until every label reached a Dice; None if they did not."""
        reached = (s for s, d in self.course if all(not v < threshold for v in d.values()))
        return next(reached, None)
