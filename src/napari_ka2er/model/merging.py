"""Voxel by voxel, the experts' decoder features are merged into the student's decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from napari_ka2er.model.alignment import REAL
from napari_ka2er.model.standardise import Standardise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FineMerging(nn.Module):
    """Voxel-wise merging of experts' decoder features into a decoder stage at one fine stride.

    Weights over experts and null are a softmax of what the voxel's features say plus the coarse
    weights' logarithm, so that a fine level may refine the coarse choice but is not blind to it.
    Hallucinated and absent experts have no voxel features and take no part.

    Parameters
    ----------
    channels : int
        Channels of the decoder's stage.
    expert_channels : sequence of int
        Channels of each expert.
    width : int
        Channels into which each expert is projected.
    uniform : bool
        Weigh all present experts alike (a baseline of the benchmark).
    """

    def __init__(
        self, channels: int, expert_channels: Sequence[int], width: int, uniform: bool = False
    ) -> None:
        super().__init__()
        self.uniform = uniform
        self.standardise = nn.ModuleList(Standardise(c) for c in expert_channels)
        self.projections = nn.ModuleList(nn.Conv3d(c, width, 1) for c in expert_channels)
        self.query = nn.Conv3d(channels, width, 1)
        self.scores = nn.ModuleList(nn.Conv3d(width, 1, 1) for _ in expert_channels)
        self.null_score = nn.Conv3d(width, 1, 1)
        self.trust_coarse = nn.Parameter(torch.ones(()))
        self.mix = nn.Sequential(
            nn.Conv3d(width + channels, 2 * width, 1),
            nn.LeakyReLU(0.01),
            nn.Conv3d(2 * width, width, 3, padding=1),
        )
        self.out = nn.Conv3d(width, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(
        self,
        stage: Tensor,
        features: Sequence[Tensor],
        inside: Tensor,
        state: Tensor,
        coarse: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Merge the experts into one decoder stage.

        Parameters
        ----------
        stage : Tensor, shape (B, C, Z, Y, X)
            The decoder's features.
        features : sequence of Tensor
            Per expert (B, C_k, Z, Y, X), raw.
        inside : Tensor, shape (B, K, Z, Y, X)
            Inside the experts' fields.
        state : Tensor, shape (B, K)
            Only `REAL` experts take part.
        coarse : Tensor, shape (B, K+1, z, y, x)
            The coarse weights.

        Returns
        -------
        stage : Tensor
            The amended stage.
        weights : Tensor, shape (B, K+1, Z, Y, X)
            What was chosen, the null expert last.
        """
        allowed = inside & (state == REAL)[:, :, None, None, None]
        query = self.query(stage)
        projected, scores = [], []
        for k, (scale, project, score) in enumerate(
            zip(self.standardise, self.projections, self.scores, strict=True)
        ):
            if not bool((state[:, k] == REAL).any()):
                projected.append(query.new_zeros(()).expand_as(query))
                scores.append(query.new_zeros(query.shape[0], 1, *query.shape[2:]))
                continue
            projected.append(project(scale(features[k])))
            scores.append(score(torch.tanh(projected[-1] + query)))
        scores.append(self.null_score(torch.tanh(query)))
        weights = self._weights(torch.cat(scores, dim=1), allowed, coarse)
        merged = sum(weights[:, k : k + 1] * p for k, p in enumerate(projected))
        return self._amended(stage, merged), weights

    def alone(self, stage: Tensor) -> Tensor:
        """Return what `forward` makes of a stage when no expert is real.

        That is not the stage as it was: what is mixed in has learned to do without experts, too.
        """
        width = self.query.out_channels
        return self._amended(stage, stage.new_zeros(stage.shape[0], width, *stage.shape[2:]))

    def _amended(self, stage: Tensor, merged: Tensor) -> Tensor:
        amended: Tensor = stage + self.out(self.mix(torch.cat([merged, stage], dim=1)))
        return amended

    def _weights(self, scores: Tensor, allowed: Tensor, coarse: Tensor) -> Tensor:
        everywhere = torch.ones_like(allowed[:, :1])
        allowed = torch.cat([allowed, everywhere], dim=1)
        if self.uniform:
            present = allowed.float()
            present[:, -1] = (present[:, :-1].sum(dim=1) == 0).float()
            return present / present.sum(dim=1, keepdim=True)
        size = scores.shape[2:]
        prior = F.interpolate(coarse, size=size, mode="trilinear", align_corners=False)
        scores = scores + self.trust_coarse * torch.log(prior.clamp_min(1e-4))
        return scores.masked_fill(~allowed, -torch.inf).softmax(dim=1)
