"""Teach a trained student to answer prompts, with its trunk frozen."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ka2er_training.click_objects import draw_objects
from ka2er_training.clicks import ClickBatch, click_step
from ka2er_training.loop import train
from ka2er_training.schedule import Work
from ka2er_training.student_work import student_work
from napari_ka2er.model.mask_logits import LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from ka2er_training.cases import PreparedCase
    from ka2er_training.click_objects import ClickSample
    from ka2er_training.recipe import Recipe
    from ka2er_training.teaching import Teaching
    from napari_ka2er.model.student import Student

logger = logging.getLogger(__name__)

FROZEN = ("student.foundation", "student.coarse", "student.fine")
_N_CLICKS = 3
# Asked about in every window: the trunk has to look at it once only.
_N_OBJECTS = 3
_FOREIGN = 0.7


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

    def forward(self, sample: ClickSample, seed: int) -> dict[str, Tensor]:
        """Return the losses of correcting a window's objects by a few clicks each."""
        device = next(self.student.parameters()).device
        window, n_objects = sample.window, len(sample.labels)
        image = window.image.to(device)
        features = None if window.features is None else window.features.to(device)
        with torch.no_grad():
            trunk = self.student.trunk(image, features)
        encoded = self.student.finish(trunk)
        batch = ClickBatch(
            gold=encoded.gold.expand(n_objects, -1, -1, -1, -1),
            dense=encoded.dense.expand(n_objects, -1, -1, -1, -1),
            image=image.expand(n_objects, -1, -1, -1, -1),
            automatic=self._automatic(encoded.logits.detach(), sample),
            target=sample.target.to(device),
            valid=sample.valid.to(device),
            output=self._outputs(sample).to(device),
            any_output=self.student.config.n_outputs,
            spacing_mm=window.spacing_mm,
        )
        generator = torch.Generator().manual_seed(seed)
        return click_step(self.student.decode, batch, generator, _N_CLICKS)

    def _outputs(self, sample: ClickSample) -> Tensor:
        """Return which output each object is."""
        config = self.student.config
        outputs = config.outputs(sample.window.task)
        return torch.tensor(
            [config.n_outputs if label is None else outputs[label] for label in sample.labels]
        )

    def _automatic(self, logits: Tensor, sample: ClickSample) -> Tensor:
        """Return each object's logits without prompts; what has no name is nowhere."""
        nowhere = torch.full_like(logits[:, :1], -LIMIT)
        found = [
            nowhere if label is None else logits[:, output : output + 1]
            for label, output in zip(sample.labels, self._outputs(sample).tolist(), strict=True)
        ]
        return torch.cat(found)


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
        With averaged weights; `student` itself if no volume is labelled, and a line is logged.
    """
    labelled = [case for case in cases if case.is_labelled]
    if not labelled:
        logger.warning("no labelled training volume: prompts were not trained")
        return student
    # Experts come and go as in use, from the first step on.
    teaching: Teaching = dataclasses.replace(recipe.teaching, mixed_from=0.0)
    windows = student_work(student.config, labelled, teaching)

    def draw(step: int, generator: np.random.Generator) -> ClickSample:
        return draw_objects(windows.draw(step, generator), _N_OBJECTS, _FOREIGN, generator)

    averaged = train(
        ClickLesson(student),
        Work(draw=draw, loss=_loss, frozen=FROZEN),
        recipe.sizes.clicks,
        out,
        **run,
    )
    taught: Student = averaged.student  # type: ignore[assignment]
    return taught
