from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_ka2er.core.prompts import Box, Lasso, Point, Scribble
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.prompt_maps import (
    HIGH_CORNER,
    LOW_CORNER,
    N_DRAWN,
    NEGATIVE,
    PADDING,
    POSITIVE,
    WIDE,
    PromptCanvas,
    maps_of,
    prompt_tensors,
)

SHAPE = (8, 16, 24)
SPACING = (4.0, 1.0, 2.0)  # mean edge 2 mm


@pytest.fixture
def grid() -> Geometry:
    """Voxels of 4 x 1 x 2 mm with y running backwards, shifted."""
    affine = np.diag([4.0, -1.0, 2.0, 1.0])
    affine[:3, 3] = (10.0, 50.0, -7.0)
    return Geometry(SHAPE, affine)


def world(grid, *indices):
    return tuple(tuple(float(v) for v in p) for p in grid.to_world(np.array(indices)))


def distance_mm(*voxels):
    z, y, x = np.indices(SHAPE)
    return np.min(
        [np.sqrt((4.0 * (z - a)) ** 2 + (y - b) ** 2 + (2.0 * (x - c)) ** 2) for a, b, c in voxels],
        axis=0,
    )


def test_nothing_is_drawn_without_prompts(grid):
    tensors = prompt_tensors([], grid)
    assert tensors.points.shape == (1, 0, 3)
    assert tensors.point_labels.shape == (1, 0)
    assert tensors.dense.shape == (1, N_DRAWN, *SHAPE)
    assert not tensors.dense.any()
    assert tensors.focus[0].tolist() == [[3.5, 7.5, 11.5]] * 2


def test_maps_decay_with_the_distance_in_mm(grid):
    (position,) = world(grid, (2, 5, 7))
    dense = maps_of(prompt_tensors([Point(position)], grid).dense)[0].numpy()
    edges = distance_mm((2, 5, 7)) / 2.0
    expected = np.where(edges < 4 * WIDE, np.exp(-edges / WIDE), 0)
    np.testing.assert_allclose(dense[0], expected, atol=1e-6)
    np.testing.assert_allclose(dense[4], expected**4, atol=1e-6)
    assert dense[2, 2, 5, 7] == 1
    assert not dense[[1, 3, 5, 7, 8]].any()


def test_the_newest_prompt_is_told_from_older_ones(grid):
    first, second, third = world(grid, (2, 5, 7), (6, 9, 20), (1, 12, 3))
    prompts = [Point(first), Point(second, positive=False), Point(third)]
    dense = prompt_tensors(prompts, grid).dense[0]
    all_positive, all_negative, newest_positive, newest_negative = dense[:4]
    assert all_positive[2, 5, 7] == all_positive[1, 12, 3] == 1
    assert newest_positive[1, 12, 3] == 1
    assert newest_positive[2, 5, 7] < 0.5
    assert all_negative[6, 9, 20] == 1
    assert not newest_negative.any()


def test_tokens_are_the_voxels_in_order_with_their_signs(grid):
    first, second = world(grid, (2, 5, 7), (6, 9, 20))
    tensors = prompt_tensors([Point(first), Point(second, positive=False)], grid)
    assert tensors.points[0].tolist() == [[2, 5, 7], [6, 9, 20]]
    assert tensors.point_labels[0].tolist() == [POSITIVE, NEGATIVE]
    assert tensors.focus[0].tolist() == [[6, 9, 20], [6, 9, 20]]


def test_a_box_has_two_corners_and_a_map_of_its_inside(grid):
    low, high = world(grid, (1, 12, 3), (5, 4, 9))
    tensors = prompt_tensors([Box(low, high)], grid)
    assert tensors.points[0].tolist() == [[1, 4, 3], [5, 12, 9]]
    assert tensors.point_labels[0].tolist() == [LOW_CORNER, HIGH_CORNER]
    expected = torch.zeros(SHAPE)
    expected[1:6, 4:13, 3:10] = 1
    torch.testing.assert_close(tensors.dense[0, 4], expected)
    assert not tensors.dense[0, :4].any()
    assert tensors.focus[0].tolist() == [[1, 4, 3], [5, 12, 9]]


@pytest.mark.parametrize("kind", [Scribble, Lasso])
def test_strokes_and_fills_are_near_everything_they_cover(grid, kind):
    path = world(grid, (3, 2, 2), (3, 13, 2), (3, 13, 21))
    tensors = prompt_tensors([kind(path, positive=False)], grid)
    covered = np.argwhere(tensors.dense[0, 1].numpy() > 1 - 1e-6)
    assert (3, 13, 21) in map(tuple, covered)
    np.testing.assert_allclose(
        tensors.dense[0, 1].numpy(),
        np.exp(-np.minimum(distance_mm(*covered) / 2.0, 4 * WIDE) / WIDE),
        atol=1e-5,
    )
    assert tensors.point_labels[0].tolist() == [NEGATIVE] * 4
    assert tensors.focus[0].tolist() == [[3, 2, 2], [3, 13, 21]]


def test_few_and_many_voxels_get_the_same_distances():
    few = torch.cartesian_prod(torch.arange(2, 5), torch.arange(3, 7), torch.arange(4, 9))
    canvases = [PromptCanvas(1, SHAPE, SPACING) for _ in range(2)]
    canvases[0].draw(0, few, True)
    canvases[1].draw(0, few.repeat(2, 1), True)  # 120 voxels go through the distance transform
    a, b = (canvas.tensors().dense for canvas in canvases)
    torch.testing.assert_close(a, b)


def test_a_prompt_outside_is_not_newest_and_leaves_older_ones(grid):
    inside, outside = world(grid, (2, 5, 7), (2, 5, 70))
    tensors = prompt_tensors([Point(inside), Point(outside)], grid)
    assert tensors.dense[0, 0, 2, 5, 7] == 1
    assert not tensors.dense[0, 2:4].any()
    assert tensors.points.shape == (1, 1, 3)


def test_items_of_a_batch_are_drawn_apart_and_padded():
    canvas = PromptCanvas(2, SHAPE, SPACING)
    canvas.draw(1, torch.tensor([[2, 5, 7]]), True)
    before = canvas.tensors()
    canvas.draw(1, torch.tensor([[6, 9, 20]]), False)
    after = canvas.tensors()
    assert before.point_labels.tolist() == [[PADDING], [POSITIVE]]
    assert after.point_labels.tolist() == [[PADDING, PADDING], [POSITIVE, NEGATIVE]]
    assert not after.dense[0].any()
    assert before.dense[1, 2].max() == 1  # earlier tensors are not drawn upon


def test_of_very_many_prompts_the_newest_are_points_and_all_are_in_the_maps(grid):
    voxels = [(i % 8, 5, i % 24) for i in range(40)]
    tensors = prompt_tensors([Point(p) for p in world(grid, *voxels)], grid)
    assert tensors.points[0].tolist() == [list(v) for v in voxels[-32:]]
    assert all(tensors.dense[0, 0][voxel] == 1 for voxel in voxels)
