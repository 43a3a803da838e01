"""A layer's transforms and a volume's affine are the same, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image
from scipy.spatial.transform import Rotation

from napari_ka2er._transforms import affine_of, composed, placed

FLIP = np.diag([-3.0, 0.9765625, -0.7, 1.0])
NAMES = ("scale", "translate", "rotate", "shear")


def turned(seed: int) -> np.ndarray:
    """Return a rotated, anisotropic, sometimes flipped affine with an offset."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(-5, 5, 3)
    affine[:3, 3] = rng.normal(size=3) * 200
    return affine


def sheared() -> np.ndarray:
    affine = turned(99)
    affine[0, 1] += 0.7  # as in a tilted gantry
    return affine


CASES = [np.eye(4), FLIP, FLIP[[1, 2, 0, 3]], sheared(), *map(turned, range(50))]


@pytest.mark.parametrize("affine", CASES)
def test_scale_and_affine_make_exactly_the_affine(affine):
    place = placed(affine)
    np.testing.assert_array_equal(affine_of(place, 3), affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(place["scale"], spacing, rtol=1e-14)
    lengths = np.linalg.norm(place["affine"][:3, :3], axis=0)
    np.testing.assert_allclose(lengths, 1, rtol=1e-14)


@pytest.mark.parametrize("affine", CASES)
def test_napari_puts_voxels_where_the_affine_does(affine):
    data = np.zeros((3, 4, 5))
    one, other = Image(data, affine=affine), Image(data, **placed(affine))
    for index in [(0, 0, 0), (2, 3, 4), (0.5, -3, 40)]:
        world = other.data_to_world(index)
        np.testing.assert_allclose(world, one.data_to_world(index), rtol=0, atol=1e-9)
        np.testing.assert_allclose(world, (affine @ (*index, 1))[:3], rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.world_to_data(world), index, rtol=0, atol=1e-9)
    attributes = {name: getattr(other, name) for name in NAMES}
    attributes["affine"] = np.asarray(other.affine)
    np.testing.assert_array_equal(affine_of(attributes, 3), affine)


def test_all_transforms_of_a_layer_become_a_scale_and_an_affine():
    image = Image(np.zeros((3, 4, 5)), affine=turned(3), scale=(3, -2, 0.5), translate=(5, 6, 7))
    image.rotate, image.shear = (10, 20, 30), (0.1, 0.2, 0.3)
    attributes = {name: getattr(image, name) for name in NAMES}
    total = composed({**attributes, "affine": np.asarray(image.affine)}, 3)
    other = Image(np.zeros((3, 4, 5)), **placed(total))
    for index in [(0, 0, 0), (2, 3, 4), (0.5, -3, 40)]:
        np.testing.assert_allclose(
            other.data_to_world(index), image.data_to_world(index), rtol=0, atol=1e-9
        )
