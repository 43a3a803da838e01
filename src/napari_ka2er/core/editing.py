"""Tools that repair a label: each returns a box of the map and the labels wanted there.

No function changes the map it is given, or copies more of it than a box around the label.  Voxels
that a tool adds are taken from the background only: other labels stay as they are.  Distances are
in mm and spacings the distance between voxel centres along (Z, Y, X).  The axes are taken to be at
right angles: on a sheared lattice (a tilted gantry) distances across its axes are not exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_ka2er.core.boxes import Region
from napari_ka2er.core.edits import Labels, box_of
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Spacing = tuple[float, float, float]
Index = tuple[int, int, int]
Change = tuple[Region, Labels]  # the labels wanted in a box
_SLAB_VOXELS = 2**20  # a distance transform needs about 50 bytes for each
_FULL = np.ones((3, 3, 3), np.bool_)  # voxels that share a corner are one island


def keep_largest_island(labels: Labels, value: int) -> Change:
    """Remove all islands of a label but the one with the most voxels.

    Raises
    ------
    UserError
        If the label has no voxels, here and in every other tool.
    """
    box, part, islands, sizes = _islands(labels, value)
    return box, _without(part, (islands > 0) & (islands != sizes.argmax()))


def remove_small_islands(
    labels: Labels, value: int, minimum_mm3: float, spacing_mm: Spacing
) -> Change:
    """Remove the islands of a label that are smaller than a volume."""
    box, part, islands, sizes = _islands(labels, value)
    is_small = sizes * float(np.prod(spacing_mm)) < minimum_mm3
    is_small[0] = False
    return box, _without(part, is_small[islands])


def split_island(
    labels: Labels, keep: Index, split: Index, new_value: int, spacing_mm: Spacing
) -> Change:
    """Give another label to an island, or to the part of one that lies on the other side of a neck.

    Parameters
    ----------
    labels : ndarray of unsigned int, shape (Z, Y, X)
        The label map.
    keep, split : tuple of int
        Two voxels of one label.  If they lie in different islands, the island of `split` gets the
        new label; otherwise the island is cut where it is thinnest between them (watershed of the
        distance to its border).
    new_value : int
        The new label.
    spacing_mm : tuple of float
        Distance between voxel centres along (Z, Y, X).

    Raises
    ------
    UserError
        If the voxels are background, the same, or of different labels.
    """
    value = int(labels[split])
    if not value or labels[keep] != value or keep == split:
        raise UserError("two voxels of one label", f"{labels[keep]} at {keep}, {value} at {split}")
    box, part, islands, _ = _islands(labels, value)
    here, there = (tuple(np.subtract(i, [b.start for b in box])) for i in (keep, split))
    region = islands == islands[there]
    if islands[here] == islands[there]:
        depth = ndimage.distance_transform_edt(np.pad(region, 1), sampling=spacing_mm)
        markers = np.zeros(region.shape, np.int8)
        markers[here], markers[there] = 1, 2
        # Imported here: it brings scipy.spatial, a third of a second at the widget's first opening.
        from skimage.segmentation import watershed

        basins = watershed(-depth[1:-1, 1:-1, 1:-1], markers, connectivity=_FULL, mask=region)
        region = basins == 2
    wanted = part.astype(np.promote_types(part.dtype, np.min_scalar_type(new_value)))
    wanted[region] = new_value
    return box, wanted


def fill_holes(labels: Labels, value: int, axis: int | None = None) -> Change:
    """Fill background that a label encloses, in 3D or in every slice across an axis."""
    box, part = _crop(labels, value)
    neighbours = ndimage.generate_binary_structure(3, 1)
    if axis is not None:  # a slice is not open to what lies before and behind it
        np.moveaxis(neighbours, axis, 0)[[0, 2]] = False
    filled = ndimage.binary_fill_holes(part == value, neighbours)
    return box, _with(part, np.asarray(filled), value)


def smooth(labels: Labels, value: int, sigma_mm: float, spacing_mm: Spacing) -> Change:
    """Smooth the surface of a label with a Gaussian of a width in mm.

    A voxel belongs to the label afterwards if at least half of its neighbourhood, weighted by the
    Gaussian, did before.  Parts thinner than about `sigma_mm` vanish.  Beyond the border of the
    volume the label is taken to go on as it is there.
    """
    sigma = [sigma_mm / s for s in spacing_mm]
    box, part = _crop(labels, value, [int(np.ceil(3 * s)) + 1 for s in sigma])
    mask = part == value
    share = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3.0)
    inside = share >= 0.5
    return box, _with(_without(part, mask & ~inside), inside, value)


def grow(labels: Labels, value: int, distance_mm: float, spacing_mm: Spacing) -> Change:
    """Add the background within a distance of a label, measured between voxel centres."""
    margin = [int(np.ceil(distance_mm / s)) for s in spacing_mm]
    box, part = _crop(labels, value, margin)
    return box, _with(part, _near(part, value, distance_mm, spacing_mm), value)


def shrink(labels: Labels, value: int, distance_mm: float, spacing_mm: Spacing) -> Change:
    """Remove the voxels of a label within a distance of anything else.

    The border of the volume counts as nothing: an organ that is cut off there is not shrunk there.
    """
    box, part = _crop(labels, value, (1, 1, 1))
    return box, _without(part, _near(part, value, distance_mm, spacing_mm, others=True))


def copy_slice(labels: Labels, value: int, axis: int, source: int, target: int) -> Change:
    """Give the slice `target` across an axis a label's voxels of the slice `source`, nothing else.

    Raises
    ------
    UserError
        If the slice has no such voxel, or one of the slices does not exist.
    """
    n = labels.shape[axis]
    if not (0 <= source < n and 0 <= target < n):
        raise UserError(f"slices from 0 to {n - 1}", f"{source} and {target}")
    outline = slice_of(labels, axis, source) == value
    if not outline.any():
        raise UserError(f"a slice with label {value}", f"slice {source}, which has none of it")
    part = slice_of(labels, axis, target)
    box = [slice(0, n) for n in labels.shape]
    box[axis] = slice(target, target + 1)
    return (box[0], box[1], box[2]), _with(_without(part, part == value), outline, value)


def merge(labels: Labels, value: int, other: int) -> Change:
    """Give a label all voxels of another one."""
    box, part = _crop(labels, other)
    wanted = part.astype(np.promote_types(part.dtype, np.min_scalar_type(value)))
    wanted[part == other] = value
    return box, wanted


def slice_of(labels: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Return a slice across an axis that keeps its place as an axis of length 1."""
    selection = [slice(None)] * 3
    selection[axis] = slice(index, index + 1)
    return labels[tuple(selection)]


