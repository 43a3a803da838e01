"""A volume's values on their way to an expert: finite, cropped and padded as nnU-Net does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.expert_windows import WorkingGrid


def finite(volume: Volume) -> NDArray[Any]:
    """Return the values as (C, Z, Y, X), with the smallest finite one in place of NaN and infinity.

    nnU-Net itself would spread a single NaN over the whole image when it normalises.

    Raises
    ------
    UserError
        If no value is finite.
    """
    channels = volume.channels
    if channels.dtype.kind in "biu":
        return channels
    known = np.isfinite(channels)
    if known.all():
        return channels
    if not known.any():
        raise UserError("an image with values", f"{volume.name} without a finite one")
    return np.where(known, channels, channels[known].min())


def nonzero_box(data: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """Return first and last + 1 voxel other than 0 along Z, Y and X, which nnU-Net crops to.

    All of an empty image (C, Z, Y, X).
    """
    ends = []
    for axis in range(1, 4):
        others = tuple(a for a in range(4) if a != axis)
        places = np.flatnonzero(data.any(axis=others))
        ends.append((int(places[0]), int(places[-1]) + 1) if places.size else (0, data.shape[axis]))
    return tuple(ends)


def pad(data: NDArray[np.float32], grid: WorkingGrid) -> NDArray[np.float32]:
    """Pad a preprocessed image (C, z, y, x) with zeros up to the patch, as nnU-Net does."""
    missing = [
        (before, seen - n - before)
        for before, n, seen in zip(grid.before, grid.shape, grid.seen_shape, strict=True)
    ]
    return np.pad(data, [(0, 0), *missing])
