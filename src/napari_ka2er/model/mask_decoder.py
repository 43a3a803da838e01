"""Gold features and prompts to one mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from monai.networks.nets.vista3d import MLP, TwoWayTransformer
from torch import Tensor, nn

from napari_ka2er.model.likeness import what_was_clicked
from napari_ka2er.model.mask_kernel import N_KNOWN, Kernel
from napari_ka2er.model.mask_logits import squash
from napari_ka2er.model.prompt_encoder import fourier_positions
from napari_ka2er.model.prompt_maps import maps_of
from napari_ka2er.model.refinement import Refinement, double

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ka2er.model.prompt_maps import PromptTensors

_MARGIN = 16
_N_PROJECTED = 4
_N_AGREEMENTS = 3


class MaskDecoder(nn.Module):
    """Answers prompts with one mask and an estimate of its Dice.

    A two-way transformer over (mask, Dice, class, prompt) tokens and gold tokens yields a kernel;
    the kernel on the dense embedding, the prompt maps and the likeness to what was clicked yields a
    mask at stride 2.  A small U-Net in a box around the newest prompt sees that mask, the previous
    one, the image and the same maps at full resolution and changes the previous mask; before
    training it changes nothing, and the kernel is a plain rule: what is near a click and like it.

    Parameters
    ----------
    width : int
        Channels of gold features and tokens, a multiple of ``2 * heads``.
    dense_width : int
        Channels of the dense embedding.
    heads : int
        Attention heads.
    box : int
        Side of the box in voxels, a multiple of 8; it grows with prompts that are longer.

    References
    ----------
    Kirillov et al. 2023, arXiv:2304.02643 (tokens, kernels); He et al. 2024, arXiv:2406.05285.
    """

    def __init__(self, width: int, dense_width: int, heads: int, *, box: int = 48) -> None:
        super().__init__()
        self.box = box
        self.positions = fourier_positions(width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.dice_token = nn.Parameter(0.02 * torch.randn(width))
        self.transformer = TwoWayTransformer(2, width, heads, 4 * width)
        self.kernel = Kernel(width, dense_width)
        self.project = nn.Conv3d(dense_width, _N_PROJECTED, 1)
        self.refinement = Refinement(3 + N_KNOWN + _N_PROJECTED, width)
        self.dice = MLP(width + _N_AGREEMENTS, width, 1, 2)

    def forward(
        self,
        *,
        gold: Tensor,
        dense_embedding: Tensor,
        image: Tensor,
        previous: Tensor,
        previous_known: Tensor,
        sparse: Tensor,
        class_token: Tensor,
        prompts: PromptTensors,
        fading: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask's logits and its predicted Dice.

        Parameters
        ----------
        gold : Tensor, shape (B, d, Z/8, Y/8, X/8)
            Gold features of the ROI; Z, Y and X are multiples of 8.
        dense_embedding : Tensor, shape (B, F, Z/2, Y/2, X/2)
            Dense embedding of the ROI.
        image : Tensor, shape (B, 1, Z, Y, X)
            Normalised image.
        previous : Tensor, shape (B, 1, Z, Y, X)
            Logits of the mask to correct.
        previous_known : Tensor of bool, shape (B,)
            False where there is no mask yet, and `previous` is to be ignored.
        sparse : Tensor, shape (B, N, d)
            The prompt encoder's tokens; N may be 0.
        class_token : Tensor, shape (B, d)
            Which label is meant.
        prompts : PromptTensors
            Prompts in voxels of the ROI.
        fading : Tensor of bool, shape (B,), optional
            Where a mask changes the less the farther it is from the newest prompt; see
            `Student.decode`.

        Returns
        -------
        logits : Tensor, shape (B, 1, Z, Y, X)
            Outside the box: `previous` within ±`LIMIT`.
        predicted_dice : Tensor, shape (B,)
            Between 0 and 1.
        """
        mask_token, dice_token = self._attend(gold, class_token, sparse)
        seen = what_was_clicked(image, dense_embedding, prompts)
        known = [
            maps_of(prompts.dense[..., ::2, ::2, ::2]),
            seen.image_likeness(seen.half),
            seen.dense,
        ]
        coarse = squash(self.kernel.mask(mask_token, [dense_embedding, *known]))
        is_known = previous_known[:, None, None, None, None]
        previous = squash(previous) * is_known
        full, half = self._boxes(prompts.focus, image.shape)
        around = [
            double(_crop(coarse, half)),
            *(_crop(x, full) for x in (previous, image)),
            maps_of(_crop(prompts.dense, full)),
            seen.image_likeness(_crop(image, full)),
            double(_crop(seen.dense, half)),
            double(self.project(_crop(dense_embedding, half))),
        ]
        change = self.refinement(torch.cat(around, dim=1), mask_token)
        if fading is not None:
            change = change * _faded(prompts, full, fading)
        logits = _add(torch.where(is_known, previous, double(coarse)), change, full)
        agreement = _agreement(logits, coarse, previous)
        predicted = self.dice(torch.cat([dice_token, agreement], dim=1))
        return logits, torch.sigmoid(predicted[:, 0])

    def _attend(self, gold: Tensor, class_token: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask and Dice tokens after attention to gold features and prompts."""
        batch_size = gold.shape[0]
        own = torch.stack([self.mask_token, self.dice_token]).expand(batch_size, -1, -1)
        tokens = torch.cat([own, class_token[:, None], sparse], dim=1)
        frame = self.positions(gold.shape[2:]).expand(batch_size, -1, -1, -1, -1)
        tokens, _ = self.transformer(gold, frame, tokens)
        return tokens[:, 0], tokens[:, 1]

    def _boxes(self, focus: Tensor, shape: Sequence[int]) -> tuple[list[_Box], list[_Box]]:
        """Return the refined box of each item at full resolution and at stride 2.

        All have one size; they start at multiples of 4 so that both lattices are cut alike.
        """
        extent = (focus[:, 1] - focus[:, 0]).amax(dim=0).tolist()
        middle = ((focus[:, 0] + focus[:, 1]) / 2).tolist()
        sizes = [
            min(max(self.box, 8 * math.ceil((e + _MARGIN) / 8)), n)
            for e, n in zip(extent, shape[2:], strict=True)
        ]
        starts = [
            [
                4 * round(min(max(m - size / 2, 0), n - size) / 4)
                for m, size, n in zip(item, sizes, shape[2:], strict=True)
            ]
            for item in middle
        ]
        full = [_box(start, sizes, 1) for start in starts]
        return full, [_box(start, sizes, 2) for start in starts]


_Box = tuple[slice, slice, slice]


def _box(start: Sequence[int], size: Sequence[int], stride: int) -> _Box:
    z, y, x = (slice(a // stride, (a + n) // stride) for a, n in zip(start, size, strict=True))
    return z, y, x


def _crop(x: Tensor, boxes: Sequence[_Box]) -> Tensor:
    return torch.stack([item[:, *box] for item, box in zip(x, boxes, strict=True)])


def _add(logits: Tensor, change: Tensor, boxes: Sequence[_Box]) -> Tensor:
    """Add each item's change in its box."""
    logits = logits.clone()
    for item, box in enumerate(boxes):
        logits[item][:, *box] += change[item]
    return logits


def _faded(prompts: PromptTensors, boxes: Sequence[_Box], fading: Tensor) -> Tensor:
    """Return each item's share of the change in its box: all of it inside a drawn box."""
    share = _crop(torch.maximum(prompts.newest, prompts.inside), boxes)
    return torch.where(fading[:, None, None, None, None], share, 1.0)


def _agreement(logits: Tensor, coarse: Tensor, previous: Tensor) -> Tensor:
    """Return the mask's certainty and its soft Dice with kernel and previous mask, shape (B, 3).

    The estimate of Dice must know the mask it is about, not only the image; stride 2 is enough.
    Squashed logits are sharpened, or a large background's small probabilities would add up.
    """
    now, before = (2 * x[:, :, ::2, ::2, ::2] for x in (logits, previous))
    mask, dims = torch.sigmoid(now), (1, 2, 3, 4)
    certainty = (mask * torch.tanh(now)).sum(dims) / (mask.sum(dims) + 1e-6)
    overlaps = [_overlap(mask, torch.sigmoid(x)) for x in (2 * coarse, before)]
    return torch.stack([certainty, *overlaps], dim=1)


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    dims = (1, 2, 3, 4)
    return 2 * (a * b).sum(dims) / (a.sum(dims) + b.sum(dims) + 1e-6)
