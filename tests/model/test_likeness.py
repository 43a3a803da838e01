from __future__ import annotations

import math

import torch

from napari_ka2er.model.likeness import dense_likeness, image_likeness, values_at
from napari_ka2er.model.prompt_maps import LOW_CORNER, NEGATIVE, PADDING, POSITIVE


def labelled(*labels):
    return torch.tensor([labels])


def test_values_are_those_of_the_tokens_that_points_lie_in():
    z, y, x = torch.meshgrid(*(torch.arange(n) for n in (2, 3, 5)), indexing="ij")
    values = (100 * z + 10 * y + x)[None, None].float().repeat(2, 2, 1, 1, 1)
    values[:, 1] *= -1
    points = torch.tensor([[[0.0, 3, 7], [3, 5, 9]], [[2, 0, 1], [99, 99, 99]]])
    seen = values_at(values, points, 2)
    assert seen[..., 0].tolist() == [[13, 124], [100, 124]]
    assert torch.equal(seen[..., 1], -seen[..., 0])


def test_without_points_there_is_no_value_and_no_likeness():
    image, dense = torch.randn(2, 1, 4, 6, 8), torch.randn(2, 3, 4, 6, 8)
    nothing, labels = torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.long)
    seen = values_at(dense, nothing, 1)
    assert seen.shape == (2, 0, 3)
    assert not dense_likeness(dense, seen, labels).any()
    maps = image_likeness(image, values_at(image, nothing, 1), labels)
    assert maps.shape == (2, 4, 4, 6, 8)
    assert not maps.any()


def test_intensities_are_alike_by_their_distance_to_the_likest_click_of_each_sign():
    image = torch.tensor([0.0, 0.1, 1.0, 5.0]).reshape(1, 1, 1, 1, 4)
    seen = torch.tensor([[[0.0], [1.0], [5.0]]])
    maps = image_likeness(image, seen, labelled(POSITIVE, POSITIVE, NEGATIVE))
    at = [math.exp(-0.5), math.exp(-0.5 * (0.1 / 0.3) ** 2)]
    wanted = [[1, at[0], 1, 0], [0, 0, 0, 1], [1, at[1], 1, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(maps.reshape(4, 4), torch.tensor(wanted), rtol=0, atol=1e-5)


def test_embeddings_are_alike_by_their_direction_whatever_their_length():
    dense = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]]).T.reshape(1, 2, 1, 1, 3)
    maps = dense_likeness(dense, torch.tensor([[[7.0, 0.0]]]), labelled(POSITIVE))
    wanted = torch.tensor([1.0, math.exp(-5), math.exp(-10)])
    torch.testing.assert_close(maps[0, 0, 0, 0], wanted)
    assert not maps[0, 1].any()


def test_corners_and_padding_say_nothing():
    image = torch.zeros(1, 1, 2, 3, 4)
    seen = torch.zeros(1, 2, 1)
    assert not image_likeness(image, seen, labelled(LOW_CORNER, PADDING)).any()
    assert image_likeness(image, seen, labelled(LOW_CORNER, NEGATIVE))[:, [1, 3]].all()
