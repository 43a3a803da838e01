"""Where to cut a label in two when nobody has said where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_ka2er.core.edits import box_of
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_ka2er.core.editing import Index, Spacing
    from napari_ka2er.core.edits import Labels

_FULL = np.ones((3, 3, 3), np.bool_)  # voxels that share a corner are one island
_N_DEPTHS = 24  # of a label's depth; each costs one look at its box


def two_parts(labels: Labels, value: int, spacing_mm: Spacing) -> tuple[Index, Index]:
    """Return a voxel in the larger and one in the smaller of a label's two largest parts.

    Parts are islands; a label of one island is peeled, layer by layer, and the peel that leaves the
    largest second part decides.  `editing.split_island` takes both voxels.

    Raises
    ------
    UserError
        If the label has no voxels, or falls into no parts.
    """
    box = box_of(labels, value)
    mask = labels[box] == value
    if not mask.any():
        raise UserError(f"a label with voxels, label {value}", "none", "paint or segment it first")
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    found = _islands_by_size(mask) or _best_peel(depth)
    if found is None:
        remedy = "say with two points what to keep and what to split off"
        raise UserError(f"two parts of label {value}, or a neck between them", "neither", remedy)
    parts, first, second = found
    voxels = [_deepest(depth, parts == number, box) for number in (first, second)]
    return voxels[0], voxels[1]


Parts = tuple["NDArray[np.int32]", int, int]  # numbered parts, the two largest of them


def _islands_by_size(mask: NDArray[np.bool_]) -> Parts | None:
    """Return the islands of a mask and the two largest, or None if there is only one."""
    parts, count = ndimage.label(mask, _FULL)
    if count < 2:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    return parts, int(order[0]), int(order[1])


def _best_peel(depth: NDArray[Any]) -> Parts | None:
    """Return the parts under the peel that leaves the largest second part."""
    best: Parts | None = None
    best_size = 0
    for mask in _peels(depth):
        found = _islands_by_size(mask)
        size = int(np.count_nonzero(found[0] == found[2])) if found else 0
        if size > best_size:
            best, best_size = found, size
    return best


def _peels(depth: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
    """Yield what is deeper than each of a few depths."""
    levels = np.unique(depth[depth > 0])[:-1]
    for index in np.unique(
        np.linspace(0, levels.size - 1, min(_N_DEPTHS, levels.size)).astype(int)
    ):
        yield depth > levels[index]


def _deepest(depth: NDArray[Any], part: NDArray[np.bool_], box: tuple[slice, ...]) -> Index:
    """Return the voxel of a part that is farthest from the border, in the map's indices."""
    at = np.unravel_index(np.where(part, depth, -1).argmax(), depth.shape)
    z, y, x = (int(a) + b.start for a, b in zip(at, box, strict=True))
    return z, y, x
