"""Random scanners: contrast, bias field, noise and intensity scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

from ka2er_training.sample.warps import smooth_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


def acquire(t1: Array, tissues: Sequence[Array], rng: Generator) -> NDArray[np.int16]:
    """Return what a random scanner makes of a head.

    Parameters
    ----------
    t1 : ndarray of float32, shape (Z, Y, X)
        Ideal signal in [0, 1]; 0 outside the head.
    tissues : sequence of ndarray of float32, shape (Z, Y, X)
        Probabilities of tissues whose signal differs a little from person to person.
    rng : Generator
        Decides everything.
    """
    signal = contrast_curve(rng)(t1).astype(np.float32)
    for tissue in tissues:
        signal *= 1 + np.float32(rng.normal(0, 0.04)) * tissue
    signal *= bias_field(t1.shape, rng)
    spread = rng.uniform(0.005, 0.05)
    real, imaginary = rng.normal(0, spread, (2, *t1.shape)).astype(np.float32)
    magnitude = np.hypot(signal + real, imaginary)  # Rician noise, as in magnitude images
    if rng.random() < 0.6:  # brain extraction sets the rest to zero, as in the template
        magnitude *= t1 > 0.02
    scale = np.exp(rng.uniform(np.log(150), np.log(4000)))
    rounded: NDArray[np.int16] = np.clip(np.round(magnitude * scale), 0, 32767).astype(np.int16)
    return rounded


def bias_field(shape: tuple[int, ...], rng: Generator) -> Array:
    """Return a smooth random gain around 1, shape (Z, Y, X)."""
    coarse_shape = tuple(max(n // 12, 4) for n in shape)
    log_gain = smooth_noise(coarse_shape, 2.0, rng) * np.float32(rng.uniform(0.02, 0.16))
    where = [np.linspace(0, n - 1, m) for n, m in zip(coarse_shape, shape, strict=True)]
    grid = np.stack(np.meshgrid(*where, indexing="ij"))
    gain: Array = np.exp(map_coordinates(log_gain, grid, order=3, mode="nearest"))
    return gain


def contrast_curve(rng: Generator) -> PchipInterpolator:
    """Return a random rising curve from 0 to 1, between the straight line and strong bends."""
    steps = 0.35 + rng.dirichlet(np.full(6, 4.0)) * 6
    knots = np.concatenate([[0], np.cumsum(steps) / steps.sum()])
    gamma = np.exp(rng.normal(0, 0.22))
    return PchipInterpolator(np.linspace(0, 1, 7), knots**gamma)
