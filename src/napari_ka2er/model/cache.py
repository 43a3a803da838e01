"""What the student made of a volume, kept on disk so that a click costs only the mask decoder."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pooch

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.tile_store import TileStore

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari_ka2er.model.tile_store import Identity

DEFAULT_LIMIT_BYTES = 8 * 2**30
LIMIT_VARIABLE = "KA2ER_CACHE_GIB"  # of the environment, so that it reaches the model's process
_LOOKS_APART = 20  # times what one look takes
_REMEDY = "choose another folder with --cache-dir, or make room with ka2er cache rm"


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached result as `ka2er cache ls` shows it; `used` is in seconds since 1970."""

    key: str
    name: str
    mode: str
    spacing_mm: tuple[float, float, float]
    size_bytes: int
    used: float
    n_filled: int
    n_tiles: int


def default_limit() -> int:
    """Return the room for a cache in bytes: KA2ER_CACHE_GIB of the environment, or 8 GiB.

    Raises
    ------
    UserError
        If the variable is no number above 0.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) * 2**30 if text else DEFAULT_LIMIT_BYTES
    except ValueError:
        limit = 0
    if not 0 < limit < float("inf"):
        raise UserError(f"a number of GiB above 0 in {LIMIT_VARIABLE}", repr(text))
    return round(limit)


class Cache:
    """A folder of tile stores whose size is kept under a limit by dropping the least recently used.

    Parameters
    ----------
    folder : Path, optional
        Where the stores live; by default in the user's cache folder.
    limit_bytes : int, optional
        Room that all stores may take on disk; by default what `default_limit` says.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = folder or Path(pooch.os_cache("napari-ka2er"))
        self.limit_bytes = default_limit() if limit_bytes is None else limit_bytes
        self._next_look = -math.inf  # on the monotonic clock

    @property
    def _stores(self) -> Path:
        return self.folder / "volumes"

    @property
    def experts(self) -> Path:
        """Where the experts keep their own features."""
        return self.folder / "experts"

    def open(self, identity: Identity, n_tiles: int) -> TileStore:
        """Return the store of this identity, made empty where there is none, or it is damaged.

        Raises
        ------
        UserError
            If the cache folder cannot be written.
        """
        folder = self._stores / identity.key
        try:
            if _entry(folder) is None or not TileStore.is_whole(folder, identity, n_tiles):
                shutil.rmtree(folder, ignore_errors=True)
                self._create(folder, identity, n_tiles)
            os.utime(folder / "entry.json")
            self.shrink(keep={identity.key})
            self._check_room(identity, folder)
            return TileStore(folder, identity)
        except OSError as error:
            raise UserError(f"a writable cache in {self.folder}", f"{error}", _REMEDY) from error

    def _check_room(self, identity: Identity, folder: Path) -> None:
        """Refuse now what would later end the process: writing to a mapped file on a full disk."""
        missing = identity.n_bytes - _size(folder)
        free = shutil.disk_usage(folder).free
        if missing > free:
            wanted = f"{missing / 2**20:.0f} MiB for the cache in {self.folder}"
            raise UserError(wanted, f"{free / 2**20:.0f} MiB", _REMEDY)

    def _create(self, folder: Path, identity: Identity, n_tiles: int) -> None:
        """Build the store beside its place and rename it, as another process may do the same."""
        self._stores.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".", dir=self._stores))
        try:
            TileStore.create(building, identity, n_tiles)
            if not folder.exists():
                os.replace(building, folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """Return what is cached, most recently used first."""
        found = [_entry(path.parent) for path in self._stores.glob("[!.]*/entry.json")]
        return sorted((e for e in found if e), key=lambda entry: -entry.used)

    def remove(self, keys: list[str] | None = None) -> int:
        """Remove entries by their key or its beginning, or all; return the bytes freed.

        Raises
        ------
        UserError
            If a key belongs to no entry.
        """
        freed = 0
        known = self.entries()
        for key in [entry.key for entry in known] if keys is None else keys:
            matching = [entry for entry in known if key and entry.key.startswith(key)]
            if not matching:
                raise UserError("a key that ka2er cache ls shows", repr(key))
            freed += sum(self._drop(entry) for entry in matching)
        if keys is None:
            freed += sum(_size(path) for path in self.experts.glob("*"))
            shutil.rmtree(self.experts, ignore_errors=True)
        return freed

    def shrink(self, keep: Collection[str] = ()) -> None:
        """Drop what was used least recently, but nothing in `keep`, until the limit holds.

        Experts' features count too, and go first: students' results are made of them and much
        smaller.  They are not dropped as soon as all tiles are filled, because other modes, grids
        and students with the same expert read them as well.

        Parameters
        ----------
        keep : collection of str
            Folder names of tile stores and of experts' features that are in use.
        """
        stores = [(1, e.used, e.size_bytes, self._stores / e.key) for e in self.entries()]
        stores += [(0, _last_write(p), _size(p), p) for p in self.experts.glob("[!.]*")]
        total = sum(size for _, _, size, _ in stores)
        for _, _, size, path in sorted(stores):
            if total <= self.limit_bytes:
                return
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)
                total -= size

    def keep_small(self, keep: Collection[str] = ()) -> None:
        """Do as `shrink` while something is written, but not each time.

        Looking through the whole cache takes milliseconds per hundred files; it takes at most a
        twentieth of the time here, so that the limit may be exceeded for twenty times as long.
        """
        begun = time.monotonic()
        if begun >= self._next_look:
            self.shrink(keep)
            self._next_look = begun + _LOOKS_APART * (time.monotonic() - begun)

    def _drop(self, entry: Entry) -> int:
        shutil.rmtree(self._stores / entry.key, ignore_errors=True)
        return entry.size_bytes


def _entry(folder: Path) -> Entry | None:
    """Describe a store; None where another process has just removed it or left it damaged."""
    try:
        data: dict[str, Any] = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        filled = np.load(folder / "filled.npy")
        used = (folder / "entry.json").stat().st_mtime
        z, y, x = data["spacing_mm"]
        return Entry(
            folder.name, data["name"], data["mode"], (z, y, x), _size(folder), used,
            int(filled.sum()), filled.size,
        )  # fmt: skip
    except (OSError, EOFError, ValueError, KeyError):
        return None


def _last_write(folder: Path) -> float:
    """Return when something in a folder was last written, in seconds since 1970."""
    return max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)


def _size(folder: Path) -> int:
    """Return the room a folder takes on disk; sparse files count for what they hold."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(getattr(s, "st_blocks", 0) * 512 or s.st_size for s in files)
