"""A workspace with two tasks, their untrained experts and a hardly trained student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.folders import make_expert
from tests.training.conftest import write_raw

from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.round_state import RoundOptions
from ka2er_training.sources import read_source
from ka2er_training.students import AmalgamationPlan, amalgamate_workspace
from ka2er_training.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

SHORT = "\n[presets.tiny]\nepochs = 10\niterations = 2\nval_iterations = 1\n"
# Long enough that each stage can be caught at work, short enough for two cores.
LENGTHS = RoundOptions(steps=3, polish_steps=2, click_steps=2, expert_epochs=2, checkpoint_every=1)
FLAGS = [
    "--steps", "3", "--polish-steps", "2", "--click-steps", "2", "--expert-epochs", "2",
    "--checkpoint-every", "1", "--device", "cpu",
]  # fmt: skip


def make_workspace(folder: Path) -> Workspace:
    """Return a workspace with the tasks balls and others and the student v0001."""
    workspace = Workspace.create(folder / "work")
    for seed, (name, first) in enumerate((("balls", 0), ("others", 50))):
        source = read_source(write_raw(folder / name, first=first))
        add_task(workspace, source, TaskOptions(name=name, spacing_mm=(2, 2, 2)))
        workspace = Workspace.open(workspace.folder)
        place = workspace.expert_folder(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        make_expert(place, workspace.record(name).task, seed)
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text() + SHORT)
    workspace = Workspace.open(workspace.folder)
    amalgamate_workspace(workspace, AmalgamationPlan(steps=2, polish_steps=1, click_steps=1))
    return workspace
