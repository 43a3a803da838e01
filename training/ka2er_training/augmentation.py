"""Random changes of a training window: its pose in the volume, and its intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from monai.transforms.compose import Compose
    from numpy.typing import NDArray


def random_window(
    grid: Geometry,
    size: tuple[int, int, int],
    focus: NDArray[np.float64] | None,
    generator: np.random.Generator,
    *,
    strength: float = 1.0,
    mirrored: bool = True,
) -> Geometry:
    """Return a window at a random pose in a volume.

    Parameters
    ----------
    grid : Geometry
        The student's grid over the volume.
    size : tuple of int
        The window's size in voxels.
    focus : ndarray, shape (3,), or None
        A grid index that should lie in the window; None: anywhere.
    generator : numpy.random.Generator
        Source of randomness.
    strength : float
        0: no rotation, scaling or flip; 1: up to ±12° and ±15 %, left and right swapped half of
        the time.
    mirrored : bool
        Whether left and right may be swapped; everything else is drawn alike.

    Returns
    -------
    Geometry
        Stays over the volume as far as the volume is larger than the window.
    """
    shape, window = np.array(grid.shape, dtype=float), np.array(size, dtype=float)
    point = generator.uniform(0, shape - 1) if focus is None else focus
    centre = point + generator.uniform(-0.35, 0.35, 3) * window
    low = np.minimum((window - 1) / 2, (shape - 1) / 2)
    centre = np.clip(centre, low, shape - 1 - low)
    centre += np.where(shape <= window, generator.uniform(-0.1, 0.1, 3) * window * strength, 0)
    angles = generator.uniform(-12, 12, 3) * strength
    scale = 1 + generator.uniform(-0.15, 0.15) * strength
    turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() * scale
    if strength and generator.random() < 0.5 and mirrored:
        turn = turn @ np.diag([1.0, 1.0, -1.0])
    to_grid = np.eye(4)
    spacing = np.diag(grid.spacing)  # rotate in millimetres, not in anisotropic voxels
    to_grid[:3, :3] = np.linalg.inv(spacing) @ turn @ spacing
    to_grid[:3, 3] = centre - to_grid[:3, :3] @ ((window - 1) / 2)
    return Geometry(size, grid.affine @ to_grid)


def intensity_changes(strength: float = 1.0) -> Compose:
    """Return MONAI's random contrast, noise, blur and bias field for a (1, Z, Y, X) window.

    Parameters
    ----------
    strength : float
        1 as in nnU-Net's order of magnitude; larger for tasks with few volumes.
    """
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.array import (
        RandAdjustContrast,
        RandBiasField,
        RandGaussianNoise,
        RandGaussianSmooth,
        RandScaleIntensity,
        RandShiftIntensity,
    )

    width = 0.25 * strength
    blur = (0.3, 0.3 + 0.7 * strength)
    return Compose(
        [
            RandAdjustContrast(prob=0.3, gamma=(1 / (1 + 2 * width), 1 + 2 * width)),
            RandScaleIntensity(factors=width, prob=0.5),
            RandShiftIntensity(offsets=width, prob=0.5),
            RandBiasField(degree=2, coeff_range=(0.0, 0.3 * strength), prob=0.15),
            RandGaussianSmooth(sigma_x=blur, sigma_y=blur, sigma_z=blur, prob=0.15),
            RandGaussianNoise(prob=0.3, std=0.15 * strength),
        ]
    )
