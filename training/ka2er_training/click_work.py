"""Teach a trained student to answer prompts, with its trunk frozen."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ka2er_training.clicks import ClickBatch, click_step
from ka2er_training.loop import Work, train
from ka2er_training.student_work import student_work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from ka2er_training.amalgamate import Recipe
    from ka2er_training.cases import PreparedCase, Sample
    from ka2er_training.teaching import Teaching
    from napari_ka2er.model.student import Student

FROZEN = ("student.foundation", "student.coarse", "student.fine")
_N_CLICKS = 3


class ClickLesson(nn.Module):
    """A student and a simulated user; its forward pass is a whole dialogue.

    Parameters
    ----------
    student : Student
        Only its projections, prompt encoder, mask decoder and class tokens are trained.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, sample: Sample, seed: int) -> dict[str, Tensor]:
        """Return the losses of correcting one window's label by a few clicks."""
        generator = torch.Generator().manual_seed(seed)
        device = next(self.student.parameters()).device
        outputs = self.student.config.outputs(sample.task)
        label = _some_label(sample.target, generator)
        image = sample.image.to(device)
        features = None if sample.features is None else sample.features.to(device)
        with torch.no_grad():
            trunk = self.student.trunk(image, features)
        encoded = self.student.finish(trunk)
        batch = ClickBatch(
            gold=encoded.gold,
            dense=encoded.dense,
            image=image,
            automatic=encoded.logits[:, outputs[label] : outputs[label] + 1].detach(),
            target=sample.target[:, label : label + 1].to(device),
            valid=sample.valid.to(device) > 0,
            output=torch.tensor([outputs[label]], device=device),
            any_output=self.student.config.n_outputs,
            spacing_mm=sample.spacing_mm,
        )
        return click_step(self.student.decode, batch, generator, _N_CLICKS)


def _some_label(target: Tensor, generator: torch.Generator) -> int:
    """Return a label that is in the window, if any is."""
    present = (target[0] > 0.5).flatten(1).any(dim=1).nonzero().flatten()
    if not len(present):
        return int(torch.randint(target.shape[1], (), generator=generator))
    return int(present[torch.randint(len(present), (), generator=generator)])


def _loss(network: nn.Module, sample: Any, step: int) -> dict[str, Tensor]:
    # The loop has seeded torch for this window; draw the dialogue's own seed from there.
    terms: dict[str, Tensor] = network(sample, int(torch.randint(2**31, ())))
    return {**terms, "loss": torch.stack(list(terms.values())).sum()}


def train_clicks(
    student: Student,
    cases: Sequence[PreparedCase],
    recipe: Recipe,
    out: Path,
    **run: Any,
) -> Student:
    """Train prompt encoder and mask decoder on simulated users' clicks.

    Parameters
    ----------
    student : Student
        With a trained trunk, which stays as it is.
    cases : sequence of PreparedCase
        Training volumes; only labelled ones are used.
    recipe : Recipe
        `recipe.sizes.clicks` is the schedule.
    out : Path
        Folder of the checkpoint and the log.
    **run
        `resume`, `device`, `progress`, `cancelled` of `ka2er_training.loop.train`.

    Returns
    -------
    Student
        With averaged weights.
    """
    labelled = [case for case in cases if case.is_labelled]
    # Experts come and go as in use, from the first step on.
    teaching: Teaching = dataclasses.replace(recipe.teaching, mixed_from=0.0)
    draw = student_work(student.config, labelled, teaching).draw
    averaged = train(
        ClickLesson(student),
        Work(draw=draw, loss=_loss, frozen=FROZEN),
        recipe.sizes.clicks,
        out,
        **run,
    )
    taught: Student = averaged.student  # type: ignore[assignment]
    return taught
