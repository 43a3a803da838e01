"""Boxes of voxels: where to look for a prompt, and where something changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.model.tiles import STEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.tiles import Region

    Mask = NDArray[np.bool_]

ROI_VOXELS = 96
MAX_ROI_VOXELS = 160
_GROWTH = 1.5
_MARGIN = 16


def roi_around(low: NDArray[np.float64], high: NDArray[np.float64], shape: Sequence[int]) -> Region:
    """Return the region to decode for a prompt from `low` to `high`.

    Parameters
    ----------
    low, high : ndarray, shape (3,)
        Grid indices.
    shape : sequence of int
        Size (Z, Y, X) of the grid, multiples of 8.

    Returns
    -------
    tuple of slice
        96 voxels, or as many as the prompt needs but at most 160, along each axis, beginning at
        multiples of 8 inside the grid.
    """
    wanted = np.ceil((high - low + _MARGIN) / STEP) * STEP
    size = np.clip(wanted, ROI_VOXELS, MAX_ROI_VOXELS).astype(int)
    return _placed((low + high) / 2, size, shape)


def enlarged(roi: Region, shape: Sequence[int]) -> Region:
    """Return a region half as large again with the same middle, at most 160 voxels; see above."""
    size = np.array([s.stop - s.start for s in roi])
    size = np.minimum(np.ceil(size * _GROWTH / STEP) * STEP, MAX_ROI_VOXELS).astype(int)
    middle = np.array([(s.start + s.stop - 1) / 2 for s in roi])
    return _placed(middle, size, shape)


def _placed(middle: NDArray[np.float64], size: NDArray[np.int_], shape: Sequence[int]) -> Region:
    size = np.minimum(size, shape)
    start = np.round((middle + 0.5 - size / 2) / STEP) * STEP
    start = np.clip(start, 0, np.array(shape) - size).astype(int)
    z, y, x = (slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))
    return z, y, x


def is_cut(changed: Mask, roi: Region, shape: Sequence[int]) -> bool:
    """Return whether a change reaches a face of the region that is not the grid's own end."""
    for axis, (part, size) in enumerate(zip(roi, shape, strict=True)):
        first, last = changed.take(0, axis), changed.take(-1, axis)
        if (part.start > 0 and first.any()) or (part.stop < size and last.any()):
            return True
    return False


def box_of(mask: Mask, margin: int = 0) -> Region:
    """Return the smallest box around the true voxels and a margin; empty if there are none."""
    z = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(z):
        return slice(0, 0), slice(0, 0), slice(0, 0)
    flat = np.any(mask[z[0] : z[-1] + 1], axis=0)  # so the mask is read once, not three times
    hits = z, np.flatnonzero(np.any(flat, axis=1)), np.flatnonzero(np.any(flat, axis=0))
    found = [
        slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, size))
        for hit, size in zip(hits, mask.shape, strict=True)
    ]
    return found[0], found[1], found[2]


def image_box(lattice: Geometry, image: Geometry) -> Region:
    """Return the image's voxels whose centres lie in a lattice's voxels; empty where none do."""
    if 0 in lattice.shape:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    ends = np.array([[-0.5] * 3, np.array(lattice.shape) - 0.5])
    index = image.to_index(lattice.to_world(np.array(np.meshgrid(*ends.T)).reshape(3, -1).T))
    low = np.clip(np.ceil(index.min(axis=0) - 1e-6), 0, image.shape).astype(int)
    high = np.clip(np.floor(index.max(axis=0) + 1e-6) + 1, low, image.shape).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x
