"""Teach the mask decoder to answer clicks, with users simulated in batches on any device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ka2er_training.click_simulation import Habits, Masks, draw_box, draw_prompts
from ka2er_training.corruption import corrupt, uniform
from napari_ka2er.model.prompt_maps import PromptCanvas

if TYPE_CHECKING:
    from napari_ka2er.model.prompt_maps import PromptTensors

_HARD_LOGIT = 3.0
_SHARPNESS = 3.0


class Decode(Protocol):
    """What answers a prompt: the student's prompt encoder and mask decoder on frozen features."""

    def __call__(  # noqa: D102
        self,
        *,
        gold: Tensor,
        dense: Tensor,
        image: Tensor,
        previous: Tensor,
        previous_known: Tensor,
        prompts: PromptTensors,
        output: Tensor,
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, slots=True, eq=False)
class ClickBatch:
    """Windows, each with one label, and what the frozen trunk says about them.

    Parameters
    ----------
    gold : Tensor, shape (B, d, Z/8, Y/8, X/8)
        Gold features.
    dense : Tensor, shape (B, F, Z/2, Y/2, X/2)
        Dense embedding.
    image : Tensor, shape (B, 1, Z, Y, X)
        Normalised image.
    automatic : Tensor, shape (B, 1, Z, Y, X)
        Logits of the label without prompts.
    target : Tensor, shape (B, 1, Z, Y, X)
        The label, between 0 and 1.
    valid : Tensor of bool, shape (B, 1, Z, Y, X)
        Where the label was annotated.
    output : Tensor of int64, shape (B,)
        The label's index among the student's outputs.
    any_output : int
        Index of the "any structure" token.
    spacing_mm : tuple of float
        Distance between voxel centres along (Z, Y, X).
    """

    gold: Tensor
    dense: Tensor
    image: Tensor
    automatic: Tensor
    target: Tensor
    valid: Tensor
    output: Tensor
    any_output: int
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Mixture:
    """How often which situation is trained, as probabilities.

    Parameters
    ----------
    corrupted : float
        The mask to correct is the truth with random errors: image and features contradict it.
    disagreeing : float
        The truth is a corrupted automatic mask: only the clicks know it.  Keeps the decoder from
        reading the truth off features that have seen it in the trunk's training.
    right : float
        The mask to correct is right already, and must survive.  The rest starts automatically.
    unknown : float
        There is no mask to correct.
    hard : float
        The mask to correct comes without certainties, as after a brush stroke.
    any_structure : float
        The label is not named.
    habits : Habits
        How the user draws.
    """

    corrupted: float = 0.25
    disagreeing: float = 0.15
    right: float = 0.1
    unknown: float = 0.1
    hard: float = 0.5
    any_structure: float = 0.15
    habits: Habits = field(default_factory=Habits)


def click_step(
    decode: Decode,
    batch: ClickBatch,
    generator: torch.Generator,
    n_clicks: int = 3,
    mixture: Mixture | None = None,
) -> dict[str, Tensor]:
    """Let a simulated user correct masks and return the losses' terms, means over the clicks.

    Parameters
    ----------
    decode : callable
        Usually bound to a student whose trunk is frozen.
    batch : ClickBatch
        Windows of one spacing.
    generator : torch.Generator
        On the CPU; decides all that is random.
    n_clicks : int, optional
        Clicks in a row, each on the mask that the one before led to.
    mixture : Mixture, optional
        Which situations are trained.

    Returns
    -------
    dict of str to Tensor
        "click_voxels" (cross-entropy, mostly around the click), "click_gap" (what is missing to
        Dice 1 after the click, as a share of what was missing before), "click_dice" (error of the
        predicted Dice).  Their sum is the loss.
    """
    mixture = mixture or Mixture()
    previous, target = _situations(batch, mixture, generator)
    n_items = len(previous)
    is_known = torch.rand(n_items, generator=generator) >= mixture.unknown
    is_any = torch.rand(n_items, generator=generator) < mixture.any_structure
    output = torch.where(is_any.to(batch.output.device), batch.any_output, batch.output)
    shape = tuple(previous.shape[2:])
    canvas = PromptCanvas(n_items, shape, batch.spacing_mm, previous.device)  # type: ignore[arg-type]
    for item in torch.nonzero(~is_known)[:, 0].tolist():
        if uniform(0, 1, generator) < mixture.habits.box:
            draw_box(canvas, item, target[item, 0] > 0.5, generator)
    terms: list[dict[str, Tensor]] = []
    for _ in range(n_clicks):
        known = is_known.to(previous.device)
        shown = (previous > 0) & known[:, None, None, None, None]
        masks = Masks(shown, target > 0.5, batch.valid)
        draw_prompts(canvas, masks, mixture.habits, generator)
        prompts = canvas.tensors()
        logits, predicted = decode(
            gold=batch.gold,
            dense=batch.dense,
            image=batch.image,
            previous=previous,
            previous_known=known,
            prompts=prompts,
            output=output,
        )
        terms.append(_losses(logits, predicted, shown, target, batch.valid, prompts))
        previous = _harden(logits.detach(), mixture.hard, generator)
        is_known = torch.ones_like(is_known)
    return {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}