def _crop(labels: Labels, value: int, margin: tuple[int, ...] | list[int] = (0, 0, 0)) -> Change:
    """Return the box around a label, widened by a margin within the map, and a view of it."""
    tight = box_of(labels, value)
    if tight[0].stop == 0:
        raise UserError(f"a label with voxels, label {value}", "none", "paint or segment it first")
    z, y, x = (
        slice(max(0, s.start - m), min(n, s.stop + m))
        for s, m, n in zip(tight, margin, labels.shape, strict=True)
    )
    return (z, y, x), labels[z, y, x]


def _islands(
    labels: Labels, value: int
) -> tuple[Region, Labels, NDArray[np.int32], NDArray[np.int64]]:
    """Return a label's box, the labels in it, its islands numbered from 1, and their sizes."""
    box, part = _crop(labels, value)
    islands, _ = ndimage.label(part == value, _FULL)
    sizes = np.bincount(islands.ravel())
    sizes[0] = 0
    return box, part, islands, sizes


def _near(
    part: Labels, value: int, distance_mm: float, spacing_mm: Spacing, *, others: bool = False
) -> NDArray[np.bool_]:
    """Return what is within a distance of a label, or what of it is so of all `others`.

    Slab by slab, each with as much around it as the distance reaches: farther voxels do not count.
    """
    halo = min(int(np.ceil(distance_mm / spacing_mm[0])), len(part))
    rows = max(1, 2 * halo, _SLAB_VOXELS // max(1, part[0].size))
    near = np.zeros(part.shape, np.bool_)
    for start in range(0, len(part), rows):
        low = max(0, start - halo)
        away = (part[low : start + rows + halo] != value) != others
        if away.all():  # nothing to measure to, for which there is no distance
            continue
        distance = ndimage.distance_transform_edt(away, sampling=spacing_mm)[start - low :][:rows]
        near[start : start + rows] = distance <= distance_mm * (1 + 1e-9)
    return near & (part == value) if others else near


def _with(part: Labels, mask: NDArray[np.bool_], value: int) -> Labels:
    """Return the labels with `value` in the background under `mask`."""
    return np.where(mask & (part == 0), value, part).astype(part.dtype)


def _without(part: Labels, mask: NDArray[np.bool_]) -> Labels:
    """Return the labels with background under `mask`."""
    return np.where(mask, 0, part).astype(part.dtype)
