"""Changes of a label map: the box that changed, as one compressed exclusive-or.

The exclusive-or of the labels before and after turns either into the other, so one array serves
undo and redo, and it is zero where nothing changed, so it packs to almost nothing.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_ka2er.core.boxes import Region, overlap, within
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Labels = NDArray[np.unsignedinteger[Any]]

# Large enough to pack at full speed, small enough that a whole-volume edit needs no second volume
# and that a part of one is unpacked without the rest.
SLAB_BYTES = 1 << 22
_HEAD, _LENGTH = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Held:
    """Packed bytes kept in memory."""

    data: bytes

    @property
    def held_bytes(self) -> int:
        """Memory that this takes."""
        return len(self.data)

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data

    def is_intact(self) -> bool:
        """Return True: nothing happens to bytes in memory."""
        return True


@dataclass(frozen=True, slots=True)
class Stored:
    """Packed bytes in a file, from `offset` on; `checksum` is their CRC-32."""

    path: Path
    offset: int
    length: int
    checksum: int

    @property
    def held_bytes(self) -> int:
        """Memory that this takes."""
        return 0

    def read(self) -> bytes:
        """Return the bytes; raises `UserError` if the file no longer has them, or not now."""
        data = self._present()
        if not self._is_right(data):
            raise UserError(f"the bytes that were written to {self.path}", "other ones")
        return data

    def is_intact(self) -> bool:
        """Return whether the bytes are as they were written.

        Raises
        ------
        UserError
            If the file cannot be read now, which says nothing of them.
        """
        return self._is_right(self._present())

    def _is_right(self, data: bytes) -> bool:
        return len(data) == self.length and zlib.crc32(data) == self.checksum

    def _present(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise unreadable(self.path, error) from error


@dataclass(frozen=True, slots=True)
class Delta:
    """The exclusive-or of the labels before and after, in the smallest box with every change.

    Parameters
    ----------
    region : tuple of slice
        The box, (Z, Y, X), with explicit starts and stops.
    dtype : str
        Type of the label map when the change was made; a later map may be wider, never narrower.
    packed : Held or Stored
        What `pack` returned.
    labels : tuple of int
        The labels that lost or gained voxels, ascending; may contain 0.
    n_voxels : int
        Number of voxels that changed; 0 with an empty box if none did.
    """

    region: Region
    dtype: str
    packed: Held | Stored
    labels: tuple[int, ...]
    n_voxels: int

    def slabs(self, inside: Region | None = None) -> Iterator[tuple[Region, Labels]]:
        """Yield the parts (region, exclusive-or) with changes, in the map's coordinates.

        With `inside`, only what lies in that box.
        """
        shared = overlap(self.region, inside) if inside else self.region
        if not self.n_voxels or shared is None:
            return
        rows = shared[0]
        for where, values in unpack(self.packed.read(), self.region, self.dtype, rows):
            part = overlap(where, shared)
            if part is not None:
                yield part, values[within(part, where)]


def unreadable(path: Path, error: OSError) -> UserError:
    """Return how to tell that a file of a session cannot be read now; it may be again."""
    remedy = "nothing was changed: try again once the file is there and free"
    return UserError(f"to read {path}", error.strerror or f"{error}", remedy)


def warm_up() -> None:
    """Import the compressor, so that the first stroke of the brush does not wait for it."""
    import blosc2  # noqa: F401


def difference(before: Labels, after: NDArray[Any], locked: tuple[int, ...], at: Region) -> Delta:
    """Return what turns `before` into `after`.

    Parameters
    ----------
    before : ndarray of unsigned int, shape (Z, Y, X)
        The labels in the region `at` of the map.
    after : ndarray of int or bool, shape (Z, Y, X)
        The labels wanted there; must fit the type of `before`.
    locked : tuple of int
        Labels that neither lose nor gain a voxel.
    at : tuple of slice
        Where in the map both arrays lie.
    """
    hits = [np.zeros(n, np.bool_) for n in before.shape]
    labels: set[int] = set()
    n_voxels = 0
    for rows in _rows(before.shape, before.itemsize):
        old, new = before[rows], _unlocked(before[rows], after[rows], locked)
        changed = old != new
        n_voxels += int(np.count_nonzero(changed))
        labels.update(int(v) for part in (old, new) for v in np.unique(part[changed]))
        _note(hits, rows, changed)
    box = _box(hits)
    packed = pack(before[box], after[box], locked) if n_voxels else b""
    shifted = [slice(a.start + b.start, a.start + b.stop) for a, b in zip(at, box, strict=True)]
    region = (shifted[0], shifted[1], shifted[2])
    return Delta(region, before.dtype.name, Held(packed), tuple(sorted(labels)), n_voxels)


def pack(before: Labels, after: NDArray[Any], locked: tuple[int, ...] = ()) -> bytes:
    """Return the compressed exclusive-or of two arrays of shape (Z, Y, X), slab by slab."""
    import blosc2  # a quarter of a second, which opening the plugin must not take

    rows_per_slab = _rows_per_slab(before.shape, before.itemsize)
    parts = [_HEAD.pack(rows_per_slab)]
    options = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "typesize": before.itemsize}
    for rows in _rows(before.shape, before.itemsize):
        new = _unlocked(before[rows], after[rows], locked).astype(before.dtype, copy=False)
        delta = np.ascontiguousarray(before[rows] ^ new)
        packed = blosc2.compress2(delta, **options) if delta.any() else b""
        parts += [_LENGTH.pack(len(packed)), packed]
    return b"".join(parts)


def unpack(
    data: bytes, region: Region, dtype: str, wanted: slice
) -> Iterator[tuple[Region, Labels]]:
    """Yield the parts (region, exclusive-or) of what `pack` returned that have `wanted` rows."""
    import blosc2

    z, y, x = region
    (rows_per_slab,) = _HEAD.unpack_from(data)
    position = _HEAD.size
    for start in range(z.start, z.stop, rows_per_slab):
        stop = min(start + rows_per_slab, z.stop)
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if length and start < wanted.stop and stop > wanted.start:
            values = np.empty((stop - start, y.stop - y.start, x.stop - x.start), dtype)
            blosc2.decompress2(data[position : position + length], dst=values)
            yield (slice(start, stop), y, x), values
        position += length


def box_of(labels: Labels, value: int) -> Region:
    """Return the smallest box around the voxels of a label, empty if there are none."""
    hits = [np.zeros(n, np.bool_) for n in labels.shape]
    for rows in _rows(labels.shape, labels.itemsize):
        _note(hits, rows, labels[rows] == value)
    return _box(hits)


def _unlocked(before: Labels, after: NDArray[Any], locked: tuple[int, ...]) -> NDArray[Any]:
    """Return `after`, but `before` where a locked label would lose or gain a voxel."""
    if not locked:
        return after
    keep = np.isin(before, locked) | np.isin(after, locked)
    return np.where(keep, before, after)


def _note(hits: list[NDArray[np.bool_]], rows: slice, mask: NDArray[np.bool_]) -> None:
    """Add where these rows of a mask are true to the shadows it casts on the three axes."""
    hits[0][rows] = mask.any(axis=(1, 2))
    hits[1] |= mask.any(axis=(0, 2))
    hits[2] |= mask.any(axis=(0, 1))


def _box(hits: list[NDArray[np.bool_]]) -> Region:
    bounds = [np.flatnonzero(h) for h in hits]
    z, y, x = (slice(int(b[0]), int(b[-1]) + 1) if b.size else slice(0, 0) for b in bounds)
    return z, y, x


def _rows_per_slab(shape: tuple[int, ...], itemsize: int) -> int:
    return max(1, SLAB_BYTES // max(1, shape[1] * shape[2] * itemsize))


def _rows(shape: tuple[int, ...], itemsize: int) -> Iterator[slice]:
    step = _rows_per_slab(shape, itemsize)
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
