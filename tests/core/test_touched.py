from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_ka2er.core.prompts import Box, Lasso, Point, Scribble
from napari_ka2er.core.touched import Touched, extent_of, restrict_change, touched_by, voxels_of
from napari_ka2er.core.volume import Geometry

SHAPE = (10, 14, 18)


@pytest.fixture
def oblique() -> Geometry:
    """Voxels of 2 x 1 x 0.5 mm, turned by 30 degrees about z, y running backwards, shifted."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[-c, s], [s, c]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([2.0, 1.0, 0.5])
    affine[:3, 3] = (5.0, -40.0, 12.0)
    return Geometry(SHAPE, affine)


def world(grid, *indices):
    return tuple(tuple(float(v) for v in p) for p in grid.to_world(np.array(indices)))


def test_a_point_is_its_nearest_voxel(oblique):
    (position,) = world(oblique, (3.4, 5.6, 7.2))
    assert voxels_of(Point(position), oblique).tolist() == [[3, 6, 7]]


def test_prompts_outside_the_lattice_touch_nothing(oblique):
    (position,) = world(oblique, (3, 5, 18.6))
    low, high = world(oblique, (-9, -9, -9), (-5, -5, -5))
    prompts = [Point(position), Box(low, high), Scribble((low, high)), Lasso((low, high, position))]
    assert [len(voxels_of(p, oblique)) for p in prompts[:3]] == [0, 0, 0]
    touched = touched_by(prompts[:3], oblique)
    assert not (touched.positive | touched.negative | touched.region).any()


def test_a_box_lies_along_the_axes_of_the_lattice_and_is_cut_to_it(oblique):
    low, high = world(oblique, (2, 12, 3), (-4, 9, 5))
    box = np.zeros(SHAPE, bool)
    box[tuple(voxels_of(Box(low, high), oblique).T)] = True
    expected = np.zeros(SHAPE, bool)
    expected[0:3, 9:13, 3:6] = True
    np.testing.assert_array_equal(box, expected)


def test_the_extent_of_a_prompt_is_the_smallest_box_around_its_voxels(oblique):
    low, high = world(oblique, (2, 12, 3), (-4, 9, 5))
    path = world(oblique, (1, 2, 3), (8, 13, 16))
    away = world(oblique, (-9, -9, -9), (-5, -5, -5))
    for prompt, expected in [
        (Box(low, high), (slice(0, 3), slice(9, 13), slice(3, 6))),
        (Scribble(path), (slice(1, 9), slice(2, 14), slice(3, 17))),
        (Box(*away), (slice(0, 0),) * 3),
        (Scribble(away), (slice(0, 0),) * 3),
    ]:
        assert extent_of(prompt, oblique) == expected


def test_a_click_on_the_far_border_counts_as_in_the_last_voxel():
    grid = Geometry(SHAPE, np.eye(4))
    assert voxels_of(Point((9.5, 13.5, 17.5)), grid).tolist() == [[9, 13, 17]]
    assert voxels_of(Point((-0.5, 0.5, 17.4)), grid).tolist() == [[0, 1, 17]]
    assert not len(voxels_of(Point((9.6, 13.5, 17.5)), grid))


def test_a_scribble_is_connected_and_reaches_both_ends(oblique):
    path = world(oblique, (1, 2, 3), (8, 2, 16), (8, 13, 0))
    voxels = voxels_of(Scribble(path), oblique)
    for end in ([1, 2, 3], [8, 2, 16], [8, 13, 0]):
        assert end in voxels.tolist()
    distances = np.abs(voxels[:, None] - voxels[None]).max(axis=-1)
    assert all((row == 1).any() for row in distances)


def test_a_lasso_encloses_its_polygon_one_voxel_thick(oblique):
    corners = ((4, 2, 3), (4, 9, 3), (4, 9, 12), (4, 2, 12))
    lasso = np.zeros(SHAPE, bool)
    lasso[tuple(voxels_of(Lasso(world(oblique, *corners)), oblique).T)] = True
    expected = np.zeros(SHAPE, bool)
    expected[4, 2:10, 3:13] = True
    np.testing.assert_array_equal(lasso, expected)


def test_a_slanted_lasso_has_no_holes(oblique):
    # The plane z = x / 2: every (y, x) inside must be hit by exactly the voxels nearest to it.
    corners = ((1, 3, 2), (1, 11, 2), (7, 11, 14), (7, 3, 14))
    voxels = voxels_of(Lasso(world(oblique, *corners)), oblique)
    assert {(y, x) for _, y, x in voxels.tolist()} == {
        (y, x) for y in range(3, 12) for x in range(2, 15)
    }
    assert np.abs(voxels[:, 0] - voxels[:, 2] / 2).max() <= 0.5


def test_a_lasso_without_area_is_its_outline(oblique):
    straight = Lasso(world(oblique, (4, 2, 3), (4, 2, 9), (4, 2, 6)))
    assert voxels_of(straight, oblique).tolist() == [[4, 2, x] for x in range(3, 10)]


def test_the_newest_of_two_contrary_prompts_counts(oblique):
    (position,) = world(oblique, (3, 5, 7))
    touched = touched_by([Point(position, True), Point(position, False)], oblique)
    assert not touched.positive.any()
    assert np.argwhere(touched.negative).tolist() == [[3, 5, 7]]


def test_a_box_opens_a_region_and_a_negative_one_clears_it(oblique):
    low, high = world(oblique, (2, 2, 2), (3, 3, 3))
    assert touched_by([Box(low, high)], oblique).region.sum() == 8
    assert touched_by([Box(low, high, positive=False)], oblique).negative.sum() == 8


def masks_of(*voxels):
    mask = np.zeros((1, 1, 12), bool)
    mask[0, 0, list(voxels)] = True
    return mask


NOTHING = masks_of()


@pytest.mark.parametrize(
    ("new", "positive", "negative", "expected"),
    [
        # previous is voxels 4, 5, 6; "new" adds at 2-3 and 9-10 and removes 6
        ((2, 3, 4, 5, 9, 10), (3,), (), (2, 3, 4, 5, 6)),  # only the touched addition
        ((2, 3, 4, 5, 9, 10), (11,), (), (4, 5, 6, 9, 10, 11)),  # next to it counts as touching
        ((2, 3, 4, 5, 9, 10), (), (6,), (4, 5)),  # only the touched removal
        ((4, 5, 6), (0,), (), (0, 4, 5, 6)),  # what is clicked is in, whatever the network says
        ((4, 5, 6), (), (5,), (4, 6)),  # and out
        ((2, 3), (5,), (), (4, 5, 6)),  # a positive click removes nothing
        ((4, 5, 6, 9, 10), (5,), (), (4, 5, 6)),  # a click on what is right changes nothing
        ((), (), (), (4, 5, 6)),  # no prompt, no change
    ],
)
def test_only_what_is_touched_changes(new, positive, negative, expected):
    touched = Touched(masks_of(*positive), masks_of(*negative), NOTHING)
    changed = restrict_change(masks_of(4, 5, 6), masks_of(*new), touched)
    np.testing.assert_array_equal(changed, masks_of(*expected))


def test_everything_in_a_box_may_change_and_nothing_out_of_it():
    touched = Touched(NOTHING, NOTHING, masks_of(4, 5, 6, 7, 8))
    changed = restrict_change(masks_of(2, 3, 4), masks_of(6, 7, 8, 9), touched)
    np.testing.assert_array_equal(changed, masks_of(2, 3, 6, 7, 8))


def test_masks_of_different_shapes_are_refused():
    touched = Touched(NOTHING, NOTHING, NOTHING)
    with pytest.raises(ValueError, match="one shape"):
        restrict_change(np.zeros((1, 1, 11), bool), NOTHING, touched)


@given(st.integers(0, 2**32 - 1))
def test_prompts_are_obeyed_and_changes_lie_between_the_two_masks(seed):
    rng = np.random.default_rng(seed)
    previous, new = rng.random((2, 4, 5, 6)) < 0.5
    kind = rng.integers(0, 12, (4, 5, 6))
    positive, negative = kind == 0, kind == 1
    touched = Touched(positive, negative, kind == 2)
    changed = restrict_change(previous, new, touched)
    assert changed[positive].all()
    assert not changed[negative].any()
    free = ~positive & ~negative
    assert (((changed == previous) | (changed == new)) | ~free).all()
