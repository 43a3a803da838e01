from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_ka2er.model.mask_decoder import MaskDecoder
from napari_ka2er.model.mask_logits import LIMIT, logits_of, squash
from napari_ka2er.model.prompt_maps import (
    N_DRAWN,
    NEGATIVE,
    POSITIVE,
    PromptCanvas,
    PromptTensors,
)

SHAPE = (40, 48, 56)


@pytest.fixture
def decoder() -> MaskDecoder:
    torch.manual_seed(0)
    return MaskDecoder(24, 8, 4, box=16).eval()


def scene(batch_size: int = 2, shape: tuple[int, int, int] = SHAPE) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def random(*size):
        return torch.randn(*size, generator=generator)

    middle = torch.tensor([[n // 2 for n in shape]] * 2, dtype=torch.float32)
    return {
        "gold": random(batch_size, 24, *(n // 8 for n in shape)),
        "dense_embedding": random(batch_size, 8, *(n // 2 for n in shape)),
        "image": random(batch_size, 1, *shape),
        "previous": 5 * random(batch_size, 1, *shape),
        "previous_known": torch.ones(batch_size, dtype=torch.bool),
        "sparse": random(batch_size, 3, 24),
        "class_token": random(batch_size, 24),
        "prompts": PromptTensors(
            middle.expand(batch_size, 2, 3) + torch.tensor([[0.0], [3.0]]),
            torch.tensor([[POSITIVE, NEGATIVE]]).expand(batch_size, 2),
            random(batch_size, N_DRAWN, *shape).sigmoid(),
            middle.expand(batch_size, 2, 3).clone(),
        ),
    }


def item_of(value: torch.Tensor | PromptTensors, item: int) -> torch.Tensor | PromptTensors:
    if isinstance(value, torch.Tensor):
        return value[item : item + 1]
    parts = (value.points, value.point_labels, value.dense, value.focus)
    return PromptTensors(*(part[item : item + 1] for part in parts))


def awaken(decoder: MaskDecoder) -> MaskDecoder:
    """Give the zero-initialised head weights, so that there is a change to look at."""
    torch.nn.init.normal_(decoder.refinement.head.weight)
    return decoder


def test_an_untrained_decoder_returns_the_previous_mask(decoder):
    inputs = scene()
    logits, predicted = decoder(**inputs)
    torch.testing.assert_close(logits, squash(inputs["previous"]))
    torch.testing.assert_close(logits > 0, inputs["previous"] > 0)
    assert predicted.shape == (2,)
    assert ((predicted > 0) & (predicted < 1)).all()


def test_without_a_previous_mask_the_kernel_decides_and_previous_is_ignored(decoder):
    inputs = scene()
    inputs["previous_known"] = torch.tensor([True, False])
    logits, _ = awaken(decoder)(**inputs)
    inputs["previous"] = inputs["previous"] + torch.tensor([0.0, 3.0])[:, None, None, None, None]
    again, _ = decoder(**inputs)
    torch.testing.assert_close(logits, again)
    inputs["dense_embedding"] = -inputs["dense_embedding"]
    other, _ = decoder(**inputs)
    outside = (0, 0, 0)  # of the box
    torch.testing.assert_close(logits[0, 0][outside], other[0, 0][outside])
    assert (logits[1] - other[1]).abs().max() > 0.1


@pytest.mark.parametrize("corner", [(0.0, 0.0, 0.0), (39.0, 47.0, 55.0), (20.0, 9.0, 30.0)])
def test_only_the_box_around_the_newest_prompt_changes(decoder, corner):
    inputs = scene(1)
    inputs["prompts"].focus[:] = torch.tensor(corner)
    logits, _ = awaken(decoder)(**inputs)
    changed = torch.nonzero((logits != squash(inputs["previous"]))[0, 0])
    low, high = changed.amin(0), changed.amax(0)
    assert (high - low + 1 <= 24).all()  # a margin of 16 voxels around the prompt, in eights
    assert ((low <= torch.tensor(corner)) & (torch.tensor(corner) <= high)).all()


def test_the_box_grows_with_a_long_prompt(decoder):
    inputs = scene(1)
    inputs["prompts"].focus[0] = torch.tensor([[5.0, 5.0, 3.0], [6.0, 6.0, 50.0]])
    logits, _ = awaken(decoder)(**inputs)
    changed = (logits != squash(inputs["previous"]))[0, 0]
    assert changed[5, 5].all()


def test_items_of_a_batch_have_boxes_of_their_own(decoder):
    awaken(decoder)
    inputs = scene(2)
    inputs["prompts"].focus[1] += 4
    together, dice = decoder(**inputs)
    for item in range(2):
        alone, own = decoder(**{name: item_of(value, item) for name, value in inputs.items()})
        torch.testing.assert_close(together[item], alone[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(dice[item], own[0], rtol=1e-4, atol=1e-4)


def test_a_roi_smaller_than_the_box_is_refined_whole():
    torch.manual_seed(0)
    decoder = awaken(MaskDecoder(24, 8, 4))
    inputs = scene(1, (32, 16, 24))
    logits, _ = decoder(**inputs)
    assert (logits != squash(inputs["previous"])).float().mean() > 0.99


def test_there_may_be_no_prompt_token(decoder):
    inputs = scene()
    inputs["sparse"] = inputs["sparse"][:, :0]
    logits, _ = decoder(**inputs)
    assert logits.shape == (2, 1, *SHAPE)


@pytest.mark.parametrize("what", ["image", "dense_embedding"])
def test_what_lies_at_a_click_matters_everywhere(decoder, what):
    inputs = scene(1)
    inputs["previous_known"] = torch.tensor([False])
    before, _ = decoder(**inputs)
    z, y, x = (int(i) // (1 if what == "image" else 2) for i in inputs["prompts"].points[0, 0])
    inputs[what][..., z : z + 2, y : y + 2, x : x + 2] += 3.0
    after, _ = decoder(**inputs)
    assert (before - after)[..., 0, 0, 0].abs().max() > 1e-4


def test_before_training_a_click_takes_what_is_near_it_and_like_it():
    torch.manual_seed(0)
    decoder = MaskDecoder(24, 8, 4).eval()
    z, y, x = torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")
    ball = (z - 18) ** 2 + (y - 20) ** 2 + (x - 24) ** 2 < 64
    other = x > 50  # as bright, but far away
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw(0, torch.tensor([[18, 20, 24]]), True)
    inputs = scene(1) | {
        "image": torch.where(ball | other, 1.0, -1.0)[None, None],
        "dense_embedding": torch.zeros(1, 8, *(n // 2 for n in SHAPE)),
        "previous_known": torch.tensor([False]),
        "prompts": canvas.tensors(),
    }
    found = decoder(**inputs)[0][0, 0] > 0
    assert (found & ball).sum() > 0.4 * ball.sum()
    assert not (found & ~ball).any()


def test_every_part_learns(decoder):
    inputs = scene()
    inputs["previous_known"] = torch.tensor([True, False])
    logits, predicted = awaken(decoder)(**inputs)
    (logits.square().mean() + predicted.mean()).backward()
    missing = [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]
    # MONAI's attention has key biases, which a softmax cannot see, and an unread last key norm.
    missing = [n for n in missing if not n.endswith("k_proj.bias")]
    assert not [n for n in missing if not n.startswith("transformer.layers.1.")], missing


def test_certain_logits_stay_within_reach():
    logits = squash(torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4]))
    assert logits.abs().max() <= LIMIT
    assert torch.equal(logits.sign(), torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]))


def test_the_tiny_decoder_is_small():
    decoder = MaskDecoder(48, 32, 4)
    assert sum(p.numel() for p in decoder.parameters()) < 600_000


def test_logits_that_stand_for_a_mask_keep_it_and_are_least_certain_at_its_surface():
    mask = torch.zeros(1, 1, 12, 14, 16, dtype=torch.bool)
    mask[..., 2:10, 3:11, 4:12] = True
    logits = logits_of(mask)
    assert torch.equal(logits > 0, mask)
    assert 0 < logits[0, 0, 2, 6, 7] < logits[0, 0, 5, 6, 7]
    assert logits[0, 0, 0, 0, 0] < logits[0, 0, 1, 6, 7] < 0


def test_the_automatic_results_certainty_counts_where_it_agrees():
    mask, automatic = (
        torch.tensor(values).repeat_interleave(2).expand(1, 1, 8, 8, 8)
        for values in ([True, True, False, False], [0.1, -5.0, 5.0, -0.1])
    )
    logits, graded = logits_of(mask, automatic), logits_of(mask)
    assert torch.equal(logits > 0, mask)
    torch.testing.assert_close(logits[..., [0, 1, 6, 7]], automatic[..., [0, 1, 6, 7]])
    torch.testing.assert_close(logits[..., 2:6], graded[..., 2:6])


def test_certainty_is_the_share_of_the_mask_around_at_the_volume_end_too():
    mask = torch.rand(2, 1, 6, 9, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    share = mask.float()
    for size, padding in (((5, 1, 1), (2, 0, 0)), ((1, 5, 1), (0, 2, 0)), ((1, 1, 5), (0, 0, 2))):
        share = F.avg_pool3d(share, size, 1, padding, count_include_pad=False)
    torch.testing.assert_close(logits_of(mask), 2 * (mask + share - 1))
