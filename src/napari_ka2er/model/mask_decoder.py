"""Gold features and prompts to one mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from monai.networks.nets.vista3d import MLP, TwoWayTransformer
from torch import Tensor, nn

from napari_ka2er.model.likeness import (
    N_DENSE_MAPS,
    N_IMAGE_MAPS,
    dense_likeness,
    image_likeness,
    values_at,
)
from napari_ka2er.model.prompt_encoder import fourier_positions
from napari_ka2er.model.prompt_maps import N_MAPS
from napari_ka2er.model.refinement import Refinement, double

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ka2er.model.prompt_maps import PromptTensors

# Logits are squashed to this, so that certain voxels, too, stay within a click's reach.
LIMIT = 4.0
_CERTAIN = 2.0
_MARGIN = 16
_N_PROJECTED = 4
_N_AGREEMENTS = 3
# Logits of a voxel far from every click and like none, and what is added by: the wide maps of
# prompts (all and newest, positive and negative), the narrow ones, the inside of a box; likeness of
# intensity (narrow, wide) and of the dense embedding, to positive and negative clicks.
_NOTHING = -4.0
_RULE = (2.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0, -2.0, 2.0, -2.0, 1.0, -1.0)


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
        n_maps = N_MAPS + N_IMAGE_MAPS + N_DENSE_MAPS
        self.kernel = MLP(width, width, dense_width + n_maps + 1, 2)
        self.project = nn.Conv3d(dense_width, _N_PROJECTED, 1)
        self.refinement = Refinement(3 + n_maps + _N_PROJECTED, width)
        self.dice = MLP(width + _N_AGREEMENTS, width, 1, 2)
        self._begin_with_a_rule(dense_width)

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

        Returns
        -------
        logits : Tensor, shape (B, 1, Z, Y, X)
            Outside the box: `previous` within ±`LIMIT`.
        predicted_dice : Tensor, shape (B,)
            Between 0 and 1.
        """
        mask_token, dice_token = self._attend(gold, class_token, sparse)
        kernel = self.kernel(mask_token)
        blurred = F.avg_pool3d(image, 2)
        intensities = values_at(blurred, prompts.points, 2)
        alike = self._alike(dense_embedding, prompts)
        at_half = [
            dense_embedding,
            prompts.dense[..., ::2, ::2, ::2],
            image_likeness(blurred, intensities, prompts.point_labels),
            alike,
        ]
        bias, *shares = kernel.split([1, *(part.shape[1] for part in at_half)], dim=1)
        coarse = bias[:, :, None, None, None]
        for share, part in zip(shares, at_half, strict=True):
            coarse = coarse + torch.einsum("bc,bczyx->bzyx", share, part)[:, None]
        coarse = squash(coarse)
        is_known = previous_known[:, None, None, None, None]
        previous = squash(previous) * is_known
        logits = torch.where(is_known, previous, double(coarse))
        full, half = self._boxes(prompts.focus, image.shape)
        here = _crop(image, full)
        seen = [
            double(_crop(coarse, half)),
            _crop(previous, full),
            here,
            _crop(prompts.dense, full),
            image_likeness(here, intensities, prompts.point_labels),
            double(_crop(alike, half)),
            double(self.project(_crop(dense_embedding, half))),
        ]
        change = self.refinement(torch.cat(seen, dim=1), mask_token)
        logits = _add(logits, change, full)
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

    @torch.no_grad()
    def _begin_with_a_rule(self, dense_width: int) -> None:
        """Let an untrained kernel take what is near a click and like it, whatever the object."""
        last = self.kernel.layers[-1]
        last.weight.mul_(0.1)  # type: ignore[operator, union-attr]
        last.bias.zero_()  # type: ignore[operator, union-attr]
        rule = torch.tensor(_RULE)
        last.bias[0] = _NOTHING  # type: ignore[index, union-attr]
        last.bias[1 + dense_width :] = rule  # type: ignore[index, union-attr]

    def _alike(self, dense: Tensor, prompts: PromptTensors) -> Tensor:
        seen = values_at(dense, prompts.points, 2)
        return dense_likeness(dense, seen, prompts.point_labels)

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
    graded = _CERTAIN * (mask + _share_around(mask) - 1)
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
