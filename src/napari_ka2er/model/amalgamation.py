"""The adaptive amalgamation layer: experts' knowledge merged into the foundation's features.

Coarse levels work on tokens with three attention levels; fine levels merge voxel by voxel and are told
what the coarse ones chose.  The paper (Gao et al. 2024, arXiv 2410.21085) names three hierarchical
attention mechanisms and describes self-attention on the foundation; the other two are our design.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from napari_ka2er.model.alignment import ABSENT, REAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class CoarseResult(NamedTuple):
    """What a coarse level returns.

    `gold`: amended stage (B, C, z, y, x).  `weights`: (B, K+1, z, y, x), the null expert last.
    `hallucinated`: per expert (B, N, C_k), standardised.  `standardised`: the same of the real
    features, or an empty list if there were none.
    """

    gold: Tensor
    weights: Tensor
    hallucinated: list[Tensor]
    standardised: list[Tensor]


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


def position_embedding(shape: Sequence[int], width: int, like: Tensor) -> Tensor:
    """Return sinusoidal embeddings (N, width) of tokens on a (z, y, x) lattice.

    Parameters
    ----------
    shape : sequence of int
        The lattice.
    width : int
        Channels; those that do not fill three sines and cosines stay zero.
    like : Tensor
        Gives device and type.
    """
    n = width // 6
    rates = torch.exp(-math.log(100.0) * torch.arange(n, device=like.device) / max(n - 1, 1))
    parts = []
    for axis, size in enumerate(shape):
        phase = torch.arange(size, device=like.device)[:, None] * rates
        wave = torch.cat([phase.sin(), phase.cos()], dim=1)
        view = [1, 1, 1, 2 * n]
        view[axis] = size
        parts.append(wave.view(view).expand(*shape, 2 * n))
    flat = torch.cat(parts, dim=-1).reshape(-1, 6 * n)
    return F.pad(flat, (0, width - 6 * n)).to(like.dtype)


class Attention(nn.Module):
    """Multi-head attention with pre-normalised queries.

    Parameters
    ----------
    width, heads : int
        Channels, and into how many heads they are split.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend from `query` (B, N, d) to `keys` and `values` (B, M, d); `mask` (B, M) is True where allowed."""
        key_weight, value_weight = self.key_value.weight.chunk(2)
        key_bias, value_bias = self.key_value.bias.chunk(2)
        q = self._split(self.query(query))
        k = self._split(F.linear(keys, key_weight, key_bias))
        v = self._split(F.linear(values, value_weight, value_bias))
        allowed = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        batch, _, n, _ = mixed.shape
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, n, -1))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        batch, n, width = tokens.shape
        return tokens.view(batch, n, self.heads, width // self.heads).transpose(1, 2)


class CoarseAmalgamation(nn.Module):
    """Hierarchical attention over tokens at one coarse stride.

    Level 1 is self-attention of the foundation's tokens; level 2 cross-attention to every expert,
    kept apart; level 3 a softmax per token over the experts and a null expert ("trust the
    foundation").  The result enters through a zero-initialised projection, so an untrained student
    is exactly SwinUNETR.

    Parameters
    ----------
    channels : int
        Channels of the foundation's stage.
    expert_channels : sequence of int
        Channels of each expert.
    width, heads : int
        Width and heads of the attention.
    uniform : bool
        Weigh all present experts alike (a baseline of the benchmark).
    """

    def __init__(
        self,
        channels: int,
        expert_channels: Sequence[int],
        width: int,
        heads: int,
        uniform: bool = False,
    ) -> None:
        super().__init__()
        self.uniform = uniform
        self.standardise = nn.ModuleList(Standardise(c) for c in expert_channels)
        self.embed = nn.Linear(channels, width)
        self.embed_norm = nn.LayerNorm(width)
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(c, width), nn.LayerNorm(width)) for c in expert_channels
        )
        self.expert_embedding = nn.Parameter(torch.randn(len(expert_channels), width) * 0.02)
        self.self_norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.gate_query, self.gate_key = nn.Linear(width, width), nn.Linear(width, width)
        self.null = nn.Linear(width, width)
        self.hallucinators = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, c)
            )
            for c in expert_channels
        )
        self.out = nn.Linear(width, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        stage: Tensor,
        features: Sequence[Tensor] | None,
        inside: Tensor | None,
        state: Tensor | None,
        noise: float = 0.0,
    ) -> CoarseResult:
        """Merge the experts into one stage.

        Parameters
        ----------
        stage : Tensor, shape (B, C, z, y, x)
            The foundation's features.
        features : sequence of Tensor or None
            Per expert (B, C_k, z, y, x), raw; None: hallucinate all.
        inside : Tensor or None, shape (B, K, z, y, x)
            Inside the experts' fields.
        state : Tensor or None, shape (B, K)
            `REAL`, `HALLUCINATED` or `ABSENT`.
        noise : float
            Deviation of Gaussian noise on standardised real tokens (training).
        """
        shape = stage.shape[2:]
        tokens = self.embed_norm(self.embed(stage.flatten(2).transpose(1, 2)))
        places = position_embedding(shape, tokens.shape[-1], tokens)
        query = self.self_norm(tokens) + places
        tokens = tokens + self.self_attention(query, query, self.self_norm(tokens))
        hallucinated = [mlp(tokens) for mlp in self.hallucinators]
        standardised = self._standardised(features, state)
        outputs, allowed = self._cross(
            tokens, places, hallucinated, standardised, (inside, state, noise)
        )
        weights = self._gate(tokens, outputs, allowed)
        merged = (weights.unsqueeze(-1) * outputs).sum(dim=1)
        gold = stage + self.out(merged).transpose(1, 2).reshape(stage.shape)
        return CoarseResult(
            gold, weights.reshape(*weights.shape[:2], *shape), hallucinated, standardised
        )

    def _standardised(
        self, features: Sequence[Tensor] | None, state: Tensor | None
    ) -> list[Tensor]:
        if features is None or state is None:
            return []
        return [
            scale(f).flatten(2).transpose(1, 2)
            if bool((state[:, k] == REAL).any())
            else f.new_zeros(f.shape[0], f[0, 0].numel(), scale.mean.numel())
            for k, (f, scale) in enumerate(zip(features, self.standardise, strict=True))
        ]

    def _cross(
        self,
        tokens: Tensor,
        places: Tensor,
        hallucinated: list[Tensor],
        standardised: list[Tensor],
        given: tuple[Tensor | None, Tensor | None, float],
    ) -> tuple[Tensor, Tensor]:
        """Return level 2's outputs (B, K+1, N, d) and where they may be chosen (B, K+1, N)."""
        inside, state, noise = given
        batch, n, _ = tokens.shape
        outputs, allowed = [], []
        query = self.cross_norm(tokens) + places
        for k, project in enumerate(self.projections):
            values, here = hallucinated[k], tokens.new_ones(batch, n, dtype=torch.bool)
            if state is not None and inside is not None:
                real = (state[:, k] == REAL)[:, None]
                noisy = (
                    standardised[k] + noise * torch.randn_like(standardised[k])
                    if noise
                    else standardised[k]
                )
                values = torch.where(real[..., None], noisy, values)
                here = (
                    torch.where(real, inside[:, k].flatten(1), here)
                    & (state[:, k] != ABSENT)[:, None]
                )
            known = project(values) + self.expert_embedding[k]
            # An expert with no token here is never chosen below, but attention needs one key.
            keys = here | ~here.any(dim=1, keepdim=True)
            mixed = self.cross_attention(query, known + places, known, keys)
            outputs.append(F.layer_norm(mixed + known, mixed.shape[-1:]))
            allowed.append(here)
        outputs.append(F.layer_norm(self.null(tokens), tokens.shape[-1:]))
        allowed.append(tokens.new_ones(batch, n, dtype=torch.bool))
        return torch.stack(outputs, dim=1), torch.stack(allowed, dim=1)

    def _gate(self, tokens: Tensor, outputs: Tensor, allowed: Tensor) -> Tensor:
        """Return level 3's weights (B, K+1, N)."""
        if self.uniform:
            present = allowed.float()
            present[:, -1] = (present[:, :-1].sum(dim=1) == 0).float()
            return present / present.sum(dim=1, keepdim=True)
        query = self.gate_query(tokens).unsqueeze(1)
        scores = (query * self.gate_key(outputs)).sum(dim=-1) / math.sqrt(tokens.shape[-1])
        return scores.masked_fill(~allowed, -torch.inf).softmax(dim=1)


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
        return stage + self.out(self.mix(torch.cat([merged, stage], dim=1))), weights

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
