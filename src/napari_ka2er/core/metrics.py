"""Overlap and volume of masks, with NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry


def dice(gt: NDArray[Any], pred: NDArray[Any]) -> float:
    """Return twice the shared voxels over the voxels of both masks.

    Parameters
    ----------
    gt, pred : ndarray of bool or int, shape (Z, Y, X)
        Non-zero inside the object.

    Returns
    -------
    float
        In [0, 1]; 0 if one mask is empty, NaN if both are: then there is nothing to agree on, and
        counting the case as 1 would reward a task for volumes that do not show it.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if gt.shape != pred.shape:
        raise ValueError(f"masks must have one shape, got {gt.shape} and {pred.shape}")
    gt, pred = gt.astype(bool, copy=False), pred.astype(bool, copy=False)
    n_both = int(np.count_nonzero(gt & pred))
    n_sum = int(np.count_nonzero(gt)) + int(np.count_nonzero(pred))
    return 2.0 * n_both / n_sum if n_sum else float("nan")


def voxel_ml(geometry: Geometry) -> float:
    """Return the volume of one voxel in millilitres, also for sheared lattices."""
    return float(abs(np.linalg.det(geometry.affine[:3, :3]))) / 1000.0


def volumes_ml(labels: NDArray[Any], geometry: Geometry, values: Iterable[int]) -> dict[int, float]:
    """Return the volume of each label in millilitres; 0 where a value does not occur.

    Parameters
    ----------
    labels : ndarray of int, shape (Z, Y, X)
        Label map.
    geometry : Geometry
        Its lattice.
    values : iterable of int
        The labels asked for.
    """
    return {value: int(np.count_nonzero(labels == value)) * voxel_ml(geometry) for value in values}


def joint_box(gt: NDArray[Any], pred: NDArray[Any]) -> tuple[slice, ...] | None:
    """Return the smallest box around everything non-zero in either mask; None if both are empty."""
    either = (gt != 0) | (pred != 0)
    box = []
    for axis in range(either.ndim):
        others = tuple(a for a in range(either.ndim) if a != axis)
        hit = np.flatnonzero(either.any(axis=others))
        if hit.size == 0:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)
