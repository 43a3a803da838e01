"""Evaluations that are kept: the same student on the same cases is evaluated once.

A student (or expert) is known by its digest and cases by those of their images and labels, so that
a new version of the hold-out, or corrected labels, are evaluated anew, and nothing else is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ka2er_training.evaluate import Row, evaluate
from ka2er_training.evaluate_workspace import labelled
from ka2er_training.ledger import ignore_value
from ka2er_training.segmenters import ExpertSegmenter, StudentSegmenter
from ka2er_training.workspace import SPLITS, read_json, write_json
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ka2er_training.evaluate import Segmenter
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]


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
    """

    identity: str
    segmenter: Segmenter
    tasks: tuple[str, ...]


def student_system(folder: Path, mode: Mode = "sparse", device: str = "cpu") -> System:
    """Return the student in a folder."""
    loaded = load_student(folder, device)
    tasks = tuple(entry.task.name for entry in loaded.config.tasks)
    segmenter = StudentSegmenter(loaded, mode, f"{folder.name}-{mode}")
    return System(f"{loaded.digest}-{mode}", segmenter, tasks)


def expert_system(folder: Path, device: str = "cpu") -> System:
    """Return the expert in a folder."""
    expert = Expert.load(folder, device)
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
    """Return a system's rows on a task's cases (none without cases), kept in ``reports``.

    Parameters
    ----------
    workspace : Workspace
        Its ``reports`` folder keeps ``evaluation-DIGEST-TASK-DIGEST.json``.
    system : System
        Must know the task.
    task : str
        Which.
    split : str
        ``"holdout"``, or ``"held"`` for corrections that are kept from training.
    progress, cancelled : callable, optional
        See `ka2er_training.evaluate.evaluate`.
    """
    key = _key(workspace, system, task, split)
    name = f"evaluation-{system.identity[:12]}-{task}-{key[:12]}.json"
    path = workspace.folder / "reports" / name
    label = system.segmenter.name
    if path.exists() and (kept := read_json(path))["key"] == key:
        return [replace(Row.from_json(row), system=label) for row in kept["rows"]]
    cases = {"holdout": workspace.holdout_cases, "held": workspace.held_cases}[split](task)
    rows = evaluate(
        system.segmenter, labelled(workspace, task, cases), progress=progress, cancelled=cancelled
    )
    write_json(path, {"key": key, "name": label, "rows": [row.to_json() for row in rows]})
    return rows


def _key(workspace: Workspace, system: System, task: str, split: str) -> str:
    """Return the digest of everything that an evaluation depends on."""
    named = SPLITS[split][1]
    cases = sorted(
        (case["id"], case["image"], case["label"])
        for case in workspace.manifest(task)
        if case["split"] == split
    )
    parts: list[Any] = [system.identity, version("napari-ka2er"), task, named, cases]
    parts += [workspace.record(task).task.to_json(), ignore_value(workspace, task)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
