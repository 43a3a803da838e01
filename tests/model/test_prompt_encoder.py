from __future__ import annotations

import torch

from napari_ka2er.model.prompt_encoder import PromptEncoder, fourier_positions
from napari_ka2er.model.prompt_maps import PromptCanvas

SHAPE = (16, 24, 32)


def drawn(*clicks):
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    for voxel, positive in clicks:
        canvas.draw(0, torch.tensor([voxel]), positive)
    return canvas.tensors()


def seen_by(prompts, value=0.0):
    return torch.full((*prompts.points.shape[:2], 5), value)


def tokens_of(encoder, prompts, value=0.0):
    return encoder(prompts, SHAPE, seen_by(prompts, value))


def test_there_is_one_token_per_point():
    encoder = PromptEncoder(24, 5)
    tokens = tokens_of(encoder, drawn(((1, 2, 3), True), ((4, 5, 6), False)))
    assert tokens.shape == (1, 2, 24)
    assert tokens_of(encoder, drawn()).shape == (1, 0, 24)


def test_place_and_sign_both_tell_tokens_apart():
    encoder = PromptEncoder(24, 5)
    here, there = (tokens_of(encoder, drawn((v, True))) for v in ((1, 2, 3), (1, 2, 30)))
    negative = tokens_of(encoder, drawn(((1, 2, 3), False)))
    assert (here - there).abs().max() > 0.1
    assert (here - negative).abs().max() > 0.1


def test_what_is_seen_at_a_click_is_part_of_its_token_but_not_at_a_boxs_corners():
    encoder = PromptEncoder(24, 5)
    click = drawn(((1, 2, 3), True))
    assert (tokens_of(encoder, click, 1.0) - tokens_of(encoder, click)).abs().max() > 0.1
    canvas = PromptCanvas(1, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw_box(0, torch.tensor([[1, 2, 3], [5, 6, 7]]))
    box = canvas.tensors()
    torch.testing.assert_close(tokens_of(encoder, box, 1.0), tokens_of(encoder, box))


def test_padding_has_neither_position_nor_content():
    encoder = PromptEncoder(24, 5)
    canvas = PromptCanvas(2, SHAPE, (1.0, 1.0, 1.0))
    canvas.draw(0, torch.tensor([[1, 2, 3]]), True)
    tokens = tokens_of(encoder, canvas.tensors(), 1.0)
    torch.testing.assert_close(tokens[1, 0], encoder.labels.weight[0])
    torch.testing.assert_close(tokens[:1], tokens_of(encoder, drawn(((1, 2, 3), True)), 1.0))


def test_points_and_gold_tokens_share_one_frame():
    # Gold token (1, 0, 2) is the mean of voxels 8-15, 0-7, 16-23: its middle is (11.5, 3.5, 19.5).
    encoder = PromptEncoder(24, 5)
    frame = fourier_positions(24)((2, 3, 4))
    middle = torch.tensor([[[11.5, 3.5, 19.5]]])
    position = encoder.positions.forward_with_coords(middle + 0.5, SHAPE)
    torch.testing.assert_close(position[0, 0], frame[:, 1, 0, 2])


def test_the_random_frame_is_the_same_in_every_process():
    a, b, c = fourier_positions(24), fourier_positions(24), fourier_positions(24, seed=1)
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
    assert not torch.equal(*(m.positional_encoding_gaussian_matrix for m in (a, c)))
