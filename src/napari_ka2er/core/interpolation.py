"""Fill a label between slices that somebody drew."""

from __future__ import annotations

from dataclasses import dataclass
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

_STACKED = np.zeros((3, 3, 3), np.bool_)  # joins pixels at corners too, and straight across slices
_STACKED[1] = _STACKED[:, 1, 1] = True


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

    Between two key slices the signed distances to both outlines are averaged, piece by piece: of
    pieces that overlap, or else of the nearest.  Pieces are first moved on top of each other where
    that makes them overlap more: the plain average of what has moved is too thin, or a gap.  A
    piece that has no other becomes smaller towards the slice that lacks it.

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
    drawn = key_slices(labels, value, axis)
    if keys is not None:
        drawn = sorted(set(drawn) & set(keys))
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
        if high - low == 1:
            continue
        pairs = _pairs(stack[low] == value, stack[high] == value, in_plane)
        for index in range(low + 1, high):
            shape = _between(pairs, (index - low) / (high - low), stack.shape[1:])
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


@dataclass(frozen=True, slots=True)
class _Pair:
    """Signed distances in mm to an outline and to the one it becomes, moved on top of it.

    They start at the pixel `corner`, and `way` is how far the second one was moved back.
    """

    corner: NDArray[np.int_]
    way: NDArray[np.int_]
    first: NDArray[np.float64]
    last: NDArray[np.float64]

    def pixels(self, share: float) -> NDArray[np.int_]:
        """Return the pixels, shape (n, 2), at `share` of the way from the first to the last."""
        inside = (1 - share) * self.first + share * self.last > 0
        if not inside.any():  # as with a ring and its middle
            inside = (self.first if share < 0.5 else self.last) > 0
        return np.asarray(np.argwhere(inside) + self.corner + np.rint(share * self.way).astype(int))


def _between(pairs: list[_Pair], share: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the outline in a slice of a shape, at `share` of the way from slice to slice."""
    pixels = np.concatenate([pair.pixels(share) for pair in pairs])
    outline = np.zeros(shape, np.bool_)
    outline[tuple(pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)].T)] = True
    return outline


def _pairs(
    first: NDArray[np.bool_], last: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> list[_Pair]:
    """Return the pieces of two slices with what they become."""
    pieces = _pieces(first, last)
    pairs = [_aligned(a, b, spacing_mm) for a, b in pieces if len(a) and len(b)]
    old = [a for a, b in pieces if not len(b)]
    new = [b for a, b in pieces if not len(a)]
    if old and new:
        return pairs + [_aligned(a, b, spacing_mm) for a, b in _nearest(old, new, spacing_mm)]
    fading = [_fading(a, spacing_mm) for a in old]
    coming = [_fading(b, spacing_mm) for b in new]
    return pairs + fading + [_Pair(p.corner, p.way, p.last, p.first) for p in coming]


def _pieces(first: NDArray[np.bool_], last: NDArray[np.bool_]) -> list[list[NDArray[np.int_]]]:
    """Return the pixels of each piece in both slices; those that overlap are one."""
    parts, _ = ndimage.label(np.stack([first, last]), _STACKED)
    pieces = []
    for number, (_, rows, columns) in enumerate(ndimage.find_objects(parts), 1):
        corner = (rows.start, columns.start)
        pieces.append([np.argwhere(part[rows, columns] == number) + corner for part in parts])
    return pieces


def _nearest(
    old: list[NDArray[np.int_]], new: list[NDArray[np.int_]], spacing_mm: tuple[float, ...]
) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Return each piece with the nearest one of the other slice; pieces may share one."""
    middles = [np.array([p.mean(axis=0) for p in pieces]) * spacing_mm for pieces in (old, new)]
    away = np.linalg.norm(middles[0][:, None] - middles[1], axis=-1)
    onward = {(i, int(j)) for i, j in enumerate(away.argmin(axis=1))}
    back = {(int(i), j) for j, i in enumerate(away.argmin(axis=0))}
    return [(old[i], new[j]) for i, j in sorted(onward | back)]


def _aligned(
    first: NDArray[np.int_], last: NDArray[np.int_], spacing_mm: tuple[float, ...]
) -> _Pair:
    """Return the pair of two pieces, which are given as pixels."""
    moved = np.rint(last.mean(axis=0) - first.mean(axis=0)).astype(int)
    # A piece that only grows on one side stays in place, though its middle moves.
    laid = [(*_laid(first, last - way), way) for way in (np.zeros(2, int), moved)]
    one, other, corner, way = max(laid, key=lambda found: np.count_nonzero(found[0] & found[1]))
    return _Pair(corner, way, signed_distance(one, spacing_mm), signed_distance(other, spacing_mm))


def _laid(
    first: NDArray[np.int_], last: NDArray[np.int_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int_]]:
    """Return the masks of two pieces in a box around both, with background on its border."""
    both = np.concatenate([first, last])
    corner = both.min(axis=0) - 1
    masks = np.zeros((2, *(both.max(axis=0) + 2 - corner)), np.bool_)
    for mask, pixels in zip(masks, (first, last), strict=True):
        mask[tuple((pixels - corner).T)] = True
    return masks[0], masks[1], corner


def _fading(piece: NDArray[np.int_], spacing_mm: tuple[float, ...]) -> _Pair:
    """Return the pair of a piece and nothing: its rim goes first and its middle last."""
    mask, _, corner = _laid(piece, piece)
    distance = signed_distance(mask, spacing_mm)
    return _Pair(corner, np.zeros(2, int), distance, distance - distance.max())


def signed_distance(mask: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the distance in mm to the border between inside (positive) and outside (negative).

    The border lies half way between voxels, so that a voxel beside it is half a voxel away.
    """
    half = 0.5 * min(spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    return np.asarray(np.where(mask, inside - half, half - outside))
