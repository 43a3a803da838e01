"""What a new student takes from its experts: statistics of features, and last layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ka2er_training.cases import PreparedCase
    from napari_ka2er.model.experts import Expert
    from napari_ka2er.model.student import Student

_N_TOKENS = 4000  # tokens per volume and stage that the frozen statistics are taken from


def calibrate(student: Student, cases: Sequence[PreparedCase]) -> None:
    """Set the frozen statistics of the experts' channels from the training volumes.

    Every task counts alike, so that the statistics are not those of the largest dataset.

    Parameters
    ----------
    student : Student
        Changed in place.
    cases : sequence of PreparedCase
        The training volumes.
    """
    generator = np.random.default_rng(0)
    tasks = sorted({case.task for case in cases})
    chosen = [c for task in tasks for c in _some([c for c in cases if c.task == task], generator)]
    for (stride, k), scale in student.standardisers().items():
        stage = student.config.experts[k].stages[stride]
        tokens = np.concatenate(
            [_tokens(case.views[k][stage].data, generator) for case in chosen], axis=1
        )
        mean, deviation = tokens.mean(axis=1), tokens.std(axis=1)
        scale.mean.copy_(torch.from_numpy(mean))
        scale.deviation.copy_(torch.from_numpy(np.maximum(deviation, 1e-3 * (1 + np.abs(mean)))))


def _some(
    cases: list[PreparedCase], generator: np.random.Generator, n: int = 8
) -> list[PreparedCase]:
    return [cases[i] for i in generator.permutation(len(cases))[:n]]


def _tokens(data: Any, generator: np.random.Generator) -> Any:
    flat = data.reshape(data.shape[0], -1)
    columns = np.sort(generator.integers(flat.shape[1], size=min(_N_TOKENS, flat.shape[1])))
    return flat[:, columns].astype(np.float32)


def open_shortcut(student: Student, experts: Sequence[Expert], gain: float | None = 1.0) -> None:
    """Let the experts' own logits, through a copy of their last layers, into the student's.

    Parameters
    ----------
    student : Student
        Changed in place; one without a shortcut stays as it is.
    experts : sequence of Expert
        In the student's order; those of the baseline without any are none.
    gain : float or None
        How much they count; None: as much as before, after experts were trained anew.
    """
    if student.shortcut is None:
        return
    for k, (entry, expert) in enumerate(zip(student.config.experts, experts, strict=True)):
        if entry.stages[1] < len(expert.stage_channels) - 1:  # the bottleneck has no such layer
            student.shortcut.open(k, expert.head(entry.stages[1]), gain)
