"""From the student's grid back to the voxels of the image, in slabs that bound the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_ka2er.core.resampling import index_map
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.tiles import region_geometry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SLAB_BYTES = 64 * 2**20


def slabs(shape: tuple[int, int, int], n_channels: int) -> Iterator[slice]:
    """Yield ranges of Z so that float32 values of `n_channels` fill about 64 MiB each."""
    rows = max(1, _SLAB_BYTES // (4 * max(n_channels, 1) * shape[1] * shape[2]))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def slab_of(geometry: Geometry, rows: slice) -> Geometry:
    """Return the lattice of a range of Z."""
    return region_geometry(
        geometry, (rows, slice(0, geometry.shape[1]), slice(0, geometry.shape[2]))
    )


def sample(values: NDArray[Any], source: Geometry, target: Geometry) -> NDArray[np.float32]:
    """Return values at the voxel centres of another lattice, trilinear, without smoothing.

    Parameters
    ----------
    values : ndarray, shape (C, *source.shape)
        May be a memory map; only the part that is needed is read.
    source, target : Geometry
        Where the values are, and where they are wanted.  Outside `source` the nearest value holds.

    Returns
    -------
    ndarray of float32, shape (C, *target.shape)
    """
    matrix = index_map(source, target)
    axes = np.abs(matrix[:3, :3]).argmax(axis=1)
    rest = np.abs(matrix[:3, :3])
    rest[range(3), axes] = 0
    # The student's grid keeps the image's axes, so this holds but for a lattice from elsewhere.
    if rest.max() * max(target.shape) < 1e-3 and len(set(axes)) == 3:
        return _separable(values, matrix, axes, target.shape)
    return _general(values, matrix, target.shape)


def share_of(mask: NDArray[np.bool_], source: Geometry, target: Geometry) -> NDArray[np.float32]:
    """Return which share of each voxel of a coarser or equal lattice a mask covers, about.

    Whole voxels are averaged first, as many as fit, then interpolated: a click waits for it, and a
    Gaussian before the interpolation took a third of the click.

    Parameters
    ----------
    mask : ndarray of bool, shape source.shape
    source, target : Geometry
        Axes along axes, in any order.

    Returns
    -------
    ndarray of float32, shape target.shape
        Between 0 and 1; zeros where `mask` is empty.
    """
    if mask.size == 0:
        return np.zeros(target.shape, np.float32)
    # Voxels of the source per voxel of the target, along the source's axes: their order may differ.
    ratio = np.abs(index_map(source, target)[:3, :3]).max(axis=1)
    factors = np.clip(np.rint(ratio), 1, mask.shape).astype(int)
    affine = np.array(source.affine)
    affine[:3, 3] = source.to_world((factors - 1) / 2)
    affine[:3, :3] *= factors
    pooled = _pooled(mask, factors)
    shares: NDArray[np.float32] = sample(pooled[None], Geometry(pooled.shape, affine), target)[0]
    return shares


def _pooled(mask: NDArray[np.bool_], factors: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the mean of blocks; the last one of an axis is filled up with its edge."""
    missing = [(0, -n % f) for n, f in zip(mask.shape, factors, strict=True)]
    if any(after for _, after in missing):
        mask = np.pad(mask, missing, mode="edge")
    # One axis after another, in the smallest integer: a click waits for it.
    total: NDArray[Any] = mask.astype(np.min_scalar_type(int(factors.prod())))
    for axis, factor in enumerate(factors):
        shape = (*total.shape[:axis], -1, factor, *total.shape[axis + 1 :])
        total = _sum_along(total.reshape(shape), axis + 1)
    shares = total.astype(np.float32)
    shares /= factors.prod()
    return shares


def _sum_along(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the sum over a short axis, of the same type."""
    first, *others = np.moveaxis(values, axis, 0)
    total: NDArray[Any] = first.copy()
    for other in others:
        total += other
    return total


def _separable(
    values: NDArray[Any],
    matrix: NDArray[np.float64],
    axes: NDArray[np.intp],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Interpolate one axis after another: some ten times faster than point by point."""
    places = [
        np.clip(matrix[a, b] * np.arange(shape[b]) + matrix[a, 3], 0, values.shape[1 + a] - 1)
        for a, b in enumerate(axes)
    ]
    low = [int(np.floor(p.min())) for p in places]
    high = [int(np.floor(p.max())) + 2 for p in places]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    result = np.asarray(values[(slice(None), *box)], dtype=np.float32)
    growth = [len(p) / n for p, n in zip(places, result.shape[1:], strict=True)]
    for axis in np.argsort(growth):
        result = _along(result, places[axis] - low[axis], 1 + int(axis))
    return np.ascontiguousarray(result.transpose(0, *(1 + np.argsort(axes))))


def _along(
    values: NDArray[np.float32], places: NDArray[np.float64], axis: int
) -> NDArray[np.float32]:
    """Interpolate linearly along one axis."""
    lower = np.floor(places).astype(np.intp)
    upper = np.minimum(lower + 1, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    part = (places - lower).astype(np.float32).reshape(shape)
    result: NDArray[np.float32] = values.take(upper, axis)
    first = values.take(lower, axis)
    result -= first
    result *= part
    result += first
    return result


def _general(
    values: NDArray[Any], matrix: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    channels = [
        ndimage.affine_transform(
            np.asarray(channel, dtype=np.float32),
            matrix[:3, :3],
            matrix[:3, 3],
            output_shape=shape,
            order=1,
            mode="nearest",
        )
        for channel in values
    ]
    return np.stack(channels)
