"""Teach a trained student to choose experts before any has run (schedule S5, "polish").

Sparse mode asks hallucinated tokens which experts to run.  In the trunk's training they matter
little, as real features are mostly there; a student without this stage sent chests to the
hippocampus expert in sparse mode (Dice 0.70 against 0.93 in full mode).
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ka2er_training.loop import train
from ka2er_training.losses import alignment_loss, routing_loss
from ka2er_training.schedule import Work
from ka2er_training.student_work import student_work

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from ka2er_training.cases import PreparedCase, Sample
    from ka2er_training.recipe import Recipe
    from napari_ka2er.model.student import Student

# What guesses tokens, and what the gate is made of; all else stays as it is.
HALLUCINATORS = (".hallucinators.",)
TRAINED = (*HALLUCINATORS, ".gate_query.", ".gate_key.", ".null.")


class RoutingLesson(nn.Module):
    """A student's coarse levels, once with real features and once with none.

    Parameters
    ----------
    student : Student
        With a trained trunk.
    routes : bool
        Whether the gate learns too; otherwise hallucinators alone, from the real features.
    """

    def __init__(self, student: Student, routes: bool = True) -> None:
        super().__init__()
        self.student, self.routes = student, routes
        self.names = [expert.name for expert in student.config.experts]

    def forward(self, sample: Sample) -> dict[str, Tensor]:
        """Return the losses of one window."""
        device = next(self.student.parameters()).device
        image, features = sample.image.to(device), sample.features
        assert features is not None
        features = features.to(device)
        with torch.no_grad():
            stages = self.student.foundation.stages(image)
        seen = self.student.amalgamate_coarse(list(stages), features)
        terms = {"alignment": alignment_loss(seen, features.masks, features.state)}
        if self.routes:
            guessed = self.student.amalgamate_coarse(list(stages), None)
            own = self.names.index(sample.task)
            levels = [result.weights for result in (*seen.values(), *guessed.values())]
            terms["routing"] = routing_loss(levels, own)
        return terms


def _loss(network: nn.Module, sample: Any, step: int) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = network(sample)
    return {**terms, "loss": torch.stack(list(terms.values())).sum()}


def polish(
    student: Student, cases: Sequence[PreparedCase], recipe: Recipe, out: Path, **run: Any
) -> Student:
    """Train hallucinators and gate; see the module.

    Where the teaching leaves the routing loss out, as a round's does, the gate stays as it is.

    Parameters
    ----------
    student : Student
        With a trained trunk.
    cases : sequence of PreparedCase
        Training volumes of tasks that have an expert.
    recipe : Recipe
        `recipe.sizes.polish` is the schedule; a student that was taught without any expert
        (`alone` is 1) stays as it is.
    out : Path
        Folder of the checkpoint and the log.
    **run
        `resume`, `device`, `progress`, `cancelled` of `ka2er_training.loop.train`.
    """
    names = {expert.name for expert in student.config.experts}
    own = [case for case in cases if case.task in names]
    never = recipe.teaching.alone >= 1  # no expert was ever shown
    if never or student.config.amalgamation not in ("attention", "bottleneck") or not own:
        return student
    # A share of the trunk's steps says nothing of this schedule; experts stay real throughout.
    teaching = dataclasses.replace(recipe.teaching, mixed_from=math.inf, expert_dropout=0.0)
    draw = student_work(student.config, own, teaching).draw
    routes = recipe.teaching.routing > 0
    work = Work(draw=draw, loss=_loss, trained=TRAINED if routes else HALLUCINATORS)
    averaged = train(RoutingLesson(student, routes), work, recipe.sizes.polish, out, **run)
    polished: Student = averaged.student  # type: ignore[assignment]
    return polished
