"""The names of the loop's arms, and a cell's place in its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ka2er_training.bench.cells import Cell

NO_CHANGE, OURS, SCRATCH, ONLY = "no change", "replay", "from scratch", "corrections only"
# One round each, and what its candidate has learned, whether the gate let it through or not.
WHOLE, PARTIAL, DISPUTED = "all slices", "some slices", "by disagreement"
ACCEPTED = ", labels accepted"  # a control whose labels are not asked about
ARMS = (NO_CHANGE, SCRATCH, ONLY, OURS)


@dataclass(frozen=True, slots=True)
class LoopEntry:
    """A cell and its place in the tables.

    Parameters
    ----------
    cell : Cell
        What to run.
    table : str
        ``"measure"``, ``"annotation"``, ``"state"``, ``"control"``, ``"copy"`` or ``"order"``.
    arm : str
        One of the names above.
    round : int
        0 is the start.
    seed : int
        Of the loop.
    """

    cell: Cell
    table: str
    arm: str
    round: int
    seed: int
