"""Small students for the tests; sizes differ on every axis so that a swap is noticed."""

from __future__ import annotations

import torch

from napari_ka2er.core.task import Label, Task
from napari_ka2er.model.alignment import REAL, WindowFeatures
from napari_ka2er.model.config import STRIDES, ExpertEntry, StudentConfig, TaskEntry
from napari_ka2er.model.student import Student

SHAPE = (32, 64, 32)
CHANNELS = ({16: 7, 8: 6, 4: 5, 2: 4, 1: 3}, {16: 4, 8: 4, 4: 3, 2: 2, 1: 2})
STAGES = {16: 4, 8: 3, 4: 2, 2: 1, 1: 0}


def small_config(**changes: object) -> StudentConfig:
    """Return a student of two tasks, three labels and two experts."""
    tasks = (
        TaskEntry(Task("one", (Label(1, "a"), Label(2, "b"))), (1.0, 1.0, 1.0), SHAPE),
        TaskEntry(Task("two", (Label(1, "c"),), "CT"), (5.0, 5.0, 5.0), (32, 32, 64)),
    )
    experts = tuple(
        ExpertEntry(name, f"digest-{name}", STAGES, channels)
        for name, channels in zip(("one", "two"), CHANNELS, strict=True)
    )
    settings = {"width": 24, "heads": 2, "dense_width": 8, "merge_width": 6, **changes}
    return StudentConfig(tasks=tasks, experts=experts, **settings)  # type: ignore[arg-type]


def small_student(*, awake: bool = False, **changes: object) -> Student:
    """Return an untrained student; `awake`: its zero-initialised projections are random."""
    torch.manual_seed(0)
    student = Student(small_config(**changes)).eval()
    if awake:
        for level in [*student.coarse.values(), *student.fine.values()]:
            torch.nn.init.normal_(level.out.weight, std=0.3)  # type: ignore[union-attr]
    return student


def window_features(seed: int = 0) -> WindowFeatures:
    """Return random features of two real experts that see the whole window."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {s: [n // s for n in SHAPE] for s in STRIDES}
    levels = {
        s: [torch.randn(1, c[s], *sizes[s], generator=generator) for c in CHANNELS] for s in STRIDES
    }
    masks = {s: torch.ones(1, 2, *sizes[s], dtype=torch.bool) for s in STRIDES}
    return WindowFeatures(levels, masks, torch.full((1, 2), REAL))
