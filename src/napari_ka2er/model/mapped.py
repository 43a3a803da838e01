"""Arrays in files of their own that are read and written through memory maps."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike


def allocate(path: Path, dtype: DTypeLike, shape: Sequence[int]) -> None:
    """Make a file of zeros, which takes no room on disk until it is written."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))


def open_mapped(path: Path) -> Any:
    """Return the array of a file, for reading and writing; ask `is_whole` first.

    NumPy fills a file that is too short up with zeros, and says nothing.
    """
    return np.load(path, mmap_mode="r+", allow_pickle=False)


def is_whole(path: Path, dtype: DTypeLike, shape: Sequence[int]) -> bool:
    """Return whether a file is there, and as long and of the kind that `allocate` made it."""
    start = _header(np.dtype(dtype), tuple(shape))
    size = len(start) + np.dtype(dtype).itemsize * math.prod(shape)
    try:
        if path.stat().st_size != size:
            return False
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    text = io.BytesIO()
    kind = np.lib.format.dtype_to_descr(dtype)
    entries = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(text, entries)
    return text.getvalue()
