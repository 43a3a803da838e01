"""Masks as logits: what the mask decoder sees of the mask so far."""

from __future__ import annotations

import torch
from torch import Tensor

# Logits are squashed to this, so that certain voxels, too, stay within a click's reach.
LIMIT = 4.0
_CERTAIN = 2.0


def squash(logits: Tensor) -> Tensor:
    """Return logits within ±`LIMIT`, signs kept."""
    return LIMIT * torch.tanh(logits / LIMIT)


def logits_of(mask: Tensor, automatic: Tensor | None = None) -> Tensor:
    """Return logits that stand for a mask without any, for `MaskDecoder`'s `previous`.

    Where the automatic result agrees with the mask its own certainty is used: it says where a click
    should spread to.  Elsewhere voxels are the more certain the deeper they lie.

    Parameters
    ----------
    mask : Tensor of bool, shape (B, 1, Z, Y, X)
        The mask so far.
    automatic : Tensor, shape (B, 1, Z, Y, X), optional
        Logits without prompts, if the label has any.

    Returns
    -------
    Tensor, shape (B, 1, Z, Y, X)
        Positive in the mask, not positive out of it.
    """
    graded = _share_around(mask).add_(mask).sub_(1).mul_(_CERTAIN)
    if automatic is None:
        return graded
    return torch.where((automatic > 0) == mask, automatic, graded)


def _share_around(mask: Tensor) -> Tensor:
    """Return which share of the 5³ voxels around each is in a mask; outside ones do not count.

    Sums of bytes: an average pool takes eight times as long, and every click waits for it.
    """
    total = mask.to(torch.uint8)
    counts = torch.ones((), device=mask.device)
    for axis in (2, 3, 4):
        total = _sum_of_five(total, axis)
        shape = [-1 if a == axis else 1 for a in range(mask.ndim)]
        ones = torch.ones(mask.shape[axis], device=mask.device, dtype=torch.uint8)
        counts = counts * _sum_of_five(ones, 0).reshape(shape)
    return total / counts


def _sum_of_five(values: Tensor, axis: int) -> Tensor:
    """Return the sum of each value and its neighbours, two to either side, along an axis."""
    total = values.clone()
    n = values.shape[axis]
    for step in range(1, min(3, n)):
        total.narrow(axis, step, n - step).add_(values.narrow(axis, 0, n - step))
        total.narrow(axis, 0, n - step).add_(values.narrow(axis, step, n - step))
    return total
