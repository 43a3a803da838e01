"""Arrays of the training volumes on disk, open only while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry

# An open map holds a file open, of which a process may have 256 on macOS and 1024 on Linux; a
# volume has a dozen maps and more, and all volumes are drawn from in turn.
_MOST_OPEN = 64


@dataclass(frozen=True, slots=True)
class StoredMap:
    """An array on disk and its place in the world; what `alignment.align` needs.

    Parameters
    ----------
    path : Path
        The ``.npy`` file of an array (C, z, y, x).
    from_world : ndarray, shape (4, 4)
        From world (z, y, x, 1) in mm to the array's indices.
    field : ndarray, shape (2, 3)
        Lowest and highest index that lies in the image.
    """

    path: Path
    from_world: NDArray[np.float64]
    field: NDArray[np.float64]

    @property
    def data(self) -> NDArray[Any]:
        """The array; of those read last, `_MOST_OPEN` stay open."""
        return _opened(self.path)


@lru_cache(maxsize=_MOST_OPEN)
def _opened(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def stored(path: Path, grid: Geometry, make: Callable[[], NDArray[Any]]) -> StoredMap:
    """Return an array (C, Z, Y, X) on a grid as float16, made where it is not on disk yet.

    Parameters
    ----------
    path : Path
        Where it is kept; the file appears complete or not at all.
    grid : Geometry
        Its lattice.
    make : callable
        Returns the array.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as half_done:
            np.save(half_done, make().astype(np.float16))
    edges = np.array([[-0.5] * 3, np.array(grid.shape) - 0.5], dtype=np.float64)
    return StoredMap(path, np.linalg.inv(grid.affine).astype(np.float64), edges)
