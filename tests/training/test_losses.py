import math

import pytest
import torch

from ka2er_training.losses import (
    alignment_loss,
    collapse_loss,
    distillation_loss,
    routing_loss,
    segmentation_loss,
)
from napari_ka2er.model.amalgamation import CoarseResult


def volume(*values):
    return torch.tensor(values).view(1, 1, 1, 1, -1)


def test_segmentation_loss_by_hand():
    # Probabilities are ½ everywhere: entropy ln 2; Dice 1 - (2·½ + 1) / (1 + 1 + 1) = ⅓.
    loss = segmentation_loss(volume(0.0, 0.0), volume(1.0, 0.0), volume(1.0, 1.0))
    assert loss.item() == pytest.approx(math.log(2) + 1 / 3, abs=1e-6)


def test_foreground_weighs_more_in_the_cross_entropy():
    loss = segmentation_loss(volume(0.0, 0.0), volume(1.0, 0.0), volume(1.0, 1.0), 3.0)
    assert loss.item() == pytest.approx(2 * math.log(2) + 1 / 3, abs=1e-6)


def test_voxels_that_nobody_annotated_teach_nothing():
    logits = torch.zeros(1, 1, 1, 1, 3, requires_grad=True)
    segmentation_loss(logits, volume(1.0, 0.0, 1.0), volume(1.0, 1.0, 0.0)).backward()
    assert logits.grad[0, 0, 0, 0, 2] == 0
    assert logits.grad[0, 0, 0, 0, 0] < 0
    assert segmentation_loss(logits, volume(1.0, 0.0, 1.0), volume(0.0, 0.0, 0.0)) == 0


def test_distillation_listens_only_where_the_expert_is_sure():
    logits = torch.zeros(1, 1, 1, 1, 2, requires_grad=True)
    distillation_loss(logits, volume(0.5, 0.9), volume(1.0, 1.0)).backward()
    assert logits.grad[0, 0, 0, 0, 0] == 0
    assert logits.grad[0, 0, 0, 0, 1] < 0


def test_alignment_is_zero_for_perfect_guesses_and_ignores_what_lies_outside():
    truth = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])
    guess = truth.clone()
    guess[0, 1] += 5  # the second token lies outside the expert's field
    result = CoarseResult(torch.zeros(1), torch.zeros(1), [guess], [truth])
    inside = torch.tensor([True, False]).view(1, 1, 1, 1, 2)
    assert alignment_loss({8: result}, {8: inside}).item() == pytest.approx(0, abs=1e-6)
    everywhere = torch.ones(1, 1, 1, 1, 2, dtype=torch.bool)
    assert alignment_loss({8: result}, {8: everywhere}).item() > 0.5


def test_routing_by_hand():
    level = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1, 1)
    other = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
    assert routing_loss([level], 1).item() == pytest.approx(math.log(2))
    assert routing_loss([level, other], 0).item() == pytest.approx(math.log(5) / 2)


def test_collapse_costs_only_under_the_floor():
    weights = torch.tensor([0.0, 0.98, 0.02]).view(1, 3, 1, 1, 1)
    assert collapse_loss(weights, floor=0.02).item() == pytest.approx(1 / 3)
