"""What clicks add to a workspace's student on its hold-out."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.clicks import click_rows
from ka2er_training.evaluate_workspace import holdout_of, nothing_held_out
from ka2er_training.registry import student_folder
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from ka2er_training.evaluate import LabelledCase
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.loaded import LoadedStudent

logger = logging.getLogger(__name__)


def evaluate_clicks(
    workspace: Workspace,
    student: str | None = None,
    *,
    mode: Mode = "sparse",
    n_clicks: int = 5,
    max_cases: int = 6,
    perfect_mm: float | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Let a simulated user correct the student's automatic results.

    Parameters
    ----------
    workspace : Workspace
        Its hold-out is used.
    student, mode : str, optional
        Version, the current one by default, and mode.
    n_clicks : int
        Clicks per label, each into the largest error left; at least 1.
    max_cases : int
        At most so many cases of each task, the first by name; at least 1.
    perfect_mm : float, optional
        What clicks could be worth: the truth answers, so far around each click.
    device : str
        Where the student runs.

    Returns
    -------
    dict
        ``tasks``: per task the number of cases, the mean ``dice`` after 0, 1 … clicks and the share
        of what was missing to 1 that the clicks have ``closed``; and ``table``, the same as text.
        A task of which nothing is held out is left out, and a line is logged.

    Raises
    ------
    UserError
        If a number is below 1, there is no such student, or nothing is held out of any task.
    """
    if n_clicks < 1 or max_cases < 1:
        raise UserError("at least 1 click and 1 case", f"{n_clicks} and {max_cases}")
    loaded = load_student(student_folder(workspace, student), device)
    known = {entry.task.name for entry in loaded.config.tasks}
    tasks = {}
    for task in (name for name in workspace.tasks if name in known):
        cases = holdout_of(workspace, task)[:max_cases]
        rows = [row for case in cases for row in _rows(loaded, mode, case, (n_clicks, perfect_mm))]
        if not rows:
            logger.warning("%s: left out, as no held-out case shows any of its labels", task)
            continue
        dice = np.mean([row["dice"] for row in rows], axis=0)
        closed = float((dice[-1] - dice[0]) / max(1 - dice[0], 1e-9))
        tasks[task] = {"n_cases": len(cases), "dice": dice.tolist(), "closed": closed}
    if not tasks:
        raise nothing_held_out(workspace)
    return {"tasks": tasks, "table": _table(tasks, n_clicks)}


def _rows(
    loaded: LoadedStudent, mode: Mode, case: LabelledCase, how: tuple[int, float | None]
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        predictor = Predictor(loaded, mode, Path(folder))
        predictor.set_volume(read_volume(case.image))
        return click_rows(predictor, case, *how)


def _table(tasks: dict[str, Any], n_clicks: int) -> str:
    lines = ["task  cases  " + "  ".join(f"{n} clicks" for n in range(n_clicks + 1)) + "  closed"]
    for name, found in tasks.items():
        curve = "  ".join(f"{value:.4f}" for value in found["dice"])
        lines.append(f"{name}  {found['n_cases']}  {curve}  {found['closed']:.3f}")
    return "\n".join(lines)
