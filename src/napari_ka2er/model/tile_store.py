"""What the student made of one volume on one grid, as memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.model.mapped import allocate, is_whole, open_mapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.model.tiles import Tile

# 2: experts look into no padding; 3: sparse mode asks the volume's kind; 4: experts' averaged
# features do not depend on the window
FORMAT_VERSION = 4

# The stored arrays and how many grid voxels one of their elements spans along each axis.
STRIDES = {"gold": 8, "dense": 2, "logits": 1, "weights": 8}


@dataclass(frozen=True, slots=True)
class Identity:
    """What a cached result depends on; nothing else decides whether it may be used again.

    Parameters
    ----------
    volume, student : str
        Digests.
    mode : str
        The student's mode.
    spacing_mm, window : tuple
        Of the student grid.
    shape : tuple of int
        Size (Z, Y, X) of the grid.
    channels : dict of str to int
        Channels of each stored array.
    name : str
        What the volume is called, for people; not part of the key.
    token_centres : mapping, optional
        Per expert that is asked, where its tokens look: no digest of theirs holds that.
    precision : str
        Type of numbers in which networks run.
    """

    volume: str
    student: str
    mode: str
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int]
    shape: tuple[int, int, int]
    channels: dict[str, int]
    name: str = ""
    token_centres: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    precision: str = "float32"

    @property
    def key(self) -> str:
        """The entry's folder name."""
        data = {**asdict(self), "name": "", "format": FORMAT_VERSION}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def n_bytes(self) -> int:
        """Room that all arrays take when every tile is filled."""
        voxels = float(np.prod(self.shape))
        return round(sum(2 * self.channels[n] * voxels / s**3 for n, s in STRIDES.items()))


class TileStore:
    """Memory-mapped fp16 arrays of one volume on one grid, and which tiles of them are filled.

    A tile is marked as filled after its arrays are written, so that work killed at any moment
    leaves a store that goes on where it stopped.

    Parameters
    ----------
    folder : Path
        The entry's folder, as `Cache.open` makes it.
    identity : Identity
        What the entry belongs to.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder = folder
        self.identity = identity
        self.arrays: dict[str, NDArray[np.float16]] = {
            name: open_mapped(folder / f"{name}.npy") for name in STRIDES
        }
        self._filled: NDArray[np.bool_] = open_mapped(folder / "filled.npy")

    @staticmethod
    def create(folder: Path, identity: Identity, n_tiles: int) -> None:
        """Make an empty store; the arrays take no room on disk until they are written."""
        for name, (dtype, shape) in _layout(identity, n_tiles).items():
            allocate(folder / f"{name}.npy", dtype, shape)
        data = {"format": FORMAT_VERSION, **asdict(identity)}
        (folder / "entry.json").write_text(json.dumps(data, indent=2), encoding="utf-8")

    @staticmethod
    def is_whole(folder: Path, identity: Identity, n_tiles: int) -> bool:
        """Return whether all arrays are there, as long as `create` made them."""
        layout = _layout(identity, n_tiles)
        return all(is_whole(folder / f"{name}.npy", *kind) for name, kind in layout.items())

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which tiles are filled, by number; a copy."""
        return np.array(self._filled)

    def write(self, tile: Tile, values: dict[str, NDArray[np.float16]]) -> None:
        """Keep the core of an encoded window.

        Parameters
        ----------
        tile : Tile
            Where the window lies.
        values : dict of str to ndarray
            Per stored array the whole window's values, (C, z, y, x) at the array's stride.
        """
        for name, stride in STRIDES.items():
            source = tuple(slice(s.start // stride, s.stop // stride) for s in tile.core_in_window)
            target = tuple(slice(s.start // stride, s.stop // stride) for s in tile.core)
            self.arrays[name][(slice(None), *target)] = values[name][(slice(None), *source)]
        for array in self.arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        self._filled[tile.number] = True


def _layout(identity: Identity, n_tiles: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Return type and shape of every array by its name."""
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        name: (np.float16, (identity.channels[name], *(n // s for n in identity.shape)))
        for name, s in STRIDES.items()
    }
    return {**layout, "filled": (np.bool_, (n_tiles,))}
