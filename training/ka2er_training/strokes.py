"""Strokes of the brush that repair one slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.graph import MCP_Geometric

from ka2er_training.simulated_users import depth_of
from napari_ka2er.core.brush import Index, stroke

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.volume import Geometry

    Mask = NDArray[np.bool_]


def stroke_through(
    piece: Mask, lattice: Geometry, axis: int, index: int
) -> tuple[Region, Mask, float]:
    """Return a stroke along the middle of a connected piece of a slice, as wide as it fits.

    Parameters
    ----------
    piece : ndarray of bool, shape (rows, columns)
        What to cover, not empty; the slice's axes in the volume's order.
    lattice : Geometry
        The volume.
    axis, index : int
        Where the slice lies.

    Returns
    -------
    region : tuple of slice
        The box around the stroke.
    covered : ndarray of bool
        Where the brush went, in the box; nowhere outside the piece.
    length_mm : float
        The way it went.
    """
    spacing_mm = [s for a, s in enumerate(lattice.spacing) if a != axis]
    depth_mm = depth_of(piece, tuple(spacing_mm))
    path = _middle(depth_mm, spacing_mm)
    radius_mm = float(np.median([depth_mm[p] for p in path])) - 0.5 * min(spacing_mm)
    voxels = [_in_volume(point, axis, index) for point in path]
    region, covered = stroke(voxels, max(radius_mm, 0.0), lattice, axis)
    inside = np.zeros(lattice.shape, np.bool_)[region]
    plane = tuple(part for a, part in enumerate(region) if a != axis)
    inside |= np.expand_dims(piece[plane], axis)
    steps = np.diff(np.array(path), axis=0) * spacing_mm
    return region, covered & inside, float(np.linalg.norm(steps, axis=1).sum())


def _middle(depth_mm: NDArray[np.float64], spacing_mm: list[float]) -> list[tuple[int, int]]:
    """Return the way from end to end of a piece that keeps to its middle.

    Ends are where it is still at least half as thick as in the thickest place.
    """
    core = depth_mm >= 0.5 * depth_mm.max()
    cost = np.where(depth_mm > 0, depth_mm.max() / np.maximum(depth_mm, 1e-6), np.inf)
    deepest = np.unravel_index(depth_mm.argmax(), depth_mm.shape)
    start = _farthest(cost, core, (int(deepest[0]), int(deepest[1])), spacing_mm)
    ways = MCP_Geometric(cost, sampling=spacing_mm)
    away, _ = ways.find_costs([start])
    end = _last(away, core)
    return [(int(row), int(column)) for row, column in ways.traceback(end)]


def _farthest(
    cost: NDArray[np.float64], core: Mask, start: tuple[int, int], spacing_mm: list[float]
) -> tuple[int, int]:
    away, _ = MCP_Geometric(cost, sampling=spacing_mm).find_costs([start])
    return _last(away, core)


def _last(away: NDArray[np.float64], core: Mask) -> tuple[int, int]:
    """Return where in the core the way is longest among the places that can be reached."""
    reached = np.where(core & np.isfinite(away), away, -1.0)
    row, column = np.unravel_index(reached.argmax(), reached.shape)
    return int(row), int(column)


def _in_volume(point: tuple[int, int], axis: int, index: int) -> Index:
    z, y, x = np.insert(np.array(point), axis, index).tolist()
    return z, y, x
