"""nnU-Net's resampling of images in a fraction of its memory and time.

Spline interpolation is linear and works axis by axis, so that one small matrix per axis does what
`nnunetv2`'s ``resample_data_or_seg_to_shape`` does with several float64 copies of the volume.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_BLOCK_BYTES = 2**25


def resample_like_nnunet(
    data: NDArray[np.float32],
    shape: Sequence[int],
    old: Sequence[float],
    new: Sequence[float],
    settings: Mapping[str, Any],
) -> NDArray[np.float32]:
    """Return what nnU-Net's ``resample_data_or_seg_to_shape`` makes of an image.

    Parameters
    ----------
    data : ndarray of float32, shape (C, z, y, x)
        The image.
    shape : sequence of int
        The size wanted.
    old, new : sequence of float
        Spacings in mm; where either is very anisotropic, slices are taken from the nearest instead
        of interpolated along the coarse axis.
    settings : mapping
        The configuration's ``resampling_fn_data_kwargs``.
    """
    # Not at the top: a plain install has no nnU-Net, and imports this module all the same.
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    if tuple(shape) == data.shape[1:]:
        return data
    limits = {"separate_z_anisotropy_threshold": 3, **settings}
    force, threshold = limits.get("force_separate_z"), limits["separate_z_anisotropy_threshold"]
    is_separate, coarse = determine_do_sep_z_and_axis(force, old, new, threshold)
    orders = [int(limits.get("order", 3))] * 3
    if is_separate:
        orders[coarse] = int(limits.get("order_z", 0))
    axes = enumerate(zip(data.shape[1:], shape, orders, strict=True))
    matrices = [
        axis_matrix(n, m, order, is_slice=is_separate and axis == coarse)
        for axis, (n, m, order) in axes
    ]
    coarse_axis = coarse if is_separate else None
    return np.stack([_resample_channel(channel, matrices, coarse_axis) for channel in data])


def axis_matrix(n: int, m: int, order: int, *, is_slice: bool) -> NDArray[np.float64]:
    """Return the (m, n) matrix that resamples n values to m.

    Parameters
    ----------
    n, m : int
        Sizes.
    order : int
        Of the spline.
    is_slice : bool
        Along the coarse axis of an anisotropic image, which nnU-Net does with other code.
    """
    if n == m:
        return np.eye(n)
    places = (n / m) * (np.arange(m) + 0.5) - 0.5
    columns = []
    for unit in np.eye(n):
        if is_slice:
            columns.append(ndimage.map_coordinates(unit, places[None], order=order, mode="nearest"))
        else:
            columns.append(ndimage.zoom(unit, m / n, order=order, mode="nearest", grid_mode=True))
    return np.stack(columns, axis=1)


def _resample_channel(
    channel: NDArray[np.float32], matrices: Sequence[NDArray[np.float64]], coarse: int | None
) -> NDArray[np.float32]:
    """Resample (z, y, x); splines are kept from overshooting where scikit-image does.

    That is in each plane before slices are taken along the coarse axis, or in the volume.
    """
    first = 0 if coarse is None else coarse
    moved = np.moveaxis(channel, first, 0)
    across, (down, right) = matrices[first], [m for a, m in enumerate(matrices) if a != first]
    if coarse is not None:
        planes = np.stack(
            [np.clip(down @ p @ right.T, p.min(), p.max()).astype(np.float32) for p in moved]
        )
        return np.moveaxis(np.tensordot(across.astype(np.float32), planes, 1), 0, first)
    result = np.empty((len(across), len(down), len(right)), dtype=np.float32)
    rows = np.empty((len(across), moved.shape[1], len(right)))
    step = max(1, _BLOCK_BYTES // (8 * moved.shape[0] * moved.shape[2]))
    for start in range(0, moved.shape[1], step):
        block = moved[:, start : start + step].astype(np.float64)
        rows[:, start : start + step] = np.tensordot(across, block, 1) @ right.T
    low, high = channel.min(), channel.max()
    for index, row in enumerate(rows):
        result[index] = np.clip(down @ row, low, high)
    return result
