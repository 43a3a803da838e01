from __future__ import annotations

import math

import torch

from napari_ka2er.model.mask_logits import squash
from napari_ka2er.model.prompt_maps import WIDE, PromptCanvas
from napari_ka2er.model.prompting import near_prompts

SHAPE = (8, 40, 48)


def changed(canvas):
    """Return by how much of a change of 1 everywhere is left."""
    shown = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    logits = near_prompts(squash(shown) + 1, shown, canvas.tensors())
    return (logits - squash(shown))[0, 0]


def test_a_change_fades_with_the_distance_to_the_newest_click():
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw(0, torch.tensor([[4, 5, 5]]), True)
    canvas.draw(0, torch.tensor([[4, 20, 20]]), False)
    left = changed(canvas)
    torch.testing.assert_close(left[4, 20, 20], torch.tensor(1.0))
    torch.testing.assert_close(left[4, 20, 26], torch.tensor(math.exp(-6 / WIDE)))
    assert left[4, 5, 5] < 0.05  # where the click before was
    assert left[4, 39, 47].abs() < 1e-6


def test_in_a_box_all_may_change():
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw_box(0, torch.tensor([[2, 5, 5], [5, 30, 40]]))
    left = changed(canvas)
    torch.testing.assert_close(left[2:6, 5:31, 5:41], torch.ones(4, 26, 36))
    assert not left[0].any()
