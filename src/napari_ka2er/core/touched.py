"""What prompts touch on a lattice, and what a correction may therefore change."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.measure import points_in_poly

from napari_ka2er.core.boxes import is_empty
from napari_ka2er.core.prompts import Box, Lasso, Point, Prompt, Scribble, positions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.volume import Geometry

_TOUCHING = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class Touched:
    """Where prompts lie on a lattice, bool arrays in (Z, Y, X).

    Parameters
    ----------
    positive, negative : ndarray of bool
        Voxels the user declared to be in the object, and out of it; never both, the newest counts.
    region : ndarray of bool
        Voxels inside boxes drawn around the object: anything there may change.
    """

    positive: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    region: NDArray[np.bool_]


def touched_by(prompts: Sequence[Prompt], grid: Geometry) -> Touched:
    """Return what `prompts`, oldest first, declare on a lattice; nothing without prompts."""
    positive, negative, region = (np.zeros(grid.shape, dtype=bool) for _ in range(3))
    for prompt in prompts:
        if isinstance(prompt, Box):  # it may be as large as the volume: its voxels are not listed
            extent = extent_of(prompt, grid)
            if prompt.positive:
                region[extent] = True
                continue
            positive[extent], negative[extent] = False, True
            continue
        voxels = tuple(voxels_of(prompt, grid).T)
        positive[voxels] = prompt.positive
        negative[voxels] = not prompt.positive
    return Touched(positive, negative, region)


def voxels_of(prompt: Prompt, grid: Geometry) -> NDArray[np.intp]:
    """Return the voxels a prompt goes through or encloses.

    Parameters
    ----------
    prompt : Prompt
        In world coordinates.  A box lies along the lattice's axes between its two corners.
    grid : Geometry
        The lattice.

    Returns
    -------
    ndarray of int, shape (N, 3)
        Distinct indices (z, y, x) in the lattice; N is 0 for a prompt outside of it.  A position
        on the lattice's far border counts as in its last voxel.
    """
    match prompt:
        case Point():
            voxels = grid.to_index([prompt.position_mm])
        case Box():
            return _listed(extent_of(prompt, grid))
        case Scribble():
            voxels = _stroke(grid.to_index(prompt.path_mm))
        case Lasso():
            corners = grid.to_index(prompt.path_mm)
            outline = _stroke(np.concatenate([corners, corners[:1]]))
            voxels = np.concatenate([outline, _fill(corners, grid.shape)])
    nearest = _nearest(voxels, grid.shape)
    inside = np.all((nearest >= 0) & (nearest < grid.shape), axis=1)
    return np.unique(nearest[inside], axis=0)


def extent_of(prompt: Prompt, grid: Geometry) -> Region:
    """Return the smallest box of a lattice's voxels that holds a prompt; empty outside of it.

    Of a `Box` these are all its voxels, and the call takes no time however many they are.
    """
    if isinstance(prompt, Box):
        ends = _nearest(grid.to_index(positions_of(prompt)), grid.shape)
        low = np.maximum(ends.min(axis=0), 0)
        high = np.minimum(ends.max(axis=0) + 1, grid.shape)
    else:
        voxels = voxels_of(prompt, grid)
        if not len(voxels):
            return slice(0, 0), slice(0, 0), slice(0, 0)
        low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    z, y, x = (slice(int(a), max(int(a), int(b))) for a, b in zip(low, high, strict=True))
    return (slice(0, 0),) * 3 if is_empty((z, y, x)) else (z, y, x)


def _listed(region: Region) -> NDArray[np.intp]:
    sizes = [part.stop - part.start for part in region]
    voxels: NDArray[np.intp] = np.indices(sizes).reshape(3, -1).T
    voxels = voxels + [part.start for part in region]
    return voxels


def _nearest(index: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.intp]:
    nearest = np.floor(index + 0.5).astype(np.intp)
    nearest -= index == np.array(shape) - 0.5
    return nearest


def restrict_change(
    previous: NDArray[np.bool_], new: NDArray[np.bool_], touched: Touched
) -> NDArray[np.bool_]:
    """Return `new` where prompts touch the change, `previous` elsewhere.

    A connected piece that `new` adds is kept if a positive prompt lies in it or next to it; a piece
    that it removes, if a negative one does; either, if it lies in a box (the rest of it is not
    kept).  What was clicked is then in the mask, or out of it, whatever `new` says.

    Parameters
    ----------
    previous, new : ndarray of bool, shape (Z, Y, X)
        The mask before and after a correction; an empty `previous` starts an object.
    touched : Touched
        On the same lattice, usually of the newest prompt alone for the pieces; older prompts are
        kept too if they are in it.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X)
        Equal to `previous` without prompts.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if not previous.shape == new.shape == touched.positive.shape:
        shapes = (previous.shape, new.shape, touched.positive.shape)
        raise ValueError(f"masks and prompts must have one shape, got {shapes}")
    added = _pieces_at(new & ~previous, touched.positive, touched.region)
    removed = _pieces_at(previous & ~new, touched.negative, touched.region)
    mask: NDArray[np.bool_] = (previous | added | touched.positive) & ~removed & ~touched.negative
    return mask | touched.positive


