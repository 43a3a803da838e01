"""The adaptive amalgamation layer: experts' knowledge merged into the foundation's features.

Coarse levels work on tokens with three attention levels; fine levels (`merging`) merge voxel by
voxel and are told what the coarse ones chose.  The paper (Gao et al. 2024, arXiv 2410.21085) names
three hierarchical attention mechanisms and describes self-attention on the foundation; the other
two are our design.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from napari_ka2er.model.alignment import ABSENT, REAL
from napari_ka2er.model.standardise import Standardise

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
        """Attend from `query` (B, N, d) to `keys` and `values` (B, M, d) where `mask` (B, M)."""
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
        self.expert_channels = tuple(expert_channels)
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
            else f.new_zeros(f.shape[0], f[0, 0].numel(), self.expert_channels[k])
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
        weights: Tensor = scores.masked_fill(~allowed, -torch.inf).softmax(dim=1)
        return weights
