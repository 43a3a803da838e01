from __future__ import annotations

import dataclasses

import pytest
import torch

from ka2er_training.click_simulation import Habits, Masks, draw_box, draw_prompts
from ka2er_training.clicks import ClickBatch, Mixture, click_step
from napari_ka2er.model.likeness import values_at
from napari_ka2er.model.mask_decoder import MaskDecoder
from napari_ka2er.model.mask_logits import LIMIT
from napari_ka2er.model.prompt_encoder import PromptEncoder
from napari_ka2er.model.prompt_maps import NEGATIVE, PADDING, POSITIVE, PromptCanvas

SHAPE = (16, 24, 32)
ONLY_CLICKS = Habits(stroke=0, lasso=0, careless=0, box=0)


def box_mask(*slices):
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[(0, 0, *slices)] = True
    return mask


OBJECT = box_mask(slice(4, 13), slice(5, 14), slice(6, 15))
EVERYWHERE = torch.ones_like(OBJECT)


def drawn(shown, wanted, valid=EVERYWHERE, habits=ONLY_CLICKS, seed=0):
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    draw_prompts(canvas, Masks(shown, wanted, valid), habits, torch.Generator().manual_seed(seed))
    return canvas.tensors()


def test_a_missed_object_is_clicked_in_its_middle():
    prompts = drawn(torch.zeros_like(OBJECT), OBJECT)
    assert prompts.point_labels.tolist() == [[POSITIVE]]
    assert (prompts.points[0, 0] - torch.tensor([8.0, 9.0, 10.0])).abs().max() <= 1


def test_the_larger_error_is_clicked_with_the_right_sign():
    surplus = box_mask(slice(2, 14), slice(16, 23), slice(20, 29))
    missed = box_mask(slice(4, 6), slice(5, 14), slice(6, 15))
    prompts = drawn((OBJECT & ~missed) | surplus, OBJECT)
    assert prompts.point_labels.tolist() == [[NEGATIVE]]
    z, y, x = prompts.points[0, 0].long().tolist()
    assert surplus[0, 0, z, y, x]


def test_clicks_on_a_right_mask_confirm_it():
    labels = []
    for seed in range(20):
        prompts = drawn(OBJECT, OBJECT, habits=Habits(careless=1.0), seed=seed)
        z, y, x = prompts.points[0, 0].long().tolist()
        assert bool(OBJECT[0, 0, z, y, x]) == (prompts.point_labels[0, 0] == POSITIVE)
        labels.append(int(prompts.point_labels[0, 0]))
    assert set(labels) == {NEGATIVE, POSITIVE}


def test_nobody_clicks_where_nothing_is_known():
    half = EVERYWHERE.clone()
    half[..., 10:] = False
    for seed in range(5):
        assert drawn(~OBJECT, OBJECT, half, seed=seed).points[0, 0, 2] < 10
    assert drawn(~OBJECT, OBJECT, ~EVERYWHERE).points.shape == (1, 0, 3)


@pytest.mark.parametrize("habits", [Habits(stroke=1), Habits(stroke=0, lasso=1)])
def test_strokes_and_lassos_stay_in_the_error(habits):
    for seed in range(5):
        prompts = drawn(torch.zeros_like(OBJECT), OBJECT, habits=habits, seed=seed)
        covered = prompts.dense[:, 0:1] > 1 - 1e-6
        assert covered.sum() > 3
        assert not (covered & ~OBJECT).any()


def test_a_box_lies_around_the_object_or_nowhere():
    canvas = PromptCanvas(2, SHAPE, (1.0, 1.0, 1.0))
    for item, mask in enumerate((OBJECT, ~EVERYWHERE)):
        draw_box(canvas, item, mask[0, 0], torch.Generator().manual_seed(0))
    prompts = canvas.tensors()
    inside = prompts.dense[0, 4].bool()
    assert (OBJECT[0, 0] & inside).sum() > 0.7 * OBJECT.sum()
    assert inside.sum() < 4 * OBJECT.sum()
    assert prompts.point_labels[1].tolist() == [PADDING, PADDING]