def _situations(
    batch: ClickBatch, mixture: Mixture, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return each item's mask to correct, as logits, and what it should become."""
    truth, automatic = batch.target > 0.5, batch.automatic > 0
    damaged = corrupt(truth, generator)
    wanted = corrupt(automatic, generator)
    draw = torch.rand(len(truth), generator=generator)
    previous, target = [], []
    bounds = torch.tensor([mixture.corrupted, mixture.disagreeing, mixture.right]).cumsum(0)
    for item, kind in enumerate(torch.bucketize(draw, bounds).tolist()):
        start = (damaged[item], truth[item])[kind // 2] if kind in (0, 2) else None
        previous.append(batch.automatic[item] if start is None else _logits(start))
        target.append(wanted[item].float() if kind == 1 else batch.target[item])
    return _harden(torch.stack(previous), mixture.hard, generator), torch.stack(target)


def _logits(mask: Tensor) -> Tensor:
    """Logits of a mask that is less certain at its surface, the same side kept."""
    solid = mask.float()
    smooth = F.avg_pool3d(solid[None], 3, 1, 1, count_include_pad=False)[0]
    return 2 * _HARD_LOGIT * (0.5 * (solid + smooth) - 0.5)


def _harden(logits: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Replace some items' logits by those of their mask."""
    is_hard = (torch.rand(len(logits), generator=generator) < p).to(logits.device)
    hard = torch.where(logits > 0, _HARD_LOGIT, -_HARD_LOGIT)
    return torch.where(is_hard[:, None, None, None, None], hard, logits)


def _losses(
    logits: Tensor,
    predicted: Tensor,
    shown: Tensor,
    target: Tensor,
    valid: Tensor,
    prompts: PromptTensors,
) -> dict[str, Tensor]:
    dims = (1, 2, 3, 4)
    near = prompts.dense[:, 2:4].amax(dim=1, keepdim=True)
    is_wrong = shown != (target > 0.5)
    weight = valid * (0.1 + near) * (1 + is_wrong)
    voxels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross_entropy = (weight * voxels).sum(dims) / weight.sum(dims).clamp_min(1)
    before = _dice(shown.float() * valid, target * valid)
    # Sharpened: the small rest of certainty that squashed logits leave in a large background would
    # otherwise outweigh the object.
    after = _dice(torch.sigmoid(_SHARPNESS * logits) * valid, target * valid)
    reached = _dice((logits.detach() > 0).float() * valid, target * valid)
    return {
        "click_voxels": cross_entropy.mean(),
        "click_gap": ((1 - after) / (1 - before).clamp_min(0.05)).mean(),
        "click_dice": F.mse_loss(predicted, reached),
    }


def _dice(mask: Tensor, target: Tensor) -> Tensor:
    dims = (1, 2, 3, 4)
    both = (mask * target).sum(dims)
    return (2 * both + 1) / (mask.sum(dims) + target.sum(dims) + 1)
