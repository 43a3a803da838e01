from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ka2er_training.structures import some_structure

SHAPE = (24, 40, 32)


@pytest.fixture(scope="module")
def image():
    """Three organs of different brightness and size in a body, and air around it."""
    generator = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE)
    image = np.full(SHAPE, -2.0)
    image[:, 4:36, 4:28] = 0.0
    image[(z - 12) ** 2 + (y - 14) ** 2 + (x - 14) ** 2 < 49] = 2.0
    image[6:11, 26:32, 10:14] = -1.0
    image += 0.05 * generator.standard_normal(SHAPE)
    return image.astype(np.float32)


def drawn(image, n, seed=0):
    generator = np.random.default_rng(seed)
    return [some_structure(image, generator) for _ in range(n)]


def test_structures_are_single_pieces_of_every_size(image):
    found = [mask for mask in drawn(image, 60) if mask is not None]
    assert len(found) > 30
    sizes = np.array([mask.sum() for mask in found])
    assert sizes.min() >= 40
    assert sizes.max() <= image.size / 3
    assert np.percentile(sizes, 10) < 500 < np.percentile(sizes, 75)
    for mask in found:
        assert mask.shape == SHAPE
        assert ndimage.label(mask)[1] == 1


def test_an_organ_that_stands_out_is_found(image):
    ball = image > 1.0
    best = max(
        2 * (mask & ball).sum() / (mask.sum() + ball.sum())
        for mask in drawn(image, 80)
        if mask is not None
    )
    assert best > 0.9


def test_nothing_lies_mostly_in_air(image):
    air = image < -1.5
    for mask in drawn(image, 60, seed=1):
        if mask is not None:
            assert (mask & air).sum() < 0.5 * mask.sum()


def test_the_same_seed_finds_the_same(image):
    for ours, theirs in zip(drawn(image, 5, seed=3), drawn(image, 5, seed=3), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -3.0])
def test_in_a_flat_image_there_is_nothing(value):
    assert some_structure(np.full(SHAPE, value, np.float32), np.random.default_rng(0)) is None
