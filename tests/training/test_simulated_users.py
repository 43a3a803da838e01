from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ka2er_training.simulated_users import (
    Click,
    DeepestErrorUser,
    JitteredUser,
    click_largest_error,
    correct,
    depth_of,
    largest_component,
)

REFERENCE = Path(__file__).parents[3] / "shared" / "tools" / "sim_user.py"


def box_mask(*slices):
    """A mask of (8, 12, 16) with one box."""
    mask = np.zeros((8, 12, 16), bool)
    mask[slices] = True
    return mask


def random_masks(seed):
    """Two similar masks with errors of all sizes."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(9, 11, 13))
    for axis in range(3):
        smooth = smooth + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)
    gt = smooth > 0
    return gt ^ (np.abs(smooth) < rng.uniform(0, 3)), gt


@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.exists():
        pytest.skip(f"needs the reference protocol in {REFERENCE}")
    spec = importlib.util.spec_from_file_location("sim_user", REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 0.5)])
def test_the_challenges_rule_is_the_references(reference, spacing):
    for seed in range(30):
        mask, gt = random_masks(seed)
        assert click_largest_error(mask, gt, spacing) == reference.next_click_cvpr25(
            mask, gt, spacing
        )
    assert reference.next_click_cvpr25(gt, gt) is click_largest_error(gt, gt) is None


@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 0.5)])
def test_the_ritm_rule_is_the_references(reference, spacing):
    for seed in range(30):
        mask, gt = random_masks(seed)
        valid = np.random.default_rng(seed).random(gt.shape) < 0.9
        user, not_clicked = DeepestErrorUser(spacing, valid), np.ones(gt.shape, bool)
        for _ in range(6):
            expected = reference.next_click_ritm(mask, gt, not_clicked, valid, spacing)
            assert user(mask, gt) == expected


def test_the_middle_of_the_largest_error_is_clicked():
    gt = box_mask(slice(1, 6), slice(2, 7), slice(2, 7))
    missed = gt & ~box_mask(slice(1, 2), slice(2, 3), slice(2, 3))
    surplus = missed | box_mask(slice(3, 6), slice(8, 11), slice(10, 13))
    assert click_largest_error(surplus, gt) == Click((4, 9, 11), False)
    assert click_largest_error(np.zeros_like(gt), gt) == Click((3, 4, 4), True)


def test_depth_counts_the_array_border_as_outside():
    depth = depth_of(box_mask(slice(0, 3), slice(0, 12), slice(0, 16)), (2.0, 1.0, 1.0))
    assert depth[0, 5, 8] == 2.0
    assert depth[1, 5, 8] == 4.0
    assert not depth_of(np.zeros((2, 3, 4), bool)).any()


def test_the_largest_component_joins_corners_and_may_be_empty():
    mask = np.zeros((3, 3, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[0, 0, 5] = True
    assert np.argwhere(largest_component(mask)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert not largest_component(mask & False).any()


def test_the_ritm_user_never_clicks_twice_and_stops():
    gt = box_mask(slice(2, 3), slice(3, 4), slice(4, 7))
    user = DeepestErrorUser()
    clicks = [user(np.zeros_like(gt), gt) for _ in range(4)]
    assert [c and c.voxel for c in clicks] == [(2, 3, 4), (2, 3, 5), (2, 3, 6), None]


def test_an_unsteady_hand_stays_in_the_error_and_sometimes_takes_the_wrong_button():
    gt = box_mask(slice(1, 7), slice(2, 10), slice(2, 14))
    user = JitteredUser(np.random.default_rng(0), (2.0, 1.0, 1.0), p_wrong=0.2)
    clicks = [user(np.zeros_like(gt), gt) for _ in range(200)]
    assert all(gt[c.voxel] for c in clicks)
    assert len({c.voxel for c in clicks}) > 30
    assert 20 < sum(not c.positive for c in clicks) < 60
    assert user(gt, gt) is None


def test_a_user_corrects_until_content():
    gt = box_mask(slice(1, 4), slice(2, 5), slice(3, 6))
    start = np.zeros_like(gt)
    seen = []

    def answer(mask, clicks):
        seen.append(len(clicks))
        return gt if len(clicks) == 2 else mask

    masks = correct(answer, start, gt, click_largest_error, n_clicks=4)
    assert [int(m.sum()) for m in masks] == [0, 0, 27, 27, 27]
    assert seen == [1, 2]
