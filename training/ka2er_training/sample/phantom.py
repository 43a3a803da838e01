"""A chest whose lungs, spine and nodule are known to the voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUNG, SPINE, NODULE = 1, 2, 3
# Hounsfield units of air, soft tissue and the labels' insides.
AIR_HU, TISSUE_HU, LUNG_HU, BONE_HU, NODULE_HU = -1000, 40, -820, 350, 30
NOISE_HU = 15
SHAPE = (36, 88, 104)
SPACING_MM = (6.0, 3.0, 3.5)


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A made-up CT and what is in it: `labels` uint8 (Z, Y, X), 1 lung, 2 spine, 3 nodule."""

    volume: Volume
    labels: NDArray[np.uint8]


def make_phantom(seed: int = 0) -> Phantom:
    r"""Return the chest phantom, oblique and anisotropic, in int16 Hounsfield units.

    A slice (x to the right, y up), radii (z, y, x) and centres in mm from the middle::

              ____________
            /   __    __   \      body     -, 105, 150
           |   /  \  /  \   |     lungs   90,  66,  48  at (0, 5, -65) and (0, 5, 65)
           |   \__/  \_o/   |     spine    -,  18,  18  at (0, -70, 0)
            \      ()      /      nodule   9,   9,   9  at (10, 20, 70)
    """
    z, y, x = _millimetres()
    body = _ellipsoid((z, y, x), (0, 0, 0), (1000, 105, 150))
    lungs = np.zeros(SHAPE, dtype=bool)
    for side in (-65, 65):
        lungs |= _ellipsoid((z, y, x), (0, 5, side), (90, 66, 48))
    spine = _ellipsoid((z, y, x), (0, -70, 0), (1000, 18, 18)) & ~lungs
    nodule = _ellipsoid((z, y, x), (10, 20, 70), (9, 9, 9))
    labels = np.select([nodule, spine, lungs], [NODULE, SPINE, LUNG], 0).astype(np.uint8)
    values = np.select(
        [nodule, spine, lungs, body], [NODULE_HU, BONE_HU, LUNG_HU, TISSUE_HU], AIR_HU
    )
    noise = np.random.default_rng(seed).normal(0, NOISE_HU, SHAPE)
    data = np.round(values + noise).astype(np.int16)
    return Phantom(Volume(data, _affine(), name="phantom"), labels)


def _millimetres() -> tuple[NDArray[np.float64], ...]:
    """Return each voxel's distance to the centre along its own axes, in mm."""
    z, y, x = np.indices(SHAPE, dtype=np.float64)
    return tuple(
        (index - (n - 1) / 2) * spacing
        for index, n, spacing in zip((z, y, x), SHAPE, SPACING_MM, strict=True)
    )


def _ellipsoid(
    place_mm: tuple[NDArray[np.float64], ...],
    centre_mm: tuple[float, float, float],
    radius_mm: tuple[float, float, float],
) -> NDArray[np.bool_]:
    """Return which voxels lie in an ellipsoid along the axes."""
    parts = zip(place_mm, centre_mm, radius_mm, strict=True)
    squared: NDArray[np.float64] = np.sum([((p - c) / r) ** 2 for p, c, r in parts], axis=0)
    return squared < 1


def _affine() -> NDArray[np.float64]:
    """Return an affine tilted by 8 degrees about x and 5 about z."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zx", (8, 5), degrees=True).as_matrix() * SPACING_MM
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine
