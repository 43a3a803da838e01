"""Strokes of napari's brush, bucket and polygon, as labels wanted in a box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.boxes import Region, explicit, is_empty, union, within
from napari_ka2er.core.brush import limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.volume import Volume


@dataclass(frozen=True, slots=True)
class Limits:
    """What a brush may change.

    Parameters
    ----------
    intensity_range : tuple of float, optional
        Lowest and highest intensity of the image that may change, both included.
    only_over : int, optional
        The only label (0: background) that may be painted over.
    """

    intensity_range: tuple[float, float] | None = None
    only_over: int | None = None

    def __bool__(self) -> bool:
        return self.intensity_range is not None or self.only_over is not None

    def apply(self, box: Region, wanted: Labels, present: Labels, volume: Volume) -> NDArray[Any]:
        """Return the labels wanted in a box, as they are where they may not change."""
        if not self:
            return wanted
        image = volume.channels[0][box]
        return limit(
            wanted,
            present,
            image=image,
            intensity_range=self.intensity_range,
            only_over=self.only_over,
        )


def painted(atoms: Iterable[Any], mask: Labels) -> tuple[Region, NDArray[Any]] | None:
    """Return the box of a stroke and the labels wanted there, or None if there are none.

    Only the voxels of the stroke itself differ from `mask`: what else changed on the screen while
    the mouse was down stays out.

    Parameters
    ----------
    atoms : iterable
        The value of napari's event `paint`: boxes with masks since 0.8, lists of voxels before.
    mask : ndarray of unsigned int, shape (Z, Y, X)
        The labels that the stroke was made on.
    """
    pieces = [_piece(atom, mask.shape) for atom in atoms]
    boxes = [box for box, _, _ in pieces if not is_empty(box)]
    if not boxes:
        return None
    total = reduce(union, boxes)
    values = [np.max(value, initial=0) for _, _, value in pieces]
    wide = np.promote_types(mask.dtype, np.min_scalar_type(int(max(values))))
    wanted = mask[total].astype(wide)
    for box, covered, value in pieces:
        if not is_empty(box):
            wanted[within(box, total)][covered] = value
    return total, wanted


def _piece(atom: Any, shape: tuple[int, ...]) -> tuple[Region, Any, Any]:
    """Return a box, an index into it, and the value or values that go there."""
    z, y, x = shape
    if hasattr(atom, "slice_key"):
        keys = tuple(k if isinstance(k, slice) else slice(k, k + 1) for k in atom.slice_key)
        return (
            explicit(keys, (z, y, x)),
            atom.mask if atom.mask is not None else ...,
            atom.new_value,
        )
    axes = np.broadcast_arrays(*(np.atleast_1d(axis) for axis in atom[0]))
    if not axes[0].size:
        return (slice(0, 0),) * 3, ..., 0
    starts = [int(axis.min()) for axis in axes]
    stops = [int(axis.max()) + 1 for axis in axes]
    boxes = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
    inner = tuple(axis - start for axis, start in zip(axes, starts, strict=True))
    return explicit(boxes, (z, y, x)), inner, atom[2]
