"""Synthetic domain shifts: what another scanner, coil, dose or protocol does to a volume.

Each takes a volume and returns one of the same place in the world; only `coarser` changes the
lattice.  The same seed gives the same volume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.resampling import resample
from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Volume

Shift = Callable[["Volume", int], "Volume"]

# Number of control points of the bias field along each axis: about half a wave over the volume, as
# of a receive coil.
_BIAS_KNOTS = 4


def _limits(data: NDArray[np.float32]) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentile of finite values; never equal."""
    low, high = np.percentile(data[np.isfinite(data)], [0.5, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _changed(volume: Volume, data: NDArray[Any]) -> Volume:
    return replace(volume, data=data.astype(np.float32))


def gamma(volume: Volume, seed: int, *, exponent: float) -> Volume:
    """Bend the grey values: ``v ** exponent`` between the 0.5 and 99.5 percentile.

    Parameters
    ----------
    volume : Volume
        Any intensities, also negative ones (CT).
    seed : int
        Not used; shifts share one signature.
    exponent : float
        Above 1 darkens, below 1 brightens.
    """
    data = volume.data.astype(np.float32)
    low, high = _limits(data)
    scaled = np.clip((data - low) / (high - low), 0, 1)
    return _changed(volume, scaled**exponent * (high - low) + low)


def bias_field(volume: Volume, seed: int, *, strength: float) -> Volume:
    """Multiply by a smooth field, ``exp(strength · f)`` with `f` of mean 0 and deviation 1.

    Values are taken from the 0.5 percentile upwards, so that a CT's negative values darken too.
    """
    data = volume.data.astype(np.float32)
    low, _ = _limits(data)
    knots = np.random.default_rng(seed).normal(size=(_BIAS_KNOTS,) * 3)
    zoom = [n / _BIAS_KNOTS for n in volume.shape]
    field = ndimage.zoom(knots, zoom, order=3, mode="nearest", grid_mode=True)
    field = (field - field.mean()) / max(float(field.std()), 1e-6)
    return _changed(volume, (data - low) * np.exp(strength * field) + low)


def noise(volume: Volume, seed: int, *, share: float) -> Volume:
    """Add Gaussian noise whose deviation is `share` of the 0.5 to 99.5 percentile range."""
    data = volume.data.astype(np.float32)
    low, high = _limits(data)
    grain = np.random.default_rng(seed).normal(0, share * (high - low), size=data.shape)
    return _changed(volume, data + grain)


def coarser(volume: Volume, seed: int, *, factor: float) -> Volume:
    """Return the volume on a lattice `factor` times coarser along every axis, anti-aliased.

    Both lattices cover the same field: the first coarse voxel's outer border is the first fine
    voxel's.
    """
    shape = tuple(max(1, round(n / factor)) for n in volume.shape)
    step = np.diag([*(n / m for n, m in zip(volume.shape, shape, strict=True)), 1.0])
    step[:3, 3] = (np.diag(step)[:3] - 1) / 2
    target = Geometry((shape[0], shape[1], shape[2]), volume.affine @ step)
    data = resample(
        volume.data.astype(np.float32),
        volume.geometry,
        target,
        order=1,
        cval=float(volume.data.min()),
    )
    return replace(volume, data=data, affine=target.affine, header={})


# What the shift table of docs/benchmarks/amalgamation.md shows, in its columns' order.
SHIFTS: dict[str, Shift] = {
    "gamma 0.6": partial(gamma, exponent=0.6),
    "gamma 1.7": partial(gamma, exponent=1.7),
    "bias field": partial(bias_field, strength=0.4),
    "noise": partial(noise, share=0.08),
    "coarser x2": partial(coarser, factor=2.0),
}


def shift_named(name: str) -> Shift:
    """Return a shift by its name in `SHIFTS`.

    Raises
    ------
    UserError
        If there is none.
    """
    if name not in SHIFTS:
        raise UserError(f"one of the shifts {', '.join(SHIFTS)}", repr(name))
    return SHIFTS[name]
