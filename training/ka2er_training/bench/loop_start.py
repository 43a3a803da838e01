"""The cells that the loop starts from: a workspace with experts, then a student, of few cases."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import tomli_w

from ka2er_training import settings as workspace_settings
from ka2er_training.bench.cells import cpu_seconds
from ka2er_training.bench.loop_copies import copy_workspace
from ka2er_training.bench.settings import TaskSettings
from ka2er_training.bench.splits import patient_of
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.experts import ExpertPlan, train_expert
from ka2er_training.ledger import DATA_LOCK, settle, write_cases
from ka2er_training.registry import current
from ka2er_training.sources import read_source
from ka2er_training.students import AmalgamationPlan, amalgamate_workspace
from ka2er_training.workspace import SETTINGS_FILE, Workspace, write_json, write_text
from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means

STAGES = "stages.json"


@contextmanager
def timed(stages: Path, name: str) -> Iterator[None]:
    """Add the wall and CPU seconds of the block to those of a stage, also if it is stopped."""
    known = read_stages(stages)
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        yield
    finally:
        spent = known.get(name, {"seconds": 0.0, "cpu_s": 0.0})
        known[name] = {
            "seconds": round(spent["seconds"] + time.perf_counter() - wall, 2),
            "cpu_s": round(spent["cpu_s"] + cpu_seconds() - cpu, 2),
        }
        write_json(stages, known)


def read_stages(stages: Path) -> dict[str, dict[str, float]]:
    """Return what each stage has taken so far; empty before the first."""
    if not stages.exists():
        return {}
    known: dict[str, dict[str, float]] = json.loads(stages.read_text(encoding="utf-8"))
    return known


def experts_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Train experts on the first cases, in a workspace of their own; a stopped run is resumed."""
    folder, settings = store.folder_of(cell), cell.settings
    workspace = start_workspace(folder / "workspace", settings, means)
    train_experts(workspace, settings, folder / STAGES, means)
    return {
        "stages": read_stages(folder / STAGES),
        "n_training": {t: len(workspace.training_cases(t)) for t in workspace.tasks},
        "n_holdout": {t: len(workspace.holdout_cases(t)) for t in workspace.tasks},
    }


def start_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Amalgamate the first experts; a stopped run is resumed."""
    folder, before = store.folder_of(cell), cell.needs[0]
    home = folder / "workspace"
    if not home.exists():
        with replacing(home) as partial:
            copy_workspace(store.folder_of(before) / "workspace", partial)
    workspace = Workspace.open(home)
    train_first(workspace, cell.settings, folder / STAGES, means)
    told = store.result(before)
    stages = {**told["stages"], **read_stages(folder / STAGES)}
    return {**told, "student": current(workspace), "stages": stages}


def train_experts(
    workspace: Workspace, settings: Mapping[str, Any], stages: Path, means: Means
) -> None:
    """Train every expert that is not there yet."""
    budget = settings["expert"]
    for task in workspace.tasks:
        if (workspace.expert_folder(task) / "expert.json").is_file():
            continue
        plan = ExpertPlan(budget["preset"], budget["loss"], True, means.device, settings["seed"])
        epochs = settings["tasks"][task]["epochs"]
        with timed(stages, f"expert {task}"):
            train_expert(
                with_epochs(workspace, budget["preset"], epochs), task, plan,
                progress=means.progress, cancelled=means.cancelled,
            )  # fmt: skip


def train_first(
    workspace: Workspace, settings: Mapping[str, Any], stages: Path, means: Means
) -> None:
    """Amalgamate the workspace's first student, unless it is there."""
    if current(workspace) is not None:
        return
    plan = AmalgamationPlan(
        **settings["student"], seed=settings["seed"], device=means.device, resume=True
    )
    with timed(stages, "student"):
        amalgamate_workspace(workspace, plan, progress=means.progress, cancelled=means.cancelled)


def with_epochs(workspace: Workspace, preset: str, epochs: int) -> Workspace:
    """Return the workspace with another length of experts' training, for this process only."""
    presets = dict(workspace.settings.presets)
    presets[preset] = dataclasses.replace(presets[preset], epochs=epochs)
    settings = dataclasses.replace(workspace.settings, presets=presets)
    return dataclasses.replace(workspace, settings=settings)


def start_workspace(folder: Path, settings: Mapping[str, Any], means: Means) -> Workspace:
    """Open the cell's workspace, or make it: the tasks with their first cases and hold-outs."""
    if not (folder / SETTINGS_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        Workspace.create(folder)
        budget = settings["expert"]
        text = {
            "format": workspace_settings.FORMAT,
            # The benchmark's own split decides, see `_hold_out`.
            "holdout": {"share": 0.0},
            "presets": {
                budget["preset"]: {"epochs": settings["tasks"][settings["corrected"]]["epochs"]}
            },
        }
        write_text(folder / SETTINGS_FILE, tomli_w.dumps(text))
    for name, given in settings["tasks"].items():
        workspace = Workspace.open(folder)
        if name not in workspace.tasks:
            _add(workspace, name, given, means)
        _hold_out(Workspace.open(folder), name, given)
    return Workspace.open(folder)


def _add(workspace: Workspace, name: str, given: Mapping[str, Any], means: Means) -> None:
    source = read_source(means.data / given["split"]["folder"])
    wanted = {*given["start"], *given["holdout"]}
    source = dataclasses.replace(source, cases=tuple(c for c in source.cases if c.id in wanted))
    spacing = tuple(given["split"]["spacing_mm"])
    add_task(workspace, source, TaskOptions(name=name, spacing_mm=spacing))


def _hold_out(workspace: Workspace, name: str, given: Mapping[str, Any]) -> None:
    """Let the benchmark's split by patient be the task's hold-out, and tell the patients."""
    rules = TaskSettings(**given["split"])
    cases = [
        {
            **case,
            "patient": patient_of(case["id"], rules),
            "split": "holdout" if case["id"] in given["holdout"] else "training",
        }
        for case in workspace.manifest(name)
    ]
    with workspace.lock(DATA_LOCK):
        write_cases(workspace, name, cases)
        settle(workspace, name)
