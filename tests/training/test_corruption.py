from __future__ import annotations

import torch

from ka2er_training.corruption import corrupt, smooth_field


def balls(n: int) -> torch.Tensor:
    z, y, x = torch.meshgrid(torch.arange(20), torch.arange(24), torch.arange(28), indexing="ij")
    ball = (z - 10) ** 2 + (y - 12) ** 2 + (x - 14) ** 2 < 36
    return ball.expand(n, 1, 20, 24, 28).clone()


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    both = (a & b).flatten(1).sum(1)
    return 2 * both / (a.flatten(1).sum(1) + b.flatten(1).sum(1))


def test_corrupted_masks_are_wrong_but_recognisable():
    masks = balls(60)
    damaged = corrupt(masks, torch.Generator().manual_seed(0))
    dice = overlap(masks, damaged)
    assert damaged.shape == masks.shape
    assert damaged.dtype == torch.bool
    assert (dice < 1).float().mean() > 0.95
    assert 0.7 < dice.median() < 0.95
    missed, surplus = (masks & ~damaged).sum(), (damaged & ~masks).sum()
    assert 0.25 < missed / surplus < 4  # both kinds of error are common


def test_the_same_seed_means_the_same_errors():
    a, b, c = (corrupt(balls(6), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_an_empty_mask_can_be_corrupted():
    empty = torch.zeros(12, 1, 8, 10, 12, dtype=torch.bool)
    assert corrupt(empty, torch.Generator().manual_seed(0)).shape == empty.shape


def test_fields_are_smooth_and_of_unit_size():
    generator = torch.Generator().manual_seed(0)
    fields = torch.stack([smooth_field((20, 24, 28), generator) for _ in range(20)])
    assert 0.6 < fields.std() < 1.4
    assert (fields[..., 1:] - fields[..., :-1]).std() < 0.4 * fields.std()
