import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ka2er.core.prompts import Box, Point, Scribble
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.spreading import spread

SHAPE = (20, 24, 28)


def lattice(spacing=(1.0, 1.0, 1.0), shape=SHAPE):
    return Geometry(shape, np.diag([*spacing, 1.0]))


def point(voxel, grid, positive=True):
    z, y, x = grid.to_world(voxel)
    return Point((float(z), float(y), float(x)), positive)


def constant(value, shape=SHAPE):
    return np.full(shape, value, np.float32)


def test_one_click_raises_logits_to_the_margin_but_for_the_noise_and_falls_off_as_a_gaussian():
    grid = lattice()
    new = spread(constant(-1.0), [point((10, 12, 14), grid)], grid)
    bump = 1.3 * (1.5 + 1.0) / (1.3 + 0.3)  # no mask: both Gaussians are narrow
    assert new[10, 12, 14] == pytest.approx(-1 + bump, abs=1e-5)
    assert new[10, 12, 18] == pytest.approx(-1 + bump * math.exp(-0.5), abs=1e-5)
    assert new[12, 15, 14] == pytest.approx(-1 + bump * math.exp(-13 / 32), abs=1e-5)
    assert spread(constant(-1.0), [point((0, 0, 0), grid)], grid)[0, 0, 15] < -0.99  # out of reach


def test_a_part_of_a_click_reaches_as_far_as_the_mask_is_large():
    grid = lattice()
    new = spread(constant(1.0), [point((10, 12, 14), grid, positive=False)], grid)
    radius = (20 * 24 * 28 * 3 / (4 * math.pi)) ** (1 / 3)
    weight = -(1.5 + 1.0) / (1.3 + 0.3)
    wanted = 1 + weight * (math.exp(-64 / 32) + 0.3 * math.exp(-64 / (2 * radius**2)))
    assert new[10, 12, 22] == pytest.approx(wanted, abs=1e-5)


def test_distances_are_those_of_the_patient():
    grid = lattice((4.0, 0.5, 0.5))  # the mean edge is 1 mm
    new = spread(constant(-1.0), [point((10, 12, 14), grid)], grid)
    assert new[11, 12, 14] == pytest.approx(new[10, 20, 14], abs=1e-5)
    assert new[11, 12, 14] == pytest.approx(new[10, 12, 22], abs=1e-5)


def test_a_negative_click_is_the_mirror_image_of_a_positive_one():
    grid, logits = lattice(), constant(1.0)
    logits[:10] = -1.0
    up = spread(logits, [point((3, 4, 5), grid)], grid)
    down = spread(-logits, [point((3, 4, 5), grid, positive=False)], grid)
    np.testing.assert_allclose(up, -down, atol=1e-6)


def test_what_agrees_is_left_as_it_is():
    grid, logits = lattice(), constant(2.0)
    assert spread(logits, [], grid) is logits
    assert spread(logits, [point((3, 4, 5), grid)], grid) is logits
    box = Box((0.0, 0.0, 0.0), (5.0, 5.0, 5.0))
    assert spread(-logits, [box], grid).max() == -2
    beyond = Point((500.0, 0.0, 0.0), positive=False)
    assert spread(logits, [beyond], grid) is logits


def test_a_click_that_agrees_holds_its_place_against_one_nearby():
    grid = lattice()
    wrong, right = point((10, 12, 12), grid), point((10, 12, 16), grid, positive=False)
    alone = spread(constant(-2.0), [wrong], grid)
    both = spread(constant(-2.0), [right, wrong], grid)
    assert both[10, 12, 16] < alone[10, 12, 16]
    assert both[10, 12, 16] < 0 < both[10, 12, 12]


def test_the_newest_word_about_a_voxel_counts():
    grid, voxel = lattice(), (10, 12, 14)
    prompts = [point(voxel, grid), point(voxel, grid, positive=False)]
    np.testing.assert_array_equal(
        spread(constant(1.0), prompts, grid), spread(constant(1.0), prompts[1:], grid)
    )


def test_a_scribble_is_followed_along_its_length_and_costs_no_more_than_some_clicks():
    grid = lattice()
    path = ((10.0, 12.0, 2.0), (10.0, 12.0, 26.0))
    new = spread(constant(-1.0), [Scribble(path)], grid)
    assert (new[10, 12, 2:27] > 0).all()
    assert new[10, 0, 14] < 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 19), st.integers(0, 23), st.integers(0, 27), st.booleans()),
        min_size=1,
        max_size=8,
        unique_by=lambda c: c[:3],
    ),
    st.integers(0, 2**16),
)
def test_logits_stay_finite_and_the_newest_of_far_clicks_is_obeyed(clicks, seed):
    grid = lattice((2.0, 1.0, 0.7))
    logits = np.random.default_rng(seed).uniform(-4, 4, SHAPE).astype(np.float32)
    prompts = [point(c[:3], grid, c[3]) for c in clicks]
    new = spread(logits, prompts, grid)
    assert np.isfinite(new).all()
    assert np.abs(new - logits).max() < 100
    alone = spread(logits, prompts[-1:], grid)
    sign = 1 if clicks[-1][3] else -1
    assert sign * alone[clicks[-1][:3]] > 0
