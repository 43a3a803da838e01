"""Boxes of voxels in a label map: (Z, Y, X) slices with explicit starts and stops."""

from __future__ import annotations

Region = tuple[slice, slice, slice]


def union(first: Region, second: Region) -> Region:
    """Return the smallest box around two boxes; empty ones do not count."""
    if is_empty(first) or is_empty(second):
        return second if is_empty(first) else first
    pairs = zip(first, second, strict=True)
    z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
    return z, y, x


def is_empty(region: Region) -> bool:
    """Return whether there is no voxel in a box."""
    return any(part.stop <= part.start for part in region)


def explicit(region: tuple[slice, ...], shape: tuple[int, int, int]) -> Region:
    """Return `region` with starts and stops inside a map of this shape."""
    z, y, x = (slice(*part.indices(n)[:2]) for part, n in zip(region, shape, strict=True))
    return z, y, x


def within(region: Region, outer: Region) -> Region:
    """Return `region` counted from the start of the box `outer` that contains it."""
    pairs = zip(region, outer, strict=True)
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in pairs)
    return z, y, x


def overlap(first: Region, second: Region) -> Region | None:
    """Return what two boxes share, or None."""
    pairs = zip(first, second, strict=True)
    z, y, x = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)
    return (z, y, x) if all(part.stop > part.start for part in (z, y, x)) else None
