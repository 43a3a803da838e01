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
from napari_ka2er.model.alignment import ABSENT, HALLUCINATED, REAL
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
    real = torch.tensor([[REAL]])
    assert alignment_loss({8: result}, {8: inside}, real).item() == pytest.approx(0, abs=1e-6)
    everywhere = torch.ones(1, 1, 1, 1, 2, dtype=torch.bool)
    assert alignment_loss({8: result}, {8: everywhere}, real).item() > 0.5


def opposite(n_experts, batch=1):
    """Guesses of two tokens, and truths that are their negatives.

    Half of one minus a cosine of -1, and half of a smooth L1 of 2 - 1/2: a loss of 1.75.
    """
    guesses = [torch.ones(batch, 2, 3, requires_grad=True) for _ in range(n_experts)]
    truths = [-torch.ones(batch, 2, 3) for _ in range(n_experts)]
    return guesses, CoarseResult(torch.zeros(1), torch.zeros(1), guesses, truths)


@pytest.mark.parametrize("other", [HALLUCINATED, ABSENT])
def test_an_expert_that_has_not_run_teaches_its_hallucinator_nothing(other):
    guesses, result = opposite(2)
    masks = {8: torch.ones(1, 2, 1, 1, 2, dtype=torch.bool)}
    loss = alignment_loss({8: result}, masks, torch.tensor([[REAL, other]]))
    loss.backward()
    assert loss.item() == pytest.approx(1.75)  # not half of it: the mean is over what was taught
    assert guesses[0].grad.abs().min() > 0
    assert not guesses[1].grad.any()


def test_without_real_experts_there_is_nothing_to_align_and_a_gradient_of_zero():
    guesses, result = opposite(2)
    masks = {8: torch.ones(1, 2, 1, 1, 2, dtype=torch.bool)}
    loss = alignment_loss({8: result}, masks, torch.tensor([[HALLUCINATED, ABSENT]]))
    loss.backward()
    assert loss.item() == 0
    assert not any(guess.grad.any() for guess in guesses)


def test_strides_at_which_an_expert_sees_nothing_do_not_count():
    (_, coarse), (_, fine) = opposite(1), opposite(1)
    inside = torch.ones(1, 1, 1, 1, 2, dtype=torch.bool)
    masks = {16: ~inside, 8: inside}
    loss = alignment_loss({16: coarse, 8: fine}, masks, torch.tensor([[REAL]]))
    assert loss.item() == pytest.approx(1.75)


def test_of_a_batch_only_windows_that_the_expert_has_seen_are_read():
    (guess,), result = opposite(1, batch=2)
    result.standardised[0][1] = torch.nan
    masks = {8: torch.ones(2, 1, 1, 1, 2, dtype=torch.bool)}
    loss = alignment_loss({8: result}, masks, torch.tensor([[REAL], [HALLUCINATED]]))
    loss.backward()
    assert loss.item() == pytest.approx(1.75)
    assert guess.grad[0].abs().min() > 0
    assert not guess.grad[1].any()


def test_routing_by_hand():
    level = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1, 1)
    other = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1, 1)
    assert routing_loss([level], 1).item() == pytest.approx(math.log(2))
    assert routing_loss([level, other], 0).item() == pytest.approx(math.log(5) / 2)


def test_collapse_costs_only_under_the_floor():
    weights = torch.tensor([0.0, 0.98, 0.02]).view(1, 3, 1, 1, 1)
    assert collapse_loss(weights, floor=0.02).item() == pytest.approx(1 / 3)
