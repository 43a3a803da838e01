"""Moving values between lattices, and the grid on which the student sees a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Triple = tuple[float, float, float]


def grid_of(geometry: Geometry, spacing_mm: Triple, multiple: int = 8) -> Geometry:
    """Return the student's grid for a volume.

    The grid keeps the volume's own axes, permuted and flipped to the nearest RAS+ order, so that
    the student sees a head the same way up however the file was stored, without oblique resampling.

    Parameters
    ----------
    geometry : Geometry
        The volume's lattice.
    spacing_mm : tuple of float
        Spacing (Z, Y, X) of the grid.
    multiple : int
        The size along each axis is padded up to a multiple of this.

    Returns
    -------
    Geometry
        The padding lies evenly around the volume.
    """
    order, flips = _canonical_axes(geometry.affine)
    directions = geometry.affine[:3, order] * flips
    directions = directions / np.linalg.norm(directions, axis=0)
    extent = np.array(geometry.extent_mm)[order]
    spacing = np.array(spacing_mm, dtype=np.float64)
    size = np.maximum(np.ceil(extent / spacing - 1e-6), 1)
    size = (np.ceil(size / multiple) * multiple).astype(int)
    centre = geometry.to_world((np.array(geometry.shape) - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((size - 1) / 2)
    return Geometry((int(size[0]), int(size[1]), int(size[2])), affine)


def _canonical_axes(affine: NDArray[np.float64]) -> tuple[list[int], NDArray[np.float64]]:
    """Return which volume axis lies nearest to world Z, Y, X, and its sign there."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order: list[int] = [0, 0, 0]
    left = np.abs(directions)
    for _ in range(3):  # strongest agreement first, so that 45° rotations still give a permutation
        world, axis = np.unravel_index(np.argmax(left), left.shape)
        order[int(world)] = int(axis)
        left[world, :] = left[:, axis] = -1
    flips = np.array([1.0 if directions[w, order[w]] >= 0 else -1.0 for w in range(3)])
    return order, flips


def index_map(source: Geometry, target: Geometry) -> NDArray[np.float64]:
    """Return the (4, 4) matrix from indices of `target` to indices of `source`."""
    matrix: NDArray[np.float64] = np.linalg.inv(source.affine) @ target.affine
    return matrix


def resample(
    data: NDArray[Any], source: Geometry, target: Geometry, *, order: int = 1, cval: float = 0.0
) -> NDArray[Any]:
    """Return the values of `data` at the voxel centres of another lattice.

    Parameters
    ----------
    data : ndarray, shape (Z, Y, X)
        Values on `source`.
    source, target : Geometry
        Where the values are, and where they are wanted.
    order : int
        0 nearest (labels), 1 linear.  With 1, data are smoothed first along axes that become
        coarser, as otherwise fine structures would alias.
    cval : float
        Value outside `source`.

    Returns
    -------
    ndarray, shape `target.shape`
        float32 for order 1, the type of `data` for order 0.
    """
    matrix = index_map(source, target)
    values = data if order == 0 else _smoothed(data, matrix)
    values = values if order == 0 else np.ascontiguousarray(values, dtype=np.float32)
    result: NDArray[Any] = ndimage.affine_transform(
        values,
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=target.shape,
        order=order,
        mode="grid-constant",  # "constant" would drop labels in the outer half of border voxels
        cval=cval,
        prefilter=False,
    )
    return result


def _smoothed(data: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[Any]:
    """Blur axes on which one target step spans several source voxels, by a Gaussian that wide."""
    step = np.abs(matrix[:3, :3]).max(axis=1)
    sigma = np.where(step > 1.05, np.sqrt(np.maximum(step**2 - 1, 0)) / 2.355, 0)
    if not sigma.any():
        return data
    smooth: NDArray[Any] = ndimage.gaussian_filter(
        data.astype(np.float32, copy=False), sigma, mode="nearest", truncate=3
    )
    return smooth


def resample_one_hot(
    labels: NDArray[Any], source: Geometry, target: Geometry, values: Sequence[int]
) -> NDArray[np.float16]:
    """Return how much of each label lies at the voxels of another lattice.

    Parameters
    ----------
    labels : ndarray of int, shape (Z, Y, X)
        A label map on `source`.
    source, target : Geometry
        Where the labels are, and where they are wanted.
    values : sequence of int
        The labels' values.

    Returns
    -------
    ndarray of float16, shape (len(values), Z, Y, X)
        In [0, 1]; soft at borders, so that a coarse grid still tells where a border runs.
    """
    parts = [
        resample((labels == value).astype(np.float32), source, target, order=1) for value in values
    ]
    soft: NDArray[np.float16] = np.clip(np.stack(parts), 0, 1).astype(np.float16)
    return soft


def normalise(data: NDArray[Any]) -> NDArray[np.float32]:
    """Return the intensities on a common scale: mean 0, deviation 1, percentiles 0.5 and 99.5 cut.

    The statistics leave out the most frequent extreme value (padding and air), which would
    otherwise make them depend on how tightly a volume was cropped.

    Parameters
    ----------
    data : ndarray, shape (Z, Y, X)
        Raw intensities, finite.

    Returns
    -------
    ndarray of float32
        All zeros if the volume is constant.
    """
    # In place where it can be: a CT of 512x512x400 is 400 MiB as float32, and every copy counts.
    values: NDArray[np.float32] = data.astype(np.float32)
    body = values[values > values.min()]
    body = body if body.size else values.flatten()
    low, high = (float(v) for v in np.percentile(body, (0.5, 99.5)))  # floats keep float32
    np.clip(body, low, high, out=body)
    mean, deviation = float(body.mean()), float(body.std())
    del body
    if deviation < 1e-6:
        return np.zeros_like(values)
    np.clip(values, low, high, out=values)
    values -= mean
    values /= deviation
    return values


def student_image(data: NDArray[Any], source: Geometry, grid: Geometry) -> NDArray[np.float32]:
    """Return a volume as the student sees it: normalised over the volume, then put on the grid.

    Parameters
    ----------
    data : ndarray, shape (Z, Y, X)
        Raw intensities on `source`.
    source, grid : Geometry
        The volume's lattice and the student's.

    Returns
    -------
    ndarray of float32, shape `grid.shape`
        The volume's border values continue into the grid's padding.
    """
    matrix = index_map(source, grid)
    result: NDArray[np.float32] = ndimage.affine_transform(
        _smoothed(normalise(data), matrix),
        matrix[:3, :3],
        matrix[:3, 3],
        output_shape=grid.shape,
        order=1,
        mode="nearest",
        prefilter=False,
    )
    return result
