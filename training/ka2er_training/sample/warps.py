"""Random poses and shapes of a head: where in a template each voxel of a new lattice looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

CONTROL_PITCH_MM = 6.0
MARGIN_MM = 36.0


def random_spacing(rng: Generator, usual_mm: float) -> NDArray[np.float64]:
    """Return the distances along (Z, Y, X): mostly the usual, else jittered, or one thick axis."""
    spacing = np.full(3, usual_mm)
    kind = rng.random()
    if kind > 0.6:
        spacing = usual_mm * rng.uniform(0.8, 1.25, 3)
    if kind > 0.8:
        spacing[rng.integers(3)] = usual_mm * rng.uniform(1.5, 2.2)
    return spacing


def random_lattice(brain: Geometry, rng: Generator, spacing: NDArray[np.float64]) -> Geometry:
    """Return an oblique lattice around the brain; one in six cuts its top or bottom off."""
    centre = brain.to_world((np.array(brain.shape) - 1) / 2) + rng.uniform(-4, 4, 3)
    extent = np.array(brain.extent_mm) * 0.88 + rng.uniform(-4, 8, 3)
    tilt = Rotation.from_rotvec(rng.normal(0, np.deg2rad(5), 3)).as_matrix()
    if rng.random() < 1 / 6:
        extent[0] *= rng.uniform(0.6, 0.85)
        centre[0] += rng.choice((-1, 1)) * 15
    shape = np.maximum(np.round(extent / spacing), 8).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = tilt * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    z, y, x = shape
    return Geometry((int(z), int(y), int(x)), affine)


def template_index(brain: Geometry, lattice: Geometry, rng: Generator) -> Array:
    """Return where in the template each voxel of the lattice looks, shape (3, Z, Y, X)."""
    centre = brain.to_world((np.array(brain.shape) - 1) / 2)
    scale = np.diag(rng.uniform(0.92, 1.08, 3))
    head = Rotation.from_rotvec(rng.normal(0, np.deg2rad(4), 3)).as_matrix() @ scale
    grid = np.moveaxis(np.indices(lattice.shape, dtype=np.float32), 0, -1)
    world = (lattice.to_world(grid) - centre) @ head.T + centre
    control, low = control_displacements(brain, rng)
    where = np.moveaxis((world - low) / CONTROL_PITCH_MM, -1, 0)
    for axis in range(3):
        world[..., axis] += map_coordinates(control[axis], where, order=3, mode="nearest")
    return np.moveaxis(brain.to_index(world), -1, 0).astype(np.float32)


def control_displacements(brain: Geometry, rng: Generator) -> tuple[Array, NDArray[np.float64]]:
    """Return random smooth displacements that fold nowhere.

    Two scales, about those by which heads differ: 20 mm (lobes) and 9 mm (gyri).  Where the sum
    would press a volume to less than 0.3 of itself, the whole field is made smaller.

    Parameters
    ----------
    brain : Geometry
        What the field covers, with a margin.
    rng : Generator
        Decides everything.

    Returns
    -------
    displacements : ndarray of float32, shape (3, Z, Y, X)
        In mm along RAS (z, y, x), every `CONTROL_PITCH_MM`.
    low : ndarray, shape (3,)
        World position (z, y, x) of the first control point, in mm.
    """
    ends = brain.to_world(np.array([(0, 0, 0), np.array(brain.shape) - 1]))
    low = ends.min(axis=0) - MARGIN_MM
    shape = np.ceil((ends.max(axis=0) + MARGIN_MM - low) / CONTROL_PITCH_MM).astype(int) + 1
    field = np.zeros((3, *shape), dtype=np.float32)
    for scale_mm, spread_mm in ((20.0, rng.uniform(2, 5)), (9.0, rng.uniform(0.5, 1.8))):
        field += smooth_noise(field.shape, (0, *[scale_mm / CONTROL_PITCH_MM] * 3), rng) * spread_mm
    while jacobian_determinants(field, CONTROL_PITCH_MM).min() < 0.3:
        field *= np.float32(0.85)
    return field, low


def jacobian_determinants(displacements: Array, pitch_mm: float) -> NDArray[np.float64]:
    """Return by how much ``x + displacement`` stretches volume, shape (Z, Y, X); < 0 is a fold."""
    gradients = [np.stack(np.gradient(d.astype(np.float64), pitch_mm), -1) for d in displacements]
    jacobian: NDArray[np.float64] = np.stack(gradients, axis=-2) + np.eye(3)
    determinants: NDArray[np.float64] = np.linalg.det(jacobian)
    return determinants


def smooth_noise(shape: tuple[int, ...], sigma: Any, rng: Generator) -> Array:
    """Return Gaussian noise of mean 0 and standard deviation 1, smoothed by `sigma` points."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    result: Array = (noise - noise.mean()) / noise.std()
    return result


def blur_voxels(lattice: Geometry, brain: Geometry) -> list[float]:
    """Return the template blur, in voxels, of the lattice's thicker voxels (tilts are small)."""
    ratio = np.array(lattice.spacing) / np.array(brain.spacing)
    # 0.42 voxels of the coarser lattice: the standard deviation of a Gaussian slice profile of that
    # width; what the template has already is taken off.
    return [float(0.42 * np.sqrt(max(r * r - 1, 0.0))) for r in ratio]
