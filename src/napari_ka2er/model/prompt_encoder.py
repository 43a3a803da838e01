"""Prompts as tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets.vista3d import PositionEmbeddingRandom
from torch import Tensor, nn

from napari_ka2er.model.prompt_maps import POSITIVE

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
    """Turns points and box corners into sparse tokens: which kind, where, and what is seen there.

    Parameters
    ----------
    width : int
        Channels of a token, even.
    dense_width : int
        Channels of the dense embedding.
    """

    def __init__(self, width: int, dense_width: int) -> None:
        super().__init__()
        self.positions = fourier_positions(width)
        self.labels = nn.Embedding(_N_LABELS, width)
        self.content = nn.Linear(dense_width, width)

    def forward(
        self, prompts: PromptTensors, roi_shape: tuple[int, int, int], seen: Tensor
    ) -> Tensor:
        """Return sparse tokens, shape (B, N, width); N may be 0.

        Parameters
        ----------
        prompts : PromptTensors
            Prompts in voxels of the region.
        roi_shape : tuple of int
            Its size (Z, Y, X).
        seen : Tensor, shape (B, N, F)
            The dense embedding at the points.

        Returns
        -------
        Tensor, shape (B, N, width)
            Padding becomes a token of its own that has no position; it and the corners of boxes
            have no content.
        """
        # Index i is the middle of the i-th voxel: half a voxel from the border the frame starts at.
        centres = prompts.points + 0.5
        position = self.positions.forward_with_coords(centres, roi_shape)
        is_prompt = prompts.point_labels[..., None] >= 0
        label = self.labels(prompts.point_labels + 1)
        is_click = is_prompt & (prompts.point_labels[..., None] <= POSITIVE)
        tokens: Tensor = label + position * is_prompt + self.content(seen) * is_click
        return tokens
