"""Amalgamate a workspace's experts into a student."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ka2er_training.calibration import calibrate, open_shortcut
from ka2er_training.cases import PreparedCase, Source, prepare_case
from ka2er_training.distributed import first_alone
from ka2er_training.loop import train
from ka2er_training.plan import StudentPreset, student_config, task_entry
from ka2er_training.polish import polish
from ka2er_training.sides import has_sides
from ka2er_training.student_work import student_work
from ka2er_training.teaching import lasting
from ka2er_training.transfer import in_common, take_over
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.metrics import volumes_ml
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.config import STRIDES, StudentConfig, TaskEntry
from napari_ka2er.model.fingerprints import fingerprint, task_fingerprint
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ka2er_training.recipe import Ingredients, Recipe
    from napari_ka2er.model.experts import Expert

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]

logger = logging.getLogger(__name__)

SWIN = "foundation.net.swinViT"
# Share of the steps in which what is new learns beside a pre-trained foundation that stays as it
# is: the first gradients through fresh layers would only spoil it.
FOUNDATION_WAITS = 0.1
# Trained later, on clicks; distributed training also insists that whatever is trained is used.
PROMPT_SIDE = ("prompt_encoder", "mask_decoder", "class_tokens", "to_gold", "to_dense")


def task_entries(ingredients: Ingredients, sizes: StudentPreset) -> list[TaskEntry]:
    """Return the student's task entries: windows and fingerprints from the training volumes."""
    entries = []
    for name, (task, spacing) in ingredients.tasks.items():
        prints = [fingerprint(read_volume(s.image)) for s in ingredients.sources if s.task == name]
        entry = task_entry(task, spacing, [tuple(p["extent_mm"]) for p in prints], sizes)
        known = task_fingerprint(prints) | most_labelled(ingredients.sources, name)
        entries.append(dataclasses.replace(entry, intensity=known))
    return entries


def most_labelled(sources: Sequence[Source], task: str) -> dict[str, float]:
    """Return how much the labels of one volume measure at most: ``most_ml``, or nothing."""
    sizes = []
    for source in sources:
        if source.task == task and source.label is not None:
            labels, geometry = read_labels(source.label)
            values = [v for v in np.unique(labels).tolist() if v not in (0, source.ignore)]
            sizes.append(sum(volumes_ml(labels, geometry, values).values()))
    return {"most_ml": round(max(sizes), 3)} if sizes else {}


