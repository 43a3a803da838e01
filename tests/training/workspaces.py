"""Workspaces on which an amalgamation takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.folders import make_expert
from tests.training.conftest import write_raw

from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.sources import read_source
from ka2er_training.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path


def with_one_expert(folder: Path) -> Workspace:
    """Make a workspace with one small task and its untrained expert, always the same."""
    workspace = Workspace.create(folder / "work")
    add_task(workspace, read_source(write_raw(folder / "raw")), TaskOptions(spacing_mm=(2, 2, 2)))
    workspace = Workspace.open(workspace.folder)
    (task,) = workspace.tasks
    target = workspace.expert_folder(task)
    target.parent.mkdir(parents=True, exist_ok=True)
    make_expert(target, workspace.record(task).task, 0)
    return workspace
