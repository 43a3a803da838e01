"""What the student is taught: pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from napari_ka2er.model.alignment import REAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_ka2er.model.amalgamation import CoarseResult


def segmentation_loss(
    logits: Tensor, target: Tensor, valid: Tensor, positive_weight: float = 1.0
) -> Tensor:
    """Return cross-entropy plus soft Dice loss over the annotated voxels.

    Parameters
    ----------
    logits, target : Tensor, shape (B, L, Z, Y, X)
        One channel per label; targets in [0, 1], soft at borders.
    valid : Tensor, shape (B, 1, Z, Y, X)
        1 where the labels are annotated.  Where nothing is, the loss is 0.
    positive_weight : float
        Weight of foreground in the cross-entropy; small structures collapse to nothing with 1 in
        short trainings.

    Returns
    -------
    Tensor
        Mean over batch and labels, at least 0.
    """
    weight = valid * (1 + (positive_weight - 1) * target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    n_valid = valid.sum(dim=(1, 2, 3, 4)).clamp_min(1)
    cross_entropy = (entropy * weight).sum(dim=(2, 3, 4)) / n_valid[:, None]
    probability = logits.sigmoid() * valid
    overlap = (probability * target).sum(dim=(2, 3, 4))
    total = (probability + target * valid).sum(dim=(2, 3, 4))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    annotated = (valid.sum(dim=(1, 2, 3, 4)) > 0).float()[:, None]
    return ((cross_entropy + dice) * annotated).mean()


def distillation_loss(logits: Tensor, soft: Tensor, inside: Tensor) -> Tensor:
    """Return cross-entropy against an expert's probabilities, where the expert is sure.

    Parameters
    ----------
    logits, soft : Tensor, shape (B, L, Z, Y, X)
        The student's logits and the expert's probabilities of the same labels.
    inside : Tensor, shape (B, 1, Z, Y, X)
        1 on the lattice on which the probabilities are kept.  It reaches beyond the volume, where
        they are ½, so that nothing is taught there.
    """
    sure = inside * (2 * (soft - 0.5).abs()).clamp(0, 1)
    entropy = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    return (entropy * sure).sum() / sure.sum().clamp_min(1)


def alignment_loss(
    results: dict[int, CoarseResult], masks: dict[int, Tensor], state: Tensor
) -> Tensor:
    """Return how far hallucinated tokens are from the experts' own.

    Half one minus cosine plus half smooth L1 (as UNIC, Sariyildiz et al. 2024), over tokens inside
    each real expert's field, mean over those strides and experts that have such tokens.  Of an
    expert that has not run there is no truth: in a student's layers zeros stand for its tokens.

    Parameters
    ----------
    results : dict of int to CoarseResult
        What the coarse levels returned, with standardised real tokens.
    masks : dict of int to Tensor
        Per stride, (B, K, z, y, x): inside the experts' fields.
    state : Tensor, shape (B, K)
        See `napari_ka2er.model.alignment.WindowFeatures`.

    Returns
    -------
    Tensor
        At least 0; 0 where no expert is real.
    """
    terms, taught = [], []
    for stride, result in results.items():
        known = masks[stride] & (state == REAL)[:, :, None, None, None]
        for k, pair in enumerate(zip(result.hallucinated, result.standardised, strict=True)):
            here = known[:, k].flatten(1)
            terms.append(_distance(*pair, here))
            taught.append(here.any())
    if not terms:
        return torch.zeros(())
    return torch.stack(terms).sum() / torch.stack(taught).sum().clamp_min(1)


def _distance(guess: Tensor, truth: Tensor, here: Tensor) -> Tensor:
    """Return the mean distance of tokens (B, N, C) where `here` (B, N); 0 if that is nowhere."""
    truth = truth.masked_fill(~here.unsqueeze(-1), 0)  # what is there may be anything
    cosine = 1 - F.cosine_similarity(guess, truth, dim=-1)
    distance = F.smooth_l1_loss(guess, truth, reduction="none").mean(dim=-1)
    error = 0.5 * cosine + 0.5 * distance
    return (error * here).sum() / here.sum().clamp_min(1)


def routing_loss(weights: Sequence[Tensor], own: int) -> Tensor:
    """Return how little the expert of the image's own task counts: minus log of its mean weight.

    Left alone, the gate settles early on whichever expert's tokens happen to be easy to use: in a
    run without this loss, hippocampi went to the lung expert (weight 0.41) rather than to their own
    (0.13).  The image's task is known in training only; the gate still decides by content.

    Parameters
    ----------
    weights : sequence of Tensor, shape (B, K+1, z, y, x)
        Weights of some levels.
    own : int
        Index of the task's own expert.
    """
    shares = [w[:, own].flatten(1).mean(dim=1).clamp_min(1e-20) for w in weights]
    return -torch.stack(shares).log().mean()


def collapse_loss(weights: Tensor, floor: float = 0.02) -> Tensor:
    """Return a hinge on experts whose mean weight falls under `floor`.

    Used only early, so that the gate cannot settle on one expert before the others have been tried.

    Parameters
    ----------
    weights : Tensor, shape (B, K+1, z, y, x)
        Weights of the experts and the null expert.
    floor : float
        Least mean weight that costs nothing.
    """
    mean = weights.mean(dim=(2, 3, 4))
    return ((floor - mean).clamp_min(0) / floor).mean()
