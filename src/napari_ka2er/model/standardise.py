"""Experts' channels on a common scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Standardise(nn.Module):
    """Shift and scale an expert's channels by frozen statistics.

    Parameters
    ----------
    channels : int
        Number of the expert's channels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, …) features with mean 0 and deviation 1 over the training volumes."""
        shape = (1, -1) + (1,) * (features.ndim - 2)
        scaled = (features - self.mean.view(shape)) / self.deviation.view(shape)
        return scaled.clamp(-8, 8)  # one wild activation must not own a softmax
