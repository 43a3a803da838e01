"""Decide a student's sizes from its tasks, experts and a preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ka2er_training.schedule import Schedule
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.config import (
    STRIDES,
    ExpertEntry,
    StudentConfig,
    TaskEntry,
    has_shortcut,
)
from napari_ka2er.model.expert_look import working_spacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ka2er.core.task import Task
    from napari_ka2er.model.experts import Expert

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StudentPreset:
    """Sizes and lengths for a kind of machine.

    Parameters
    ----------
    name : str
        ``"tiny"`` for two CPU cores, ``"base"`` for a GPU.
    feature_size, attention_window, width, heads, dense_width, merge_width : int
        See `StudentConfig`.
    use_v2 : bool
        See `StudentConfig`.
    window_voxels : int
        Largest window.
    max_window : int
        Longest edge of a window.
    schedule : Schedule
        Of the amalgamation.
    polish : Schedule
        Of hallucinators and gate, all else frozen.
    clicks : Schedule
        Of the prompts, with the trunk frozen.
    foundation_rate : float
        Factor on the learning rate of pre-trained Swin weights.
    sparse_threshold : float
        See `StudentConfig`.
    """

    name: str
    feature_size: int
    attention_window: int
    width: int
    heads: int
    dense_width: int
    merge_width: int
    use_v2: bool
    window_voxels: int
    max_window: int
    schedule: Schedule
    polish: Schedule
    clicks: Schedule
    foundation_rate: float = 0.1
    sparse_threshold: float = 0.1


PRESETS = {
    "tiny": StudentPreset(
        "tiny", 12, 4, 48, 4, 16, 12, False, 131072, 64,
        Schedule(steps=800, batch=2, learning_rate=1e-3),
        Schedule(steps=200, batch=2, learning_rate=1e-3),
        Schedule(steps=300, batch=2, learning_rate=2e-3),
    ),
    "base": StudentPreset(
        "base", 48, 7, 128, 8, 32, 32, False, 96**3, 96,
        Schedule(60_000, 4, 2e-4, 2000, weight_decay=1e-5, ema=0.999, checkpoint_every=500),
        Schedule(5_000, 4, 2e-4, 200, ema=0.999, checkpoint_every=500),
        Schedule(20_000, 4, 4e-4, 500, ema=0.999, checkpoint_every=500),
    ),
}  # fmt: skip


def preset(name: str) -> StudentPreset:
    """Return a preset by name.

    Raises
    ------
    UserError
        If there is none.
    """
    if name not in PRESETS:
        raise UserError(f"a preset ({', '.join(PRESETS)})", repr(name))
    return PRESETS[name]


def window_for(size: Sequence[float], limits: StudentPreset) -> tuple[int, int, int]:
    """Return the window for volumes of a typical size.

    Parameters
    ----------
    size : sequence of float
        Median size (Z, Y, X) of the task's volumes, in grid voxels.
    limits : StudentPreset
        Longest edge and most voxels of a window.

    Returns
    -------
    tuple of int
        Multiples of 32 that do not reach far over the volume; the longest axes are served first.
    """
    window = np.array([32, 32, 32])
    wanted = np.clip(np.round(np.array(size) / 32) * 32, 32, limits.max_window).astype(int)
    for _ in range(limits.max_window // 32):
        for axis in np.argsort(size)[::-1]:
            larger = window.copy()
            larger[axis] += 32
            if larger[axis] <= wanted[axis] and larger.prod() <= limits.window_voxels:
                window = larger
    if window.prod() == 32**3:  # instance normalisation needs two tokens at the coarsest stage
        window[int(np.argmax(size))] = 64
    return int(window[0]), int(window[1]), int(window[2])


def expert_entry(expert: Expert, spacing_mm: Triple) -> ExpertEntry:
    """Return how an expert enters a student that sees the expert's task at a spacing.

    For each of the student's strides, the stage whose tokens are most nearly as far apart at the
    spacing at which the expert works there, which may be coarser than its planned one.  The choice
    holds for volumes of all tasks, as the number of channels must not change.
    """
    upright = Geometry((1, 1, 1), np.eye(4))
    works_at = working_spacing(expert.spacing_mm, upright, spacing_mm)
    pitches = [float(np.prod(works_at) * np.prod(s)) ** (1 / 3) for s in expert.strides]
    grid = float(np.prod(spacing_mm)) ** (1 / 3)
    stages = {
        stride: int(np.argmin([abs(np.log2(pitch / (grid * stride))) for pitch in pitches]))
        for stride in STRIDES
    }
    channels = {stride: int(expert.stage_channels[stage]) for stride, stage in stages.items()}
    return ExpertEntry(expert.task.name, expert.digest, stages, channels)


def student_config(
    tasks: Sequence[TaskEntry], experts: Sequence[Expert], sizes: StudentPreset, amalgamation: str
) -> StudentConfig:
    """Return the configuration of a student for `tasks` with `experts`."""
    own = {entry.task.name: entry.spacing_mm for entry in tasks}
    return StudentConfig(
        tasks=tuple(tasks),
        experts=tuple(expert_entry(e, own.get(e.task.name, tasks[0].spacing_mm)) for e in experts),
        feature_size=sizes.feature_size,
        attention_window=sizes.attention_window,
        use_v2=sizes.use_v2,
        width=sizes.width,
        heads=sizes.heads,
        dense_width=sizes.dense_width,
        merge_width=sizes.merge_width,
        amalgamation=amalgamation,  # type: ignore[arg-type]
        sparse_threshold=sizes.sparse_threshold,
        shortcut=has_shortcut(amalgamation),
    )


def task_entry(
    task: Task, spacing_mm: Triple, extents_mm: Sequence[Triple], sizes: StudentPreset
) -> TaskEntry:
    """Return a task's entry from the extents (Z, Y, X) of its training volumes on canonical axes.

    Raises
    ------
    UserError
        If there are no training volumes.
    """
    if not extents_mm:
        raise UserError(f"training volumes of task {task.name}", "none")
    median = np.median(np.array(extents_mm), axis=0)
    return TaskEntry(
        task=task,
        spacing_mm=spacing_mm,
        window=window_for(median / np.array(spacing_mm), sizes),
        extent_mm=(float(median[0]), float(median[1]), float(median[2])),
    )