def prepare_cases(
    ingredients: Ingredients,
    config: StudentConfig,
    cache: Path,
    *,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> list[PreparedCase]:
    """Return all training volumes on the student's grids, with every expert's features on disk.

    Raises
    ------
    CancelledError
        If it was stopped; what is on disk is used next time.
    """
    cases = []
    experts = ingredients.experts if config.amalgamation != "none" else ()
    for i, source in enumerate(ingredients.sources):
        if cancelled is not None and cancelled():
            raise CancelledError(f"stopped at volume {i} of {len(ingredients.sources)}")
        cases.append(prepare_case(source, config.entry(source.task), experts, cache))
        if progress is not None:
            progress((i + 1) / len(ingredients.sources), f"features of {source.name}")
    return cases


def new_student(
    config: StudentConfig,
    recipe: Recipe,
    cases: Sequence[PreparedCase],
    experts: Sequence[Expert] = (),
) -> Student:
    """Return an untrained student: seeded weights, foundation loaded, statistics calibrated."""
    torch.manual_seed(recipe.seed)
    student = Student(config)
    if recipe.foundation is not None:
        student.foundation.load_pretrained(recipe.foundation)
    if recipe.saves_memory:
        _keep_no_features(student)
    if config.amalgamation != "none":
        calibrate(student, cases)
    if experts:
        open_shortcut(student, experts)
    if recipe.parent is not None:
        take_over(student, load_student(recipe.parent).student)
    return student


def _check_start(config: StudentConfig, recipe: Recipe) -> None:
    """Refuse weights to begin with that do not fit."""
    if recipe.foundation is not None:
        Student(config).foundation.load_pretrained(recipe.foundation)
    if recipe.parent is not None:
        in_common(config, load_student(recipe.parent).config)


def _keep_no_features(student: Student) -> None:
    """Let MONAI's Swin blocks use gradient checkpointing."""
    for block in student.foundation.modules():
        if hasattr(block, "use_checkpoint"):
            setattr(block, "use_checkpoint", True)  # noqa: B010 (MONAI's, of which types know nothing)


def train_student(
    student: Student,
    cases: Sequence[PreparedCase],
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Student:
    """Train the trunk: foundation, amalgamation and decoder.

    Parameters
    ----------
    student : Student
        Changed in place.
    cases : sequence of PreparedCase
        Training volumes.
    recipe : Recipe
        Schedule and losses.
    out : Path
        Folder of the checkpoint and the log.
    resume, device, progress, cancelled
        See `ka2er_training.loop.train`.

    Returns
    -------
    Student
        With averaged weights.
    """
    if not any(case.is_labelled for case in cases) and not recipe.teaching.distillation:
        raise UserError("labelled training volumes", "none", "add a task with labels")
    _tell_of_sides(student.config, cases)
    rates = {"fine": 2.0, "coarse": 2.0}  # small, and zero-initialised at their ends
    late = {}
    if recipe.foundation or recipe.parent:
        rates[SWIN], late[SWIN] = recipe.sizes.foundation_rate, FOUNDATION_WAITS
    work = student_work(
        student.config,
        cases,
        recipe.teaching,
        frozen=PROMPT_SIDE,
        rates=rates,
        late=late,
    )
    averaged = train(
        student, work, recipe.sizes.schedule, out,
        resume=resume, device=device, progress=progress, cancelled=cancelled,
    )  # fmt: skip
    assert isinstance(averaged, Student)
    return averaged


def _tell_of_sides(config: StudentConfig, cases: Sequence[PreparedCase]) -> None:
    """Log which tasks' windows are not swapped left to right, and why."""
    for name in sorted({case.task for case in cases if not case.mirrored}):
        sided = has_sides(config.entry(name).task)
        reason = "labels are named by side" if sided else "expert was not trained on mirrored ones"
        logger.info("%s: windows are not swapped left to right, as its %s", name, reason)


def amalgamate(
    ingredients: Ingredients,
    recipe: Recipe,
    out: Path,
    cache: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> tuple[Student, dict[str, Any]]:
    """Amalgamate experts into a student, from volumes to trained weights.

    Parameters
    ----------
    ingredients : Ingredients
        Tasks, volumes and experts.
    recipe : Recipe
        Sizes, schedule and losses.
    out, cache : Path
        Folder for checkpoints and logs; folder for features, which may be deleted at any time.
    resume, device, progress, cancelled
        See `ka2er_training.loop.train`.

    Returns
    -------
    student : Student
        Trained.
    notes : dict
        Steps, seconds per stage and numbers of cases, for the student's card.
    """
    start = time.monotonic()
    entries = task_entries(ingredients, recipe.sizes)
    config = student_config(entries, ingredients.experts, recipe.sizes, recipe.amalgamation)
    _check_start(config, recipe)  # features take hours: refuse what does not fit before them
    with first_alone():
        cases = prepare_cases(ingredients, config, cache, progress=progress, cancelled=cancelled)
    prepared = time.monotonic()
    student = new_student(config, recipe, cases, ingredients.experts)
    student = train_student(
        student, cases, recipe, out / "trunk",
        resume=resume, device=device, progress=progress, cancelled=cancelled,
    )  # fmt: skip
    student = polish(
        student, cases, recipe, out / "polish", resume=resume, device=device, cancelled=cancelled
    )
    notes = {
        "steps": recipe.steps,
        "seconds_features": round(prepared - start, 1),
        "seconds_trunk": round(time.monotonic() - prepared, 1),
        "n_cases": {name: sum(c.task == name for c in cases) for name in ingredients.tasks},
        "strides": list(STRIDES),
        "seed": recipe.seed,
        "teaching": lasting(recipe.teaching),
    }
    if recipe.parent is not None:
        notes["begun_with"] = load_student(recipe.parent).digest
    return student, notes
