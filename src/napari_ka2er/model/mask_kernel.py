"""The kernel that makes a mask at stride 2 out of what is known of every voxel there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets.vista3d import MLP
from torch import nn

from napari_ka2er.model.likeness import N_DENSE_MAPS, N_IMAGE_MAPS
from napari_ka2er.model.prompt_maps import N_MAPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# What is known of a voxel beside its dense embedding.
N_KNOWN = N_MAPS + N_IMAGE_MAPS + N_DENSE_MAPS
# Logits of a voxel far from every click and like none, and what is added by: the wide maps of
# prompts (all and newest, positive and negative), the narrow ones, the inside of a box; likeness of
# intensity (narrow, wide) and of the dense embedding, to positive and negative clicks.
_NOTHING = -4.0
_RULE = (2.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0, -2.0, 2.0, -2.0, 1.0, -1.0)


class Kernel(MLP):
    """Weights of all maps, computed from the mask token.

    Before training they are a plain rule, the same for every object: what is near a click and like
    it is in the mask.

    Parameters
    ----------
    width : int
        Channels of the token.
    dense_width : int
        Channels of the dense embedding.
    """

    def __init__(self, width: int, dense_width: int) -> None:
        super().__init__(width, width, 1 + dense_width + N_KNOWN, 2)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[0] = _NOTHING
            last.bias[1 + dense_width :] = torch.tensor(_RULE)

    def mask(self, token: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits of a mask, shape (B, 1, Z, Y, X).

        Parameters
        ----------
        token : Tensor, shape (B, width)
            The mask token after attention.
        maps : sequence of Tensor, shape (B, C, Z, Y, X)
            Dense embedding, prompt maps, likeness of intensity and of embedding, in this order.
        """
        bias, *shares = self(token).split([1, *(part.shape[1] for part in maps)], dim=1)
        logits: Tensor = bias[:, :, None, None, None]
        for share, part in zip(shares, maps, strict=True):
            logits = logits + torch.einsum("bc,bczyx->bzyx", share, part)[:, None]
        return logits
