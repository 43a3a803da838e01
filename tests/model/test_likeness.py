from __future__ import annotations

import math

import pytest
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


def test_many_points_on_a_large_map_are_as_all_gaps_at_once_and_take_no_room_for_them():
    generator = torch.Generator().manual_seed(0)
    image, dense = (torch.randn(2, c, 60, 50, 70, generator=generator) for c in (1, 4))
    labels = torch.randint(-1, 4, (2, 32), generator=generator)
    labels[1] = labels[1].clamp(1, 3)  # one without negative points
    seen = torch.randn(2, 32, 1, generator=generator), torch.randn(2, 32, 4, generator=generator)
    cosine = torch.nn.functional.cosine_similarity(
        seen[1][..., None, None, None], dense[:, None], dim=2
    )
    gaps = (image - seen[0][..., None, None]).square()
    for found, at_once, scales in (
        (image_likeness(image, seen[0], labels), gaps, (2 * 0.1**2, 2 * 0.3**2)),
        (dense_likeness(dense, seen[1], labels), 1 - cosine, (1 / 5,)),
    ):
        wanted = [
            torch.exp(-torch.where(of_sign, at_once, math.inf).amin(dim=1) / scale)
            for scale in scales
            for of_sign in ((labels == s)[..., None, None, None] for s in (POSITIVE, NEGATIVE))
        ]
        torch.testing.assert_close(found, torch.stack(wanted, dim=1), rtol=0, atol=2e-6)
    with torch.profiler.profile(profile_memory=True) as watched:
        image_likeness(image, seen[0], labels)
    largest = max(event.self_cpu_memory_usage for event in watched.events())
    assert largest <= 2 * 4 * image.nbytes  # the maps and a copy; 32 maps of gaps before


@pytest.mark.parametrize("labels", [[POSITIVE], [NEGATIVE], []])
def test_where_a_sign_has_no_points_gradients_are_finite(labels):
    dense = torch.randn(1, 5, 4, 6, 3, requires_grad=True)
    seen = torch.randn(1, len(labels), 5, requires_grad=True)
    given = torch.tensor([labels], dtype=torch.int64).reshape(1, -1)
    dense_likeness(dense, seen, given).sum().backward()
    assert dense.grad.isfinite().all()
    assert dense.grad.any() == bool(labels)
    assert seen.grad.isfinite().all()
