"""How windows tile a student grid: each window is encoded once, and only its core is kept.

No blending: a tile depends on nothing but its own window, so tiles can be filled in any order,
stopped at any time and kept on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.resampling import grid_of
from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

Index = tuple[int, int, int]
Region = tuple[slice, slice, slice]

# Gold features have one token per 8 voxels; all windows begin on this lattice, so that the tokens
# of neighbouring windows are tokens of one array.
STEP = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of a student grid and the part of it that is kept.

    Parameters
    ----------
    number : int
        Its position among the lattice's tiles.
    window : tuple of slice
        The voxels (Z, Y, X) that are encoded together.
    core : tuple of slice
        The voxels (Z, Y, X) whose result is kept: those nearest to this window's centre.
    """

    number: int
    window: Region
    core: Region

    @property
    def core_in_window(self) -> Region:
        """The core, counted from the window's first voxel."""
        z, y, x = (
            slice(c.start - w.start, c.stop - w.start)
            for c, w in zip(self.core, self.window, strict=True)
        )
        return z, y, x


@dataclass(frozen=True, slots=True)
class Lattice:
    """The tiles of a student grid; their cores cover it without gap or overlap.

    Parameters
    ----------
    shape : tuple of int
        Size (Z, Y, X) of the grid, multiples of 8 and at least the window.
    window : tuple of int
        Size (Z, Y, X) of the window, multiples of 8.
    """

    shape: Index
    window: Index

    def __post_init__(self) -> None:
        if any(n % STEP or w % STEP or n < w for n, w in zip(self.shape, self.window, strict=True)):
            raise ValueError(
                f"grid and window must be multiples of {STEP} and the window no larger, "
                f"got {self.shape} and {self.window}"
            )

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, X fastest."""
        axes = [_axis_tiles(n, w) for n, w in zip(self.shape, self.window, strict=True)]
        return tuple(
            Tile(number, (z[0], y[0], x[0]), (z[1], y[1], x[1]))
            for number, (z, y, x) in enumerate(product(*axes))
        )

    def touching(self, region: Region, centre: ArrayLike | None = None) -> list[Tile]:
        """Return the tiles whose core shares voxels with `region`, nearest to `centre` first.

        Parameters
        ----------
        region : tuple of slice
            A box of grid voxels; where empty, no tile touches it.
        centre : array_like, shape (3,), optional
            Grid index; the region's middle where None.
        """
        middle = [(s.start + s.stop - 1) / 2 for s in region]
        point = np.asarray(middle if centre is None else centre, dtype=np.float64)
        near = [tile for tile in self.tiles if _overlap(tile.core, region)]
        return sorted(near, key=lambda tile: _distance(tile.core, point))


def halo_of(window: int) -> int:
    """Return how many voxels at each end of a window are not kept: an eighth, a multiple of 8.

    There the network sees too little around; see `docs` for what a wider one costs and brings.
    """
    return max(STEP, window // 8 // STEP * STEP)


def _axis_tiles(size: int, window: int) -> list[tuple[slice, slice]]:
    """Return windows and cores along one axis: evenly spread, so that overlaps are equally wide."""
    stride = window - 2 * halo_of(window)
    count = 1 + -(-(size - window) // stride)
    starts = [round(i * (size - window) / max(count - 1, 1) / STEP) * STEP for i in range(count)]
    inner = [(a + b + window) // 2 // STEP * STEP for a, b in pairwise(starts)]
    borders = [0, *inner, size]
    return [
        (slice(start, start + window), slice(low, high))
        for start, low, high in zip(starts, borders, borders[1:], strict=False)
    ]


def _overlap(a: Sequence[slice], b: Sequence[slice]) -> bool:
    return all(p.start < q.stop and q.start < p.stop for p, q in zip(a, b, strict=True))


def _distance(core: Region, point: NDArray[np.float64]) -> float:
    """Return how far `point` lies from a core's middle, in grid voxels."""
    middle = np.array([(s.start + s.stop - 1) / 2 for s in core])
    return float(np.linalg.norm(middle - point))


def region_geometry(grid: Geometry, region: Region) -> Geometry:
    """Return a box of a grid as a lattice of its own."""
    start = [s.start for s in region]
    affine = np.array(grid.affine)
    affine[:3, 3] = grid.to_world(start)
    z, y, x = (s.stop - s.start for s in region)
    return Geometry((z, y, x), affine)


def tiled_grid(
    geometry: Geometry, spacing_mm: tuple[float, float, float], window: Index
) -> Geometry:
    """Return the student's grid for a volume, padded evenly to at least one window."""
    grid = grid_of(geometry, spacing_mm, STEP)
    missing = [max(w - n, 0) for n, w in zip(grid.shape, window, strict=True)]
    region = [slice(-(m // 2), n + m - m // 2) for n, m in zip(grid.shape, missing, strict=True)]
    return region_geometry(grid, (region[0], region[1], region[2]))
