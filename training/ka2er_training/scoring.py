"""Evaluations that are kept: the same student on the same case is evaluated once.

A student (or expert) is known by its digest, a case by the digests of its image and label, so that
a new case of a hold-out, or a corrected label, is evaluated anew, and nothing else is: the current
student's results outlast the rounds that it stays in use.  Dice alone is measured, which is what
the gate decides by; `ka2er evaluate` measures surfaces too.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.evaluate import Row, compared
from ka2er_training.evaluate_workspace import labelled
from ka2er_training.holdout_features import features_folder
from ka2er_training.segmenters import ExpertSegmenter, Look, StudentSegmenter
from ka2er_training.workspace import SPLITS, read_json, write_json
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.device import resolve_device
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.evaluate import LabelledCase, Segmenter
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.config import Mode

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]

_FORMAT = 3  # raised when the same student would get other numbers


@dataclass(frozen=True, slots=True)
class System:
    """A student or an expert to evaluate.

    Parameters
    ----------
    identity : str
        What decides its results: digest and mode.
    segmenter : Segmenter
        At work.
    tasks : tuple of str
        What it knows.
    experts : tuple of str
        Names of a student's experts.
    """

    identity: str
    segmenter: Segmenter
    tasks: tuple[str, ...]
    experts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a system found in a case.

    Parameters
    ----------
    case : LabelledCase
        Which.
    rows : tuple of Row
        One per label; Dice only.
    weights : tuple of float or None
        Mean trust in each of the student's experts, and last in none.
    """

    case: LabelledCase
    rows: tuple[Row, ...]
    weights: tuple[float, ...] | None = None


def student_system(
    folder: Path, mode: Mode = "sparse", device: str = "cpu", workspace: Workspace | None = None
) -> System:
    """Return the student in a folder; with a workspace it shares experts' features with others."""
    loaded = load_student(folder, resolve_device(device))
    tasks = tuple(entry.task.name for entry in loaded.config.tasks)
    experts = tuple(entry.name for entry in loaded.config.experts)
    features = None if workspace is None else features_folder(workspace)
    segmenter = StudentSegmenter(loaded, mode, f"{folder.name}-{mode}", features)
    return System(f"{loaded.digest}-{mode}", segmenter, tasks, experts)


def expert_system(folder: Path, device: str = "cpu") -> System:
    """Return the expert in a folder."""
    expert = Expert.load(folder, resolve_device(device))
    name = expert.task.name
    return System(expert.digest, ExpertSegmenter(expert, f"expert {name}"), (name,))


def rows_of(
    workspace: Workspace,
    system: System,
    task: str,
    split: str = "holdout",
    *,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> list[Row]:
    """Return a system's rows on a task's cases (none without cases); see `results_of`."""
    found = results_of(workspace, system, task, split, progress=progress, cancelled=cancelled)
    return [row for result in found for row in result.rows]


def results_of(
    workspace: Workspace,
    system: System,
    task: str,
    split: str = "holdout",
    *,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> list[CaseResult]:
    """Return what a system found in a task's cases, each evaluated once.

    Parameters
    ----------
    workspace : Workspace
        Its ``reports/evaluations/IDENTITY`` keeps a file per case, and the mask beside it.
    system : System
        Must know the task.
    task : str
        Which.
    split : str
        ``"holdout"``, or ``"held"`` for corrections that are kept from training.
    progress, cancelled : callable, optional
        Told the share done; asked before every case.  Cases that are done are kept.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    found = []
    cases = _cases(workspace, task, split)
    for i, case in enumerate(cases):
        if cancelled is not None and cancelled():
            raise CancelledError
        if progress is not None:
            progress(i / len(cases), f"{system.segmenter.name}: {case.name}")
        place = _place(workspace, system, case)
        found.append(_kept(place, system, case) or _evaluated(place, system, case))
    return found


def mask_of(workspace: Workspace, system: System, case: LabelledCase) -> NDArray[Any]:
    """Return the label map (Z, Y, X) of a case, predicted if it is not kept from an evaluation."""
    place = _place(workspace, system, case)
    if not _mask(place).is_file():
        _evaluated(place, system, case)
    with np.load(_mask(place)) as kept:
        labels: NDArray[Any] = kept["labels"]
    return labels


def forget_masks(workspace: Workspace, kept: Collection[str]) -> None:
    """Remove the masks of all systems but those with these identities; numbers stay."""
    wanted = {_name(identity) for identity in kept}
    for folder in (workspace.folder / "reports" / "evaluations").glob("*"):
        if folder.name not in wanted:
            for path in folder.glob("*.npz"):
                path.unlink(missing_ok=True)


def _cases(workspace: Workspace, task: str, split: str) -> list[LabelledCase]:
    cases = {"holdout": workspace.holdout_cases, "held": workspace.held_cases}[split](task)
    return labelled(workspace, task, cases)


def _kept(place: Path, system: System, case: LabelledCase) -> CaseResult | None:
    if not place.is_file():
        return None
    told = read_json(place)
    rows = tuple(replace(Row.from_json(r), system=system.segmenter.name) for r in told["rows"])
    weights = told["weights"]
    return CaseResult(case, rows, None if weights is None else tuple(weights))


def _evaluated(place: Path, system: System, case: LabelledCase) -> CaseResult:
    """Segment a case; keep the mask and then the numbers."""
    volume = read_volume(case.image)
    wall, cpu = time.perf_counter(), time.process_time()
    found = _look(system.segmenter, volume, case.task)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    name = system.segmenter.name
    rows = compared(name, case, found.labels, volume.geometry, spent, surfaces=False)
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(_mask(place)) as partial:
        np.savez_compressed(partial, labels=found.labels)
    told = {"name": name, "rows": [row.to_json() for row in rows], "weights": found.weights}
    write_json(place, told)
    return CaseResult(case, tuple(rows), found.weights)


def _look(segmenter: Segmenter, volume: Volume, task: Task) -> Look:
    if isinstance(segmenter, StudentSegmenter):
        return segmenter.look(volume, task)
    return Look(segmenter.segment(volume, task))


def _mask(place: Path) -> Path:
    return place.with_suffix(".npz")


def _name(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _place(workspace: Workspace, system: System, case: LabelledCase) -> Path:
    """Return the file of a case; its name covers everything that the numbers depend on.

    The value of unreviewed voxels need not be in it: it comes once and never changes, and a label
    that has such voxels has another digest than one without.
    """
    task, entry = case.task, _entry(workspace, case)
    parts: list[Any] = [_FORMAT, version("napari-ka2er"), system.identity, task.to_json()]
    parts += [entry["id"], entry["image"], entry["label"], SPLITS[entry["split"]][1]]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    folder = workspace.folder / "reports" / "evaluations" / _name(system.identity)
    return folder / f"{task.name}-{key[:24]}.json"


def _entry(workspace: Workspace, case: LabelledCase) -> dict[str, Any]:
    return next(c for c in workspace.manifest(case.task.name) if c["id"] == case.name)
