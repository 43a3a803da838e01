"""Feature maps of one expert over one volume, in memory or memory-mapped in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.mapped import allocate, is_whole, open_mapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FORMAT_VERSION = 2  # 2: the last window along an axis reaches into no padding
_BLOCK = 4096


class FeatureStore:
    """Arrays of the feature maps and which windows of them are filled.

    Parameters
    ----------
    maps : dict of int to ndarray of float16, shape (C, z, y, x)
        Per stage.
    filled : ndarray of bool
        Which windows are filled.
    folder : Path, optional
        Where they are kept; None in memory.
    """

    def __init__(
        self,
        maps: dict[int, NDArray[np.float16]],
        filled: NDArray[np.bool_],
        folder: Path | None = None,
    ) -> None:
        self.maps = maps
        self.filled = filled
        self.folder = folder

    @classmethod
    def in_memory(
        cls, shapes: Mapping[int, Sequence[int]], n_windows: Sequence[int]
    ) -> FeatureStore:
        """Make an empty store; the system gives it memory only where it is written."""
        maps = {stage: np.zeros(shape, dtype=np.float16) for stage, shape in shapes.items()}
        return cls(maps, np.zeros(n_windows, dtype=bool))

    @classmethod
    def on_disk(
        cls,
        cache_dir: Path,
        shapes: Mapping[int, Sequence[int]],
        n_windows: Sequence[int],
        identity: Mapping[str, Any],
    ) -> FeatureStore:
        """Open the store with this identity, made empty where there is none, or it is damaged.

        Parameters
        ----------
        cache_dir : Path
            The folder of all stores.
        shapes : mapping of int to sequence of int
            Shape (C, z, y, x) per stage.
        n_windows : sequence of int
            Number of windows along each axis.
        identity : mapping
            What the features depend on, as JSON can hold it.

        Raises
        ------
        UserError
            If the folder cannot be written.
        """
        named = {"format": FORMAT_VERSION, **identity}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        folder = cache_dir / key[:32]
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            # Between check and making, another process could make and fill what is removed here.
            with FileLock(cache_dir / f".{folder.name}.lock"):
                if not (_belongs(folder, identity) and _is_whole(folder, shapes, n_windows)):
                    _create(folder, shapes, n_windows, identity)
            maps = {stage: open_mapped(folder / f"stage{stage}.npy") for stage in shapes}
            return cls(maps, open_mapped(folder / "filled.npy"), folder)
        except OSError as error:
            raise UserError(f"a writable cache in {folder.parent}", f"{error}") from error

    def check_room(self, cores: Mapping[int, Sequence[tuple[slice, ...]]]) -> None:
        """Refuse now what would later end the process: writing to a mapped file on a full disk.

        Parameters
        ----------
        cores : mapping of int to sequence of tuple of slice
            Per stage, where will be written.

        Raises
        ------
        UserError
            If the disk has too little room for that.
        """
        if self.folder is None:
            return
        pairs = [(self.maps[stage].shape, core) for stage, some in cores.items() for core in some]
        needed = min(sum(_room(shape, core) for shape, core in pairs), self._unwritten())
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            wanted = f"{needed / 2**20:.0f} MiB for the experts' features in {self.folder.parent}"
            remedy = "choose another folder with --cache-dir, or make room with ka2er cache rm"
            raise UserError(wanted, f"{free / 2**20:.0f} MiB", remedy)

    def _unwritten(self) -> int:
        """Return the bytes that the maps do not yet take on disk."""
        assert self.folder is not None
        files = (path.stat() for path in self.folder.iterdir())
        written = sum(getattr(stat, "st_blocks", 0) * 512 for stat in files)
        return sum(array.nbytes for array in self.maps.values()) - written

    def write(
        self, index: tuple[int, ...], parts: Mapping[int, tuple[tuple[slice, ...], Any]]
    ) -> None:
        """Keep a window: per stage, where its core goes and the values there.

        The window is marked as filled after its values are written, so that work killed at any
        moment leaves a store that goes on where it stopped.
        """
        for stage, (where, values) in parts.items():
            self.maps[stage][(slice(None), *where)] = values
        if not self.filled[index]:
            for array in self.maps.values():
                if isinstance(array, np.memmap):
                    array.flush()
        self.filled[index] = True


def _room(shape: Sequence[int], core: Sequence[slice]) -> int:
    """Return the bytes on disk that writing a core (z, y, x) of a map (C, z, y, x) may take.

    Files grow by whole blocks, so that of a row all is counted, of which a core is only a part.
    """
    z, y, _ = (s.stop - s.start for s in core)
    return int(shape[0] * z * (2 * y * shape[3] + _BLOCK))


def _is_whole(folder: Path, shapes: Mapping[int, Sequence[int]], n_windows: Sequence[int]) -> bool:
    """Return whether all arrays are there, as long as `_create` made them."""
    maps = (is_whole(folder / f"stage{s}.npy", np.float16, shape) for s, shape in shapes.items())
    return all(maps) and is_whole(folder / "filled.npy", np.bool_, n_windows)


def _belongs(folder: Path, identity: Mapping[str, Any]) -> bool:
    try:
        known = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(known == {"format": FORMAT_VERSION, **identity})


def _create(
    folder: Path,
    shapes: Mapping[int, Sequence[int]],
    n_windows: Sequence[int],
    identity: Mapping[str, Any],
) -> None:
    """Build the store beside its place and rename it, so that it is whole or not there."""
    shutil.rmtree(folder, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for stage, shape in shapes.items():
            allocate(building / f"stage{stage}.npy", np.float16, shape)
        allocate(building / "filled.npy", np.bool_, n_windows)
        text = json.dumps({"format": FORMAT_VERSION, **identity}, indent=2)
        (building / "entry.json").write_text(text, encoding="utf-8")
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
