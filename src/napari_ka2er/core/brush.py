"""What a brush covers, and what it may change."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.boxes import Region, is_empty, union, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.volume import Geometry

Index = tuple[int, int, int]


def stroke(
    path: Sequence[Index], radius_mm: float, lattice: Geometry, axis: int | None = None
) -> tuple[Region, NDArray[np.bool_]]:
    """Return the voxels whose centres a ball covers on its way along a path.

    Parameters
    ----------
    path : sequence of tuple of int
        Voxels (z, y, x), at least one; the ball moves straight from each to the next.
    radius_mm : float
        The ball's radius; the voxels of the path are covered even if it is 0.
    lattice : Geometry
        The volume; only its shape, and the way from voxel to voxel, count.
    axis : int, optional
        Use a disc in the slices across this axis instead of a ball; the path lies in one slice.

    Returns
    -------
    region : tuple of slice
        The box around the stroke, cut at the volume's borders; empty if all of it is outside.
    covered : ndarray of bool
        Where the brush went, in the box.
    """
    segments = list(pairwise(path)) or [(path[0], path[0])]
    boxes = [_box_around(np.array(ends), radius_mm, lattice, axis) for ends in segments]
    region = boxes[0]
    for box in boxes[1:]:
        region = union(region, box)
    covered = np.zeros([part.stop - part.start for part in region], np.bool_)
    for ends, box in zip(segments, boxes, strict=True):
        if is_empty(box):  # outside the volume
            continue
        distance_mm = _distance_to_segment(box, np.array(ends), lattice)
        covered[within(box, region)] |= distance_mm <= radius_mm * (1 + 1e-9)
    return region, covered


def limit(
    proposed: NDArray[Any],
    present: Labels,
    *,
    image: NDArray[Any] | None = None,
    intensity_range: tuple[float, float] | None = None,
    only_over: int | None = None,
) -> NDArray[Any]:
    """Return a brush stroke that changes only voxels in an intensity range, or of one label.

    Parameters
    ----------
    proposed, present : ndarray of int
        The labels in a box as the brush would leave them, and as they are.
    image : ndarray, optional
        The intensities in the same box; needed with `intensity_range`.
    intensity_range : tuple of float, optional
        Lowest and highest intensity that may change, both included.
    only_over : int, optional
        The only label (0: background) whose voxels may change.
    """
    may_change = np.ones(present.shape, np.bool_)
    if intensity_range is not None:
        if image is None:
            raise TypeError("an intensity range needs the image")
        may_change &= (image >= intensity_range[0]) & (image <= intensity_range[1])
    if only_over is not None:
        may_change &= present == only_over
    return np.where(may_change, proposed, present)


def _box_around(
    ends: NDArray[np.int_], radius_mm: float, lattice: Geometry, axis: int | None
) -> Region:
    # How far a ball reaches along an index: of a sheared lattice farther than radius / spacing.
    per_mm = np.linalg.norm(np.linalg.inv(lattice.affine[:3, :3]), axis=1)
    reach = np.floor(radius_mm * per_mm + 1e-9).astype(int)
    if axis is not None:
        reach[axis] = 0
    low = np.clip(ends.min(axis=0) - reach, 0, lattice.shape)
    high = np.clip(ends.max(axis=0) + reach + 1, low, lattice.shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _distance_to_segment(
    box: Region, ends: NDArray[np.int_], lattice: Geometry
) -> NDArray[np.float64]:
    """Return the distance in mm of the voxels in a box to the line between two voxels."""
    steps = lattice.affine[:3, :3].T
    # From the start on: far from the origin, less of a position's digits are left for its fraction.
    voxels = (np.moveaxis(np.asarray(np.mgrid[box]), 0, -1) - ends[0]) @ steps
    way = (ends[1] - ends[0]) @ steps
    length = float(way @ way)
    share = np.clip(voxels @ way / length, 0, 1) if length else 0.0
    return np.asarray(np.linalg.norm(voxels - np.multiply.outer(share, way), axis=-1))
