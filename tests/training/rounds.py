"""A workspace with two tasks, their untrained experts and an untrained student."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tests.model.folders import make_expert
from tests.training.conftest import write_raw

from ka2er_training.amalgamate import task_entries
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.plan import preset, student_config
from ka2er_training.registry import add_student, make_current
from ka2er_training.round_state import RoundOptions
from ka2er_training.sources import read_source
from ka2er_training.students import ingredients_of
from ka2er_training.workspace import Workspace
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from pathlib import Path

# The untrained experts' plans are nnU-Net's own, so that this is their preset.
SHORT = "\n[presets.standard]\nepochs = 10\niterations = 2\nval_iterations = 1\nsave_every = 1\n"
# Long enough that each stage can be caught at work, short enough for two cores.
LENGTHS = RoundOptions(steps=3, polish_steps=2, click_steps=2, expert_epochs=2, checkpoint_every=1)
FLAGS = [
    "--steps", "3", "--polish-steps", "2", "--click-steps", "2", "--expert-epochs", "2",
    "--checkpoint-every", "1", "--device", "cpu",
]  # fmt: skip


def make_workspace(folder: Path) -> Workspace:
    """Return a workspace with the tasks balls and others and the untrained student v0001."""
    workspace = Workspace.create(folder / "work")
    for seed, (name, first) in enumerate((("balls", 0), ("others", 50))):
        source = read_source(write_raw(folder / name, 3, first=first))
        add_task(workspace, source, TaskOptions(name=name, spacing_mm=(2, 2, 2)))
        workspace = Workspace.open(workspace.folder)
        place = workspace.expert_folder(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        make_expert(place, workspace.record(name).task, seed)
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8") + SHORT)
    workspace = Workspace.open(workspace.folder)
    _add_untrained(workspace)
    return workspace


def _add_untrained(workspace: Workspace) -> None:
    ingredients, sizes = ingredients_of(workspace), preset("tiny")
    config = student_config(
        task_entries(ingredients, sizes), ingredients.experts, sizes, "attention"
    )
    torch.manual_seed(0)
    experts = {name: workspace.expert_folder(name) for name in workspace.tasks}
    make_current(workspace, add_student(workspace, Student(config), {}, experts))
