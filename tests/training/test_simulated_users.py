from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ka2er_training.simulated_users import (
    Click,
    DeepestErrorUser,
    JitteredUser,
    click_largest_error,
    correct,
    depth_of,
    largest_component,
)

SHAPE = (9, 11, 13)


def box_mask(*slices):
    """A mask of (8, 12, 16) with one box."""
    mask = np.zeros((8, 12, 16), bool)
    mask[slices] = True
    return mask


def unpacked(text):
    """The mask that reference_clicks.json holds as packed bits."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))
    return bits[: np.prod(SHAPE)].reshape(SHAPE).astype(bool)


@dataclass(frozen=True)
class Dialogue:
    """Two masks, and what the reference of both protocols answered."""

    mask: np.ndarray
    gt: np.ndarray
    valid: np.ndarray
    spacing: tuple[float, float, float] | None
    answers: dict[str, Any]


def dialogues():
    """Random masks with errors of all sizes and a line of three voxels, at two spacings each."""
    text = Path(__file__).with_name("reference_clicks.json").read_text("utf-8")
    for case in json.loads(text)["cases"]:
        mask, gt, valid = (unpacked(case[name]) for name in ("mask", "gt", "valid"))
        for answers in case["answers"]:
            spacing = answers["spacing"]
            yield Dialogue(mask, gt, valid, spacing and tuple(spacing), answers)


def click(answer):
    """The click that an answer (z, y, x, positive) stands for; None if there is none."""
    return answer and Click(tuple(answer[:3]), answer[3])


def test_the_challenges_rule_is_the_references():
    asked = list(dialogues())
    assert len(asked) == 26
    for told in asked:
        found = click_largest_error(told.mask, told.gt, told.spacing)
        assert found == click(told.answers["cvpr25"])
    assert click_largest_error(told.gt, told.gt) is None


def test_the_ritm_rule_is_the_references():
    for told in dialogues():
        user = DeepestErrorUser(told.spacing, told.valid)
        found = [user(told.mask, told.gt) for _ in told.answers["ritm"]]
        assert found == [click(answer) for answer in told.answers["ritm"]]


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