class Head(torch.nn.Module):
    """Prompt encoder and mask decoder on features that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(16, 4)
        self.mask_decoder = MaskDecoder(16, 4, 4, box=32)
        self.class_tokens = torch.nn.Embedding(3, 16)
        self.seen: list[dict] = []

    def forward(self, *, gold, dense, image, previous, previous_known, prompts, output):
        self.seen.append({"previous": previous, "known": previous_known, "output": output})
        return self.mask_decoder(
            gold=gold,
            dense_embedding=dense,
            image=image,
            previous=previous,
            previous_known=previous_known,
            sparse=self.prompt_encoder(prompts, SHAPE, values_at(dense, prompts.points, 2)),
            class_token=self.class_tokens(output),
            prompts=prompts,
        )


def batch_of(n: int, generator: torch.Generator) -> ClickBatch:
    """Bright boxes; the automatic result knows but half of each."""
    target = OBJECT.float().expand(n, *OBJECT.shape[1:]).clone()
    automatic = torch.where(target > 0, 2.0, -2.0)
    automatic[:, :, 8:] = -2.0
    return ClickBatch(
        gold=torch.zeros(n, 16, 2, 3, 4),
        dense=torch.zeros(n, 4, 8, 12, 16),
        image=target + 0.1 * torch.randn(target.shape, generator=generator),
        automatic=automatic,
        target=target,
        valid=torch.ones_like(target, dtype=torch.bool),
        output=torch.ones(n, dtype=torch.long),
        any_output=2,
        spacing_mm=(1.0, 1.0, 1.0),
    )


@pytest.fixture
def head() -> Head:
    torch.manual_seed(0)
    return Head()


def test_every_click_is_put_to_the_mask_that_the_one_before_led_to(head):
    generator = torch.Generator().manual_seed(0)
    mixture = Mixture(corrupted=0, disagreeing=0, right=0, unknown=1, any_structure=1)
    torch.nn.init.normal_(head.mask_decoder.refinement.head.weight)  # or it may find nothing
    terms = click_step(head, batch_of(2, generator), generator, 3, mixture)
    assert set(terms) == {"click_voxels", "click_gap", "click_dice"}
    assert [s["known"].tolist() for s in head.seen] == [[False] * 2, [True] * 2, [True] * 2]
    assert head.seen[0]["output"].tolist() == [2, 2]
    assert not head.seen[1]["previous"].requires_grad
    assert not torch.equal(head.seen[1]["previous"], head.seen[0]["previous"])


def test_an_untrained_decoder_closes_no_gap(head):
    generator = torch.Generator().manual_seed(0)
    mixture = Mixture(corrupted=0, disagreeing=0, right=0, unknown=0, bare=1)
    terms = click_step(head, batch_of(2, generator), generator, 2, mixture)
    # More than 1: a bare mask counts as less certain than the truth it is compared with.
    assert 0.95 < terms["click_gap"].item() < 1.3


def test_a_window_without_annotation_teaches_nothing_about_voxels(head):
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(1, generator)
    batch.valid[:] = False
    terms = click_step(head, batch, generator, 1)
    assert terms["click_voxels"].item() == 0


def test_a_right_mask_is_the_start_and_the_goal(head):
    generator = torch.Generator().manual_seed(0)
    click_step(head, batch_of(3, generator), generator, 1, Mixture(0, 0, right=1, unknown=0))
    for previous in head.seen[0]["previous"]:
        assert torch.equal(previous > 0, OBJECT[0])


def foreign(n: int, generator: torch.Generator) -> ClickBatch:
    """The same boxes, but nobody has a name for them."""
    named = batch_of(n, generator)
    nowhere = torch.full_like(named.automatic, -LIMIT)
    return dataclasses.replace(named, output=torch.full((n,), 2), automatic=nowhere)


def test_structures_without_a_name_begin_with_nothing_and_are_asked_for_as_any(head):
    generator = torch.Generator().manual_seed(0)
    click_step(head, foreign(3, generator), generator, 1, Mixture(begun=0))
    assert head.seen[0]["output"].tolist() == [2, 2, 2]
    assert not head.seen[0]["known"].any()
    assert not (head.seen[0]["previous"] > 0).any()


def test_structures_without_a_name_that_are_begun_show_the_truth_with_errors(head):
    generator = torch.Generator().manual_seed(0)
    click_step(head, foreign(8, generator), generator, 1, Mixture(begun=1))
    assert head.seen[0]["known"].all()
    shown = (head.seen[0]["previous"] > 0).flatten(1)
    overlap = (shown & OBJECT.flatten()).sum(1) / OBJECT.sum()
    assert (overlap > 0.3).all()


def test_the_same_seed_means_the_same_losses(head):
    losses = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        losses.append(click_step(head, batch_of(2, generator), generator, 2))
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_clicks_learn_to_close_the_gap(head):
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(head.parameters(), 5e-3)
    gaps = []
    for _ in range(60):
        terms = click_step(head, batch_of(2, generator), generator, 2)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        gaps.append(terms["click_gap"].item())
    assert sum(gaps[-10:]) < 0.6 * sum(gaps[:10])
