"""Arrays that two processes see in the same memory, as large ones should not travel.

The memory has a name only until the other process has found it; from then on the operating system
frees it with the last process that uses it, however that ends.  Before, Python's resource tracker
does, which outlives a killed process.
"""

from __future__ import annotations

import math
import os
import secrets
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.boxes import union
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.roi import box_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from napari_ka2er.core.boxes import Region

PREFIX = "ka2er-"  # macOS takes names of at most 30 characters
_LINUX = Path("/dev/shm")  # where it shows shared memory as files
_NOTHING = (slice(0, 0), slice(0, 0), slice(0, 0))
_REMEDY = "close other programs; in a container, give /dev/shm more room (docker run --shm-size=4g)"


@dataclass(frozen=True, slots=True)
class Place:
    """What another process needs to find an array: the memory's name, and what is in it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@contextmanager
def shared_array(shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[tuple[NDArray[Any], Place]]:
    """Make an array of zeros that one other process can find while the block runs.

    The memory lives as long as an array on it, here or there.

    Raises
    ------
    UserError
        If there is no room.
    """
    kind = np.dtype(dtype)
    memory = _reserved(kind.itemsize * math.prod(shape))
    try:
        yield _array(memory, shape, kind), Place(memory.name, shape, kind.str)
    finally:
        _unlink(memory)


def attached(place: Place) -> NDArray[Any]:
    """Return an array that another process made; nobody else can find it any more."""
    memory = _found(place.name)
    _unlink(memory)
    return _array(memory, place.shape, np.dtype(place.dtype))


def _reserved(n_bytes: int) -> SharedMemory:
    """Make shared memory whose pages are there: a page that is not would end the process later."""
    name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        memory = SharedMemory(name, create=True, size=max(n_bytes, 1))
        try:
            _allocate(_LINUX / name, n_bytes)
        except OSError:
            memory.unlink()
            raise
    except OSError as error:
        wanted = f"{n_bytes / 2**20:.0f} MiB of memory shared with the model's process"
        raise UserError(wanted, f"{error.strerror or error}", _REMEDY) from error
    return memory


def _allocate(path: Path, n_bytes: int) -> None:
    if not (n_bytes and path.exists()):
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    finally:
        os.close(descriptor)


def _found(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    return SharedMemory(name)


def _unlink(memory: SharedMemory) -> None:
    """Take the name away, which the other process may have done."""
    try:
        memory.unlink()
    except FileNotFoundError:
        resource_tracker.unregister(f"/{memory.name}", "shared_memory")


class _Mapping:
    """Keeps shared memory in this process as long as an array on it exists.

    An array made from the buffer itself would not let go of it in time, and one made after
    `SharedMemory.close` would point nowhere.
    """

    def __init__(self, memory: SharedMemory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._memory = memory
        assert memory.buf is not None
        address = np.frombuffer(memory.buf, np.uint8).ctypes.data
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address, False),
        }


def _array(memory: SharedMemory, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(_Mapping(memory, shape, dtype))


class SharedMask:
    """A mask that two processes see, and write to in turns; only what differs is written.

    Parameters
    ----------
    array : ndarray of bool, shape (Z, Y, X)
        Shared, all false.
    """

    def __init__(self, array: NDArray[np.bool_]) -> None:
        self._array = array
        self._used = self._laid = _NOTHING  # all is false outside

    def lay(self, mask: NDArray[np.bool_] | None) -> None:
        """Show the other process a mask; it may write over it, or over what is there, until `take`.

        If nothing is taken, what the other process did is unknown, and all is written next time.
        """
        z, y, x = (slice(0, n) for n in self._array.shape)
        used, self._used = self._used, (z, y, x)
        if mask is not None:
            self._array[used] = False
            used = box_of(mask)
            self._array[used] = mask[used]
        self._laid = used

    def take(self, box: Region) -> NDArray[np.bool_]:
        """Return a copy of the box that the other process wrote."""
        self._used = union(self._laid, box)
        return np.array(self._array[box])
