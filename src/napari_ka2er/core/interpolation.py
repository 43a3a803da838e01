"""Fill a label between slices that somebody drew."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_ka2er.core.edits import box_of
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.editing import Change, Spacing
    from napari_ka2er.core.edits import Labels


def key_slices(labels: Labels, value: int, axis: int) -> list[int]:
    """Return the slices across an axis that have voxels of a label, ascending."""
    others = tuple(a for a in range(3) if a != axis)
    return [int(i) for i in np.flatnonzero((labels == value).any(axis=others))]


def fill_between_slices(
    labels: Labels,
    value: int,
    axis: int,
    spacing_mm: Spacing,
    keys: Sequence[int] | None = None,
) -> Change:
    """Return the labels with a label's gaps between key slices filled by shape interpolation.

    Between two key slices the signed distances to both outlines are averaged.  Outlines that do not
    overlap are first moved on top of each other: their plain average would leave a gap.

    Parameters
    ----------
    labels, value : ndarray of unsigned int, shape (Z, Y, X), and int
        The label map and the label.
    axis : int
        Slices are taken across this axis: 0, 1 or 2.
    spacing_mm : tuple of float
        Distance between voxel centres along (Z, Y, X).
    keys : sequence of int, optional
        The slices that were drawn, by default all that have the label; the label is replaced in
        those between them.

    Raises
    ------
    UserError
        If fewer than two key slices have the label.

    References
    ----------
    Raya and Udupa 1990, doi:10.1109/42.52980.
    """
    drawn = sorted(set(key_slices(labels, value, axis)) & set(keys or range(labels.shape[axis])))
    if len(drawn) < 2:
        raise UserError(
            "two slices with the label", f"{len(drawn)}", "draw it on one more slice of this axis"
        )
    box, part = _box_of(labels, value, axis, drawn)
    return box, _filled(part, value, axis, [i - drawn[0] for i in drawn], spacing_mm)


def _filled(part: Labels, value: int, axis: int, drawn: list[int], spacing_mm: Spacing) -> Labels:
    """Return a copy of the labels, filled between each drawn slice and the next."""
    in_plane = tuple(s for a, s in enumerate(spacing_mm) if a != axis)
    wanted = part.copy()
    stack = np.moveaxis(wanted, axis, 0)  # a view: filling it fills `wanted`
    for low, high in pairwise(drawn):
        first, last = stack[low] == value, stack[high] == value
        for index in range(low + 1, high):
            shape = _between(first, last, (index - low) / (high - low), in_plane)
            stack[index][stack[index] == value] = 0
            stack[index][shape & (stack[index] == 0)] = value
    return wanted


def _box_of(labels: Labels, value: int, axis: int, drawn: list[int]) -> Change:
    """Return the box from the first to the last key slice, around all outlines."""
    selection = [slice(0, n) for n in labels.shape]
    selection[axis] = slice(drawn[0], drawn[-1] + 1)
    inner = list(box_of(labels[tuple(selection)], value))
    inner[axis] = selection[axis]
    region: Region = (inner[0], inner[1], inner[2])
    return region, labels[region]


def _between(
    first: NDArray[np.bool_], last: NDArray[np.bool_], share: float, spacing_mm: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Return the outline at `share` of the way from the first slice to the last."""
    way = np.zeros(2)
    if not (first & last).any():
        way = np.subtract(ndimage.center_of_mass(last), ndimage.center_of_mass(first))
    pad = int(np.ceil(np.abs(way).max())) + 1  # so that an outline moves in from background
    average = np.zeros(np.add(first.shape, 2 * pad))
    for mask, weight, step in ((first, 1 - share, share * way), (last, share, (share - 1) * way)):
        distance = signed_distance(np.pad(mask, pad), spacing_mm)
        average += weight * ndimage.shift(distance, step, order=1, mode="nearest")
    return np.asarray(average[pad:-pad, pad:-pad] > 0)


def signed_distance(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the distance in mm to the border between inside (positive) and outside (negative).

    The border lies half way between voxels, so that a voxel beside it is half a voxel away.
    """
    half = 0.5 * min(spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(np.where(mask, inside - half, half - outside))
