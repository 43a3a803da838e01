"""What a student is shown and taught in one step of its amalgamation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ka2er_training.augmentation import intensity_changes, random_window
from ka2er_training.cases import PreparedCase, Sample, draw
from ka2er_training.losses import (
    alignment_loss,
    collapse_loss,
    distillation_loss,
    routing_loss,
    segmentation_loss,
)
from ka2er_training.schedule import Work
from napari_ka2er.model.alignment import ABSENT, HALLUCINATED, REAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from ka2er_training.teaching import Teaching
    from napari_ka2er.model.config import StudentConfig


# Of the windows that some expert has seen, those that others have not.
_SOME = 0.35 / 0.75


def student_work(
    config: StudentConfig, cases: Sequence[PreparedCase], teaching: Teaching, **work: Any
) -> Work:
    """Return what the loop needs to amalgamate a student.

    Parameters
    ----------
    config : StudentConfig
        The student's.
    cases : sequence of PreparedCase
        Training volumes of all tasks, labelled or with the experts' soft targets.
    teaching : Teaching
        How to teach.
    **work
        `frozen` and `rates` of `Work`.
    """
    lesson = _Lesson(config, cases, teaching)
    return Work(draw=lesson.draw, loss=lesson.loss, **work)


class _Lesson:
    def __init__(
        self, config: StudentConfig, cases: Sequence[PreparedCase], teaching: Teaching
    ) -> None:
        self.config, self.teaching = config, teaching
        self.by_task = {
            e.task.name: [c for c in cases if c.task == e.task.name] for e in config.tasks
        }
        self.by_task = {name: found for name, found in self.by_task.items() if found}
        share = np.sqrt([len(found) for found in self.by_task.values()])
        # Between equal shares and the square root of the number of cases: a task of three volumes
        # must be seen as often as one of two hundred, or nearly so.
        self.share = 0.5 / len(share) + 0.5 * share / share.sum()
        self.strength = dict(teaching.task_strength)

    def draw(self, step: int, generator: np.random.Generator) -> Sample:
        """Return a window of a random case of a random task."""
        task = list(self.by_task)[generator.choice(len(self.share), p=self.share)]
        case = _some_case(self.by_task[task], generator)
        strength = self.teaching.augmentation * self.strength.get(task, 1.0)
        window = random_window(
            case.grid,
            self.config.entry(task).window,
            _focus(case, generator),
            generator,
            strength=strength,
            mirrored=case.mirrored,
        )
        sample = draw(case, self.config, window, with_features=self.config.amalgamation != "none")
        changes = intensity_changes(strength)
        changes.set_random_state(seed=int(generator.integers(2**31)))
        if strength:
            changed: Any = changes(sample.image[0])
            sample.image = torch.as_tensor(np.asarray(changed), dtype=torch.float32)[None]
        if sample.features is not None:
            n = len(self.config.experts)
            sample.features.state = draw_states(self.teaching, n, step, generator)
        return sample

    def loss(self, network: nn.Module, sample: Sample, step: int) -> dict[str, Tensor]:
        """Return the loss and its terms for one window."""
        device = next(network.parameters()).device
        image, target, valid = (t.to(device) for t in (sample.image, sample.target, sample.valid))
        features = None if sample.features is None else sample.features.to(device)
        encoded = network(image, features, self.teaching.token_noise)
        logits = encoded.logits[:, list(self.config.outputs(sample.task))]
        progress = step / max(self.teaching.steps, 1)
        weight = 1 + (self.teaching.positive_weight - 1) * (1 - progress)
        terms = {
            "labels": segmentation_loss(logits, target, valid, weight) * self.teaching.label_weight
        }
        if sample.soft is not None and sample.inside is not None and self.teaching.distillation:
            kd = distillation_loss(logits, sample.soft.to(device), sample.inside.to(device))
            terms["distillation"] = self.teaching.distillation * kd
        if features is not None and encoded.coarse:
            aligned = alignment_loss(encoded.coarse, features.masks, features.state)
            terms["alignment"] = self.teaching.alignment * aligned
            own = self._own_expert(sample)
            if own is not None and self.teaching.routing:
                levels = [*(result.weights for result in encoded.coarse.values()), encoded.weights]
                strength = self.teaching.routing * (1 - 0.8 * progress)
                terms["routing"] = strength * routing_loss(levels, own)
            if progress < 0.2:
                terms["collapse"] = self.teaching.collapse * collapse_loss(encoded.weights)
        terms["loss"] = torch.stack(list(terms.values())).sum()
        terms[f"labels_{sample.task}"] = terms["labels"]
        return terms

    def _own_expert(self, sample: Sample) -> int | None:
        """Return the index of the task's own expert, if there is one and it has run."""
        names = [expert.name for expert in self.config.experts]
        if sample.task not in names or sample.features is None:
            return None
        own = names.index(sample.task)
        return own if int(sample.features.state[0, own]) == REAL else None


def draw_states(
    teaching: Teaching, n_experts: int, step: int, generator: np.random.Generator
) -> Tensor:
    """Draw which experts of a window are real, hallucinated or absent.

    Parameters
    ----------
    teaching : Teaching
        How often each happens.
    n_experts : int
        The student's.
    step : int
        Of the training.
    generator : numpy Generator
        What is drawn from.

    Returns
    -------
    Tensor
        States of shape (1, `n_experts`), see `napari_ka2er.model.alignment`.
    """
    state = np.full(n_experts, REAL)
    if step >= teaching.mixed_from * teaching.steps:
        kind, alone = generator.random(), teaching.alone
        if kind < alone:
            state[:] = HALLUCINATED
        elif kind < alone + (1 - alone) * _SOME:  # as in sparse mode
            real = generator.random(n_experts) < 0.5
            state[~real] = HALLUCINATED
    state[generator.random(n_experts) < teaching.expert_dropout] = ABSENT
    return torch.from_numpy(state)[None]


def _some_case(cases: Sequence[PreparedCase], generator: np.random.Generator) -> PreparedCase:
    """Return a random case, drawn by weight."""
    weights = np.array([case.weight for case in cases])
    if (weights == weights[0]).all():
        return cases[int(generator.integers(len(cases)))]
    return cases[int(generator.choice(len(cases), p=weights / weights.sum()))]


def _focus(case: PreparedCase, generator: np.random.Generator) -> np.ndarray[Any, Any] | None:
    """Return a voxel of a random label two times out of three, if there is one."""
    points = [found for found in case.focus if len(found)]
    if not points or generator.random() > 2 / 3:
        return None
    chosen = points[generator.integers(len(points))]
    voxel: np.ndarray[Any, Any] = chosen[generator.integers(len(chosen))]
    return voxel
