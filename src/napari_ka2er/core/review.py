"""What somebody has looked at: the status of each label and the reviewed region of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Slices = frozenset[int]


class Status(StrEnum):
    """How far the work on a label is."""

    NOT_STARTED = "not started"
    IN_PROGRESS = "in progress"
    DONE = "done"
    FLAGGED = "flagged"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The part of a volume whose labels somebody vouches for.

    Parameters
    ----------
    whole : bool
        The whole volume was reviewed.
    slices : tuple of three frozenset of int
        The reviewed slices across axis Z, Y and X, by index.
    """

    whole: bool = False
    slices: tuple[Slices, Slices, Slices] = (frozenset(), frozenset(), frozenset())

    def with_slice(self, axis: int, index: int, reviewed: bool = True) -> Reviewed:
        """Return this region with one slice added or taken away."""
        slices = list(self.slices)
        slices[axis] = slices[axis] | {index} if reviewed else slices[axis] - {index}
        return Reviewed(self.whole, (slices[0], slices[1], slices[2]))

    def without_slice(self, axis: int, index: int, shape: tuple[int, ...]) -> Reviewed:
        """Return this region of a volume of this shape with one slice taken back.

        If nothing was left out, all but that slice remains; else slices across it keep their part.
        """
        if not self.is_whole(shape):
            return self.with_slice(axis, index, reviewed=False)
        slices = [Slices()] * 3
        slices[axis] = Slices(range(shape[axis])) - {index}
        return Reviewed(False, (slices[0], slices[1], slices[2]))

    def without_whole(self, shape: tuple[int, ...]) -> Reviewed:
        """Return this region of a volume of this shape with the whole volume taken back.

        Slices that were marked beside it stay, unless they are all across an axis: that would be
        the whole volume again.  If it was not marked, nothing remains.
        """
        if not self.whole:
            return Reviewed()
        z, y, x = (s if len(s) < n else Slices() for s, n in zip(self.slices, shape, strict=True))
        return Reviewed(False, (z, y, x))

    def without_box(self, bounds: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Reviewed:
        """Return this region of a volume of this shape without the slices that go through a box.

        Parameters
        ----------
        bounds : sequence of three (int, int)
            Where the box starts and stops along (Z, Y, X).
        shape : tuple of int
            Of a volume that was wholly reviewed, the slices across Z beside the box remain.
        """
        across_z = Slices(range(shape[0])) if self.whole else self.slices[0]
        every = (across_z, *self.slices[1:])
        z, y, x = (s - Slices(range(*ends)) for s, ends in zip(every, bounds, strict=True))
        return Reviewed(False, (z, y, x))

    def has_slice(self, axis: int, index: int, shape: tuple[int, ...]) -> bool:
        """Return whether a slice was marked, or nothing of a volume of this shape was left out."""
        return index in self.slices[axis] or self.is_whole(shape)

    def is_whole(self, shape: tuple[int, ...]) -> bool:
        """Return whether no voxel of a volume of this shape was left out."""
        return self.whole or any(len(s) == n for s, n in zip(self.slices, shape, strict=True))

    def n_slices(self, shape: tuple[int, ...]) -> int:
        """Return how many slices of a volume of this shape are marked; those across Z if whole."""
        return shape[0] if self.whole else sum(map(len, self.slices))

    def is_empty(self) -> bool:
        """Return whether nothing was reviewed."""
        return not self.whole and not any(self.slices)

    def mask(self, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Return where a volume of this shape was reviewed, shape (Z, Y, X)."""
        mask = np.full(shape, self.whole, np.bool_)
        for axis, indices in enumerate(self.slices):
            selection = [slice(None)] * 3
            for index in indices:
                selection[axis] = slice(index, index + 1)
                mask[tuple(selection)] = True
        return mask

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        return {"whole": self.whole, "slices": [sorted(indices) for indices in self.slices]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reviewed:
        """Build a region from what `to_json` returned."""
        try:
            z, y, x = (frozenset(int(i) for i in indices) for indices in data["slices"])
            return cls(bool(data["whole"]), (z, y, x))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "a reviewed region with whole and slices of three axes", f"{data}"
            ) from error
