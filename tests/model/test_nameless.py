"""Structures that the student has no name for: boxes, and which part of a mask is meant."""

from __future__ import annotations

import numpy as np
import pytest

from napari_ka2er.core.prompts import Box, Point, Scribble
from napari_ka2er.core.volume import Geometry, Volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.nameless import (
    centre_of,
    newest_box,
    own_pieces,
    room_of,
    with_centres,
)
from napari_ka2er.model.predictor import Predictor

SHAPE = (12, 60, 70)


@pytest.fixture
def grid() -> Geometry:
    """Voxels of 3 x 1 x 1.5 mm, turned by 20 degrees about z, y running backwards."""
    c, s = np.cos(np.pi / 9), np.sin(np.pi / 9)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[-c, s], [s, c]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([3.0, 1.0, 1.5])
    affine[:3, 3] = (5.0, -40.0, 12.0)
    return Geometry(SHAPE, affine)


def at(grid, voxel):
    z, y, x = grid.to_world(voxel)
    return float(z), float(y), float(x)


def box(grid, low, high):
    return Box(at(grid, low), at(grid, high))


def bounds(region):
    return [(part.start, part.stop) for part in region]


def test_a_box_is_followed_by_a_click_in_its_middle(grid):
    drawn = box(grid, (4, 10, 20), (4, 30, 50))
    click = Point(at(grid, (4, 5, 5)), positive=False)
    asked = with_centres([drawn, click], grid)
    assert asked == [drawn, centre_of(drawn), click]
    np.testing.assert_allclose(grid.to_index(centre_of(drawn).position_mm), (4, 20, 35), atol=1e-6)


def test_what_says_no_is_no_box_around_anything(grid):
    no = Box(at(grid, (4, 10, 20)), at(grid, (4, 30, 50)), positive=False)
    assert with_centres([no], grid) == [no]
    assert newest_box([no], grid) is None


def test_a_box_in_one_slice_leaves_the_other_slices_open(grid):
    assert bounds(room_of(box(grid, (4, 10, 20), (4, 30, 50)), grid)) == [
        (0, 12),
        (10, 31),
        (20, 51),
    ]
    assert bounds(room_of(box(grid, (4, 10, 20), (7, 30, 50)), grid)) == [
        (4, 8),
        (10, 31),
        (20, 51),
    ]


def test_boxes_in_two_slices_of_one_structure_are_one_that_spans_both(grid):
    drawn = [box(grid, (2, 10, 20), (2, 30, 50)), box(grid, (9, 5, 25), (9, 28, 40))]
    spanning = newest_box(drawn, grid)
    assert bounds(room_of(spanning, grid)) == [(2, 10), (5, 31), (20, 51)]


@pytest.mark.parametrize(
    ("low", "high"),
    [((9, 40, 20), (9, 50, 50)), ((3, 15, 25), (8, 25, 35))],  # beside the first one; no slice
)
def test_a_box_around_something_else_stands_alone(grid, low, high):
    other = box(grid, low, high)
    assert newest_box([box(grid, (2, 10, 20), (2, 30, 50)), other], grid) == other


def test_only_pieces_at_prompts_and_near_the_newest_are_the_mask_so_far(grid):
    mask = np.zeros(SHAPE, bool)
    mask[3:6, 5:10, 5:10] = True  # clicked now
    mask[3:6, 20:25, 5:10] = True  # near it, but no prompt's
    mask[3:6, 50:55, 60:65] = True  # clicked before, far away
    prompts = [Point(at(grid, (4, 52, 62))), Point(at(grid, (4, 10, 7)))]
    own = np.zeros(SHAPE, bool)
    own[3:6, 5:10, 5:10] = True
    np.testing.assert_array_equal(own_pieces(mask, prompts, grid), own)
    assert not own_pieces(np.zeros(SHAPE, bool), prompts, grid).any()


# Untrained, the mask decoder is a rule: what is near a click and like it.


@pytest.fixture(scope="module")
def loaded(student_folder):
    return load_student(student_folder)


@pytest.fixture
def volume() -> Volume:
    """Two bright bars in the dark, along z, noisy."""
    data = np.random.default_rng(0).normal(0, 0.02, (1, 40, 64, 60)).astype(np.float32)
    for y in (10, 44):
        data[0, 4:36, y : y + 10, 20:32] += 1
    return Volume(data, np.diag([1.0, 1.0, 1.0, 1.0]))


@pytest.fixture
def predictor(loaded, volume, tmp_path):
    made = Predictor(loaded, "distilled", tmp_path)
    made.set_volume(volume)
    return made


def answered(predictor, prompts, previous=None):
    mask = np.zeros(predictor.volume.shape, bool) if previous is None else previous.copy()
    result = predictor.prompt("two", None, prompts, previous)
    mask[result.box] = result.mask
    return mask


def test_a_box_alone_is_answered_within_its_sides_and_in_other_slices_too(predictor):
    grid = predictor.volume.geometry
    mask = answered(predictor, [box(grid, (20, 8, 18), (20, 56, 33))])
    assert mask[20].any()
    assert mask[19].any()
    _, y, x = np.nonzero(mask)
    assert y.min() >= 8
    assert x.min() >= 18
    assert y.max() <= 56
    assert x.max() <= 33


def test_the_next_structure_is_answered_as_if_there_were_none_before(predictor):
    grid = predictor.volume.geometry
    click = Point(at(grid, (20, 48, 26)))
    alone = answered(predictor, [click])
    other = np.zeros(predictor.volume.shape, bool)
    other[10:30, 10:20, 20:32] = True
    np.testing.assert_array_equal(answered(predictor, [click], other), alone | other)


def test_a_second_box_replaces_what_the_first_had_found(predictor):
    grid = predictor.volume.geometry
    first = box(grid, (8, 8, 18), (8, 22, 33))
    begun = answered(predictor, [first])
    assert begun[:8].any()
    other = begun.copy()
    other[30:34, 50:54, 40:44] = True  # another structure of the label
    both = answered(predictor, [first, box(grid, (14, 8, 18), (14, 22, 33))], other)
    assert both[11].any()
    assert not both[:8].any()
    assert not both[15:, :40].any()
    assert both[30:34, 50:54, 40:44].all()


def test_beyond_the_decoded_region_only_what_was_declared_changes(loaded, tmp_path):
    data = np.random.default_rng(0).normal(0, 0.02, (1, 16, 32, 480)).astype(np.float32)
    data[0, 4:12, 12:20] += 1
    volume = Volume(data, np.eye(4))
    predictor = Predictor(loaded, "distilled", tmp_path)
    predictor.set_volume(volume)
    path = (at(volume.geometry, (8, 16, 2)), at(volume.geometry, (8, 16, 478)))
    result = predictor.prompt("one", None, [Scribble(path)])
    mask = np.zeros(volume.shape, bool)
    mask[result.box] = result.mask
    here = [part.start * 2 for part in result.roi], [part.stop * 2 for part in result.roi]
    ends = np.concatenate(
        [mask[..., : max(here[0][2] - 1, 0)], mask[..., here[1][2] + 1 :]], axis=-1
    )
    assert mask[8, 16, 2:479].all()
    assert ends.sum() == ends[8, 16].sum()
