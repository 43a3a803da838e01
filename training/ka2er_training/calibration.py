"""What a new student takes from its experts: statistics of features, and last layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ka2er_training.cases import PreparedCase
    from napari_ka2er.model.alignment import FeatureMapLike
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
        The training volumes.  A stage of which none has a token inside its image keeps mean 0 and
        deviation 1, nearly those of nnU-Net's instance normalisation.
    """
    generator = np.random.default_rng(0)
    tasks = sorted({case.task for case in cases})
    chosen = [c for task in tasks for c in _some([c for c in cases if c.task == task], generator)]
    for (stride, k), scale in student.standardisers().items():
        stage = student.config.experts[k].stages[stride]
        found = [_tokens(case.views[k][stage], generator) for case in chosen]
        tokens = np.concatenate(found, axis=1)
        if not tokens.size:
            continue
        mean, deviation = tokens.mean(axis=1), tokens.std(axis=1)
        scale.mean.copy_(torch.from_numpy(mean))
        scale.deviation.copy_(torch.from_numpy(np.maximum(deviation, 1e-3 * (1 + np.abs(mean)))))


def _some(
    cases: list[PreparedCase], generator: np.random.Generator, n: int = 8
) -> list[PreparedCase]:
    return [cases[i] for i in generator.permutation(len(cases))[:n]]


def _tokens(stored: FeatureMapLike, generator: np.random.Generator) -> Any:
    """Draw tokens (C, N) that lie in the image; none if there are none.

    A small crop lies in a wide lattice of padding, which the student is never shown.  Of few tokens
    each is drawn often, so that a small volume counts as much as a large one.
    """
    data = stored.data
    low = np.maximum(np.ceil(stored.field[0]), 0).astype(int)
    end = np.minimum(np.floor(stored.field[1]) + 1, data.shape[1:]).astype(int)
    if (end <= low).any():
        return np.empty((data.shape[0], 0), np.float32)
    drawn = np.sort(generator.integers(np.prod(end - low), size=_N_TOKENS))
    z, y, x = low[:, None] + np.unravel_index(drawn, tuple(end - low))
    return data[:, z, y, x].astype(np.float32)


def open_shortcut(
    student: Student,
    experts: Sequence[Expert],
    gain: float | None = 1.0,
    which: Collection[int] | None = None,
) -> None:
    """Let the experts' own logits, through a copy of their last layers, into the student's.

    Parameters
    ----------
    student : Student
        Changed in place; one without a shortcut stays as it is.
    experts : sequence of Expert
        In the student's order; those of the baseline without any are none.
    gain : float or None
        How much they count; None: as much as before, after experts were trained anew.
    which : collection of int, optional
        Indices of the experts whose layers are copied; by default all.
    """
    if student.shortcut is None:
        return
    for k, (entry, expert) in enumerate(zip(student.config.experts, experts, strict=True)):
        if (which is None or k in which) and _is_taught(expert, entry.stages[1]):
            student.shortcut.open(k, expert.head(entry.stages[1]), gain)


def _is_taught(expert: Expert, stage: int) -> bool:
    """Return whether a stage has a layer for logits, and a trained one.

    nnU-Net's deep supervision weighs the coarsest output with 0.  Trainers without it, which teach
    the finest output alone, are told by their names, as where experts are converted.
    """
    supervised = "NoDeepSupervision" not in expert.entry["trainer"]
    return stage == 0 or (supervised and stage < len(expert.stage_channels) - 2)
