from __future__ import annotations

import math

import pytest
import torch

from napari_ka2er.model.mask_decoder import MaskDecoder
from napari_ka2er.model.mask_logits import squash
from napari_ka2er.model.prompt_maps import WIDE, PromptCanvas

SHAPE = (16, 40, 48)


@pytest.fixture
def decoder() -> MaskDecoder:
    """A decoder that adds 1 to the logits everywhere in its box."""
    torch.manual_seed(0)
    decoder = MaskDecoder(24, 8, 4, box=48).eval()
    torch.nn.init.ones_(decoder.refinement.head.bias)
    return decoder


def changed(decoder, canvas, *, is_fading):
    """Return by how much of that change is left."""
    generator = torch.Generator().manual_seed(0)
    shown = torch.randn(1, 1, *SHAPE, generator=generator)
    with torch.no_grad():
        logits, _ = decoder(
            gold=torch.randn(1, 24, 2, 5, 6, generator=generator),
            dense_embedding=torch.randn(1, 8, 8, 20, 24, generator=generator),
            image=torch.randn(1, 1, *SHAPE, generator=generator),
            previous=shown,
            previous_known=torch.tensor([True]),
            sparse=torch.randn(1, 2, 24, generator=generator),
            class_token=torch.randn(1, 24, generator=generator),
            prompts=canvas.tensors(),
            fading=torch.tensor([is_fading]),
        )
    return (logits - squash(shown))[0, 0]


def test_a_change_fades_with_the_distance_to_the_newest_click(decoder):
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw(0, torch.tensor([[4, 5, 5]]), True)
    canvas.draw(0, torch.tensor([[4, 20, 20]]), False)
    left = changed(decoder, canvas, is_fading=True)
    torch.testing.assert_close(left[4, 20, 20], torch.tensor(1.0))
    torch.testing.assert_close(left[4, 20, 26], torch.tensor(math.exp(-6 / WIDE)))
    assert left[4, 5, 5] < 0.05  # where the click before was
    assert left[4, 39, 47].abs() < 1e-6


def test_nothing_fades_unless_it_is_asked(decoder):
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw(0, torch.tensor([[4, 20, 20]]), False)
    torch.testing.assert_close(changed(decoder, canvas, is_fading=False), torch.ones(SHAPE))


def test_in_a_box_all_may_change(decoder):
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw_box(0, torch.tensor([[2, 5, 5], [5, 30, 40]]))
    left = changed(decoder, canvas, is_fading=True)
    torch.testing.assert_close(left[2:6, 5:31, 5:41], torch.ones(4, 26, 36))
    assert not left[0].any()
