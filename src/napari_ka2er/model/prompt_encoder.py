"""Prompts as tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets.vista3d import PositionEmbeddingRandom
from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_ka2er.model.prompt_maps import PromptTensors

_N_LABELS = 5  # padding, out of the object, in it, the two corners of a box


def fourier_positions(width: int, seed: int = 0) -> PositionEmbeddingRandom:
    """Return random Fourier features of positions, `width` channels, the same for the same seed.

    The prompt encoder and the mask decoder must place prompts and gold tokens in one frame, yet a
    module shared by both would be stored twice.

    References
    ----------
    Tancik et al. 2020, arXiv:2006.10739; Kirillov et al. 2023, arXiv:2304.02643.
    """
    positions = PositionEmbeddingRandom(width // 2)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(3, width // 2, generator=generator)
    positions.register_buffer("positional_encoding_gaussian_matrix", matrix)
    return positions


class PromptEncoder(nn.Module):
    """Turns points and box corners into sparse tokens.

    Parameters
    ----------
    width : int
        Channels of a token, even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positions = fourier_positions(width)
        self.labels = nn.Embedding(_N_LABELS, width)

    def forward(self, prompts: PromptTensors, roi_shape: tuple[int, int, int]) -> Tensor:
        """Return sparse tokens, shape (B, N, width); N may be 0.

        Padding becomes a token of its own that has no position.
        """
        # Index i is the middle of the i-th voxel: half a voxel from the border the frame starts at.
        centres = prompts.points + 0.5
        position = self.positions.forward_with_coords(centres, roi_shape)
        is_prompt = prompts.point_labels[..., None] >= 0
        label = self.labels(prompts.point_labels + 1)
        tokens: Tensor = label + position * is_prompt
        return tokens