def _pieces_at(
    change: NDArray[np.bool_], prompted: NDArray[np.bool_], region: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Keep the connected pieces of a change at prompted voxels, and what lies in the region."""
    if not change.any() or not prompted.any():
        return change & region
    [found] = ndimage.find_objects(change.view(np.uint8))  # a click changes little of what is seen
    pieces, n_pieces = ndimage.label(change[found], _TOUCHING)
    is_kept = np.zeros(n_pieces + 1, dtype=bool)
    is_kept[values_near(pieces, np.argwhere(prompted) - [part.start for part in found])] = True
    is_kept[0] = False
    kept = change & region
    kept[found] |= is_kept[pieces]
    return kept


def values_near(values: NDArray[np.intp], voxels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the values at voxels (N, 3) and at their 26 neighbours, as far as they exist.

    Prompts have few voxels; a dilation would go through the whole region on every click.
    """
    around = np.unique((voxels[:, None] + np.argwhere(_TOUCHING) - 1).reshape(-1, 3), axis=0)
    inside = np.all((around >= 0) & (around < values.shape), axis=1)
    found: NDArray[np.intp] = values[tuple(around[inside].T)]
    return found


def _box(corners: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Every voxel between two corners, cut to the lattice first so that huge boxes stay cheap."""
    low = np.maximum(np.floor(corners.min(axis=0) + 0.5), 0).astype(int)
    high = np.minimum(np.floor(corners.max(axis=0) + 0.5), np.array(shape) - 1).astype(int)
    axes = [np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(float)


def _stroke(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions along a path, so dense that no voxel is jumped over."""
    pieces = [path[:1]]
    for start, end in pairwise(path):
        n_steps = max(int(np.ceil(2 * np.abs(end - start).max())), 1)
        steps = np.arange(1, n_steps + 1)[:, None] / n_steps
        pieces.append(start + steps * (end - start))
    return np.concatenate(pieces)


def _fill(corners: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Voxels that a planar polygon encloses, one voxel thick; none if it has no area."""
    centre = corners.mean(axis=0)
    _, spread, axes = np.linalg.svd(corners - centre, full_matrices=True)
    if len(corners) < 3 or spread[1] < 0.5:
        return np.empty((0, 3))
    candidates = _box(np.stack([corners.min(axis=0) - 0.5, corners.max(axis=0) + 0.5]), shape)
    # Half a voxel along the plane's steepest axis: no holes, and one voxel thick.
    is_in_plane = np.abs((candidates - centre) @ axes[2]) <= 0.5 * np.abs(axes[2]).max() + 1e-9
    candidates = candidates[is_in_plane]
    flat = axes[:2].T
    enclosed = points_in_poly((candidates - centre) @ flat, (corners - centre) @ flat)
    filled: NDArray[np.float64] = candidates[enclosed]
    return filled
