"""Teach the mask decoder to answer clicks, with users simulated in batches on any device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ka2er_training.click_simulation import Habits, Masks, draw_box, draw_prompts
from ka2er_training.corruption import corrupt, uniform
from napari_ka2er.model.mask_logits import logits_of
from napari_ka2er.model.prompt_maps import PromptCanvas

if TYPE_CHECKING:
    from napari_ka2er.model.prompt_maps import PromptTensors

_SHARPNESS = 3.0
# What is missing to Dice 1 counts at least so much: else the gradients of masks that are nearly
# right, in which there is little to learn, outweigh those of objects just begun.
_LEAST_MISSING = 0.25


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
        The label's index among the student's outputs; `any_output` for structures without a name.
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

    @property
    def is_foreign(self) -> Tensor:
        """Which items have no name, bool, shape (B,), on the CPU."""
        return (self.output == self.any_output).cpu()


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
    bare : float
        The automatic result is not known beside the mask.
    any_structure : float
        The label is not named, and so has no automatic result.
    begun : float
        Of structures without a name, how many are begun already: their mask is the truth with
        random errors, or now and then right.
    habits : Habits
        How the user draws.
    """

    corrupted: float = 0.25
    disagreeing: float = 0.15
    right: float = 0.1
    unknown: float = 0.1
    bare: float = 0.2
    any_structure: float = 0.15
    begun: float = 0.35
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
    begun = _begin(batch, mixture, generator)
    mask, is_known = begun.mask, begun.is_known
    canvas = _canvas(batch, begun.target, ~is_known, mixture.habits, generator)
    terms: list[dict[str, Tensor]] = []
    for _ in range(n_clicks):
        known = is_known.to(mask.device)
        mask = mask & known[:, None, None, None, None]
        masks = Masks(mask, begun.target > 0.5, batch.valid)
        draw_prompts(canvas, masks, mixture.habits, generator)
        prompts = canvas.tensors()
        answer = decode(
            gold=batch.gold,
            dense=batch.dense,
            image=batch.image,
            previous=_previous(mask, batch.automatic, begun.is_bare),
            previous_known=known,
            prompts=prompts,
            output=begun.output,
        )
        terms.append(_losses(answer, mask, begun.target, batch.valid, prompts))
        mask = answer[0].detach() > 0
        is_known = torch.ones_like(is_known)
    return {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}


@dataclass(frozen=True, slots=True, eq=False)
class _Dialogues:
    """Where each item's dialogue begins, and where it should lead; flags lie on the CPU.

    Parameters
    ----------
    mask : Tensor of bool, shape (B, 1, Z, Y, X)
        The mask to correct.
    target : Tensor, shape (B, 1, Z, Y, X)
        What it should become.
    is_known, is_bare : Tensor of bool, shape (B,)
        Whether there is a mask; whether it is all there is, without an automatic result.
    output : Tensor of int64, shape (B,)
        What the student is told that it is.
    """

    mask: Tensor
    target: Tensor
    is_known: Tensor
    is_bare: Tensor
    output: Tensor


def _begin(batch: ClickBatch, mixture: Mixture, generator: torch.Generator) -> _Dialogues:
    mask, target = _situations(batch, mixture, generator)
    known = torch.where(batch.is_foreign, mixture.begun, 1 - mixture.unknown)
    is_known, is_any, is_bare = (
        torch.rand(len(mask), generator=generator) < p
        for p in (known, mixture.any_structure, mixture.bare)
    )
    is_any = is_any | batch.is_foreign
    output = torch.where(is_any.to(batch.output.device), batch.any_output, batch.output)
    return _Dialogues(mask, target, is_known, is_bare | is_any, output)


def _canvas(
    batch: ClickBatch,
    target: Tensor,
    is_boxed: Tensor,
    habits: Habits,
    generator: torch.Generator,
) -> PromptCanvas:
    """Return an empty canvas, or one with a box for items that may have one."""
    z, y, x = target.shape[2:]
    canvas = PromptCanvas(len(target), (z, y, x), batch.spacing_mm, target.device)
    for item in torch.nonzero(is_boxed)[:, 0].tolist():
        if uniform(0, 1, generator) < habits.box:
            draw_box(canvas, item, target[item, 0] > 0.5, generator)
    return canvas


def _situations(
    batch: ClickBatch, mixture: Mixture, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return each item's mask to correct, and what it should become."""
    truth, automatic = batch.target > 0.5, batch.automatic > 0
    damaged = corrupt(truth, generator)
    wanted = corrupt(automatic, generator)
    draw = torch.rand(len(truth), generator=generator)
    bounds = torch.tensor([mixture.corrupted, mixture.disagreeing, mixture.right]).cumsum(0)
    drawn = torch.bucketize(draw, bounds)
    # Without an automatic result there is nothing to disagree with or to start from.
    kinds = torch.where(batch.is_foreign & (drawn % 2 == 1), 0, drawn).tolist()
    starts = [(damaged, automatic, truth, automatic)[kind] for kind in kinds]
    targets = [wanted.float() if kind == 1 else batch.target for kind in kinds]
    items = range(len(kinds))
    return torch.stack([starts[i][i] for i in items]), torch.stack([targets[i][i] for i in items])


def _previous(mask: Tensor, automatic: Tensor, is_bare: Tensor) -> Tensor:
    """Return logits of the masks to correct; bare ones have no automatic result to lean on."""
    bare = is_bare.to(mask.device)[:, None, None, None, None]
    return torch.where(bare, logits_of(mask), logits_of(mask, automatic))


def _losses(
    answer: tuple[Tensor, Tensor],
    shown: Tensor,
    target: Tensor,
    valid: Tensor,
    prompts: PromptTensors,
) -> dict[str, Tensor]:
    (logits, predicted), dims = answer, (1, 2, 3, 4)
    is_wrong = shown != (target > 0.5)
    weight = valid * (0.1 + prompts.newest) * (1 + is_wrong)
    voxels = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cross_entropy = (weight * voxels).sum(dims) / weight.sum(dims).clamp_min(1)
    before = _dice(shown.float() * valid, target * valid)
    # Sharpened: the small rest of certainty that squashed logits leave in a large background would
    # otherwise outweigh the object.
    after = _dice(torch.sigmoid(_SHARPNESS * logits) * valid, target * valid)
    reached = _dice((logits.detach() > 0).float() * valid, target * valid)
    return {
        "click_voxels": cross_entropy.mean(),
        "click_gap": ((1 - after) / (1 - before).clamp_min(_LEAST_MISSING)).mean(),
        "click_dice": F.mse_loss(predicted, reached),
    }


def _dice(mask: Tensor, target: Tensor) -> Tensor:
    dims = (1, 2, 3, 4)
    both = (mask * target).sum(dims)
    return (2 * both + 1) / (mask.sum(dims) + target.sum(dims) + 1)
