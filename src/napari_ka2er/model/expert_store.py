"""Feature maps of one expert over one volume, in memory or memory-mapped in a cache folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FORMAT_VERSION = 2  # 2: the last window along an axis reaches into no padding


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
        """Open the store with this identity, made empty where there is none.

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
            If the folder cannot be written or has too little room.
        """
        named = {"format": FORMAT_VERSION, **identity}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
        folder = cache_dir / key[:32]
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            # Between check and making, another process could make and fill what is removed here.
            with FileLock(cache_dir / f".{folder.name}.lock"):
                if not _belongs(folder, identity):
                    _create(folder, shapes, n_windows, identity)
            _check_room(folder, shapes)
            maps = {stage: _open(folder / f"stage{stage}.npy") for stage in shapes}
            return cls(maps, _open(folder / "filled.npy"), folder)
        except OSError as error:
            raise UserError(f"a writable cache in {folder.parent}", f"{error}") from error

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


def _check_room(folder: Path, shapes: Mapping[int, Sequence[int]]) -> None:
    """Refuse now what would later end the process: writing to a mapped file on a full disk."""
    files = (path.stat() for path in folder.iterdir())
    written = sum(getattr(stat, "st_blocks", 0) * 512 for stat in files)
    needed = sum(2 * math.prod(shape) for shape in shapes.values()) - written
    free = shutil.disk_usage(folder).free
    if needed > free:
        wanted = f"{needed / 2**20:.0f} MiB for the experts' features in {folder.parent}"
        remedy = "choose another folder with --cache-dir, or make room with ka2er cache rm"
        raise UserError(wanted, f"{free / 2**20:.0f} MiB", remedy)


def _open(path: Path) -> Any:
    return np.load(path, mmap_mode="r+", allow_pickle=False)


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
            _allocate(building / f"stage{stage}.npy", np.float16, shape)
        _allocate(building / "filled.npy", np.bool_, n_windows)
        text = json.dumps({"format": FORMAT_VERSION, **identity}, indent=2)
        (building / "entry.json").write_text(text, encoding="utf-8")
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _allocate(path: Path, dtype: type, shape: Sequence[int]) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
