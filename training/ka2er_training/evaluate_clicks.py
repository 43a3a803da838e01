"""What clicks add to a workspace's student on its hold-out."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.clicks import click_rows, unnamed_rows
from ka2er_training.evaluate_workspace import holdout_of, nothing_held_out
from ka2er_training.registry import student_folder, versions
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.catalogue import DOWNLOADS, SAMPLE, find_student
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from ka2er_training.evaluate import LabelledCase
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.loaded import LoadedStudent

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClickPlan:
    """What simulated users are to do.

    Parameters
    ----------
    n_clicks : int
        Clicks per label or piece, each into the largest error left; at least 1.
    max_cases : int
        At most so many cases of each task, the first by name; at least 1.
    perfect_mm : float, optional
        What clicks could be worth: the truth answers, so far around each click.
    is_named : bool
        Whether the student's automatic result is corrected, label by label.  Otherwise every piece
        of a label is clicked from nothing, and the student is not told what it is.
    is_boxed : bool
        Whether every piece is first boxed, in its first and its last slice; without a name only.
    mode : str
        The student's.
    """

    n_clicks: int
    max_cases: int = 6
    perfect_mm: float | None = None
    is_named: bool = True
    is_boxed: bool = False
    mode: Mode = "sparse"

    def __post_init__(self) -> None:
        if self.n_clicks < 1 or self.max_cases < 1:
            raise UserError("at least 1 click and 1 case", f"{self.n_clicks} and {self.max_cases}")
        if self.perfect_mm is not None and not self.is_named:
            raise UserError("a perfect answer or pieces without a name", "both", "leave one out")
        if self.is_boxed and self.is_named:
            raise UserError("--unnamed with --boxed", "none", "names are corrected by clicks alone")


def evaluate_clicks(
    workspace: Workspace, plan: ClickPlan, student: str | None = None, *, device: str = "cpu"
) -> dict[str, Any]:
    """Let a simulated user correct what a student found, or segment what it has no name for.

    Parameters
    ----------
    workspace : Workspace
        Its hold-out is used.
    plan : ClickPlan
        What the user does.
    student : str, optional
        Version, the current one by default; or a folder or name of any student, as ``"sample"``.
    device : str
        Where the student runs.

    Returns
    -------
    dict
        ``tasks``: per task the number of cases and of objects, the mean ``dice`` after 0, 1 …
        clicks, the share of what was missing to 1 that the clicks have ``closed``, and
        ``predicted_off``, the mean distance of the Dice that the student predicted of its masks
        from what it was (None without an answer); and ``table``, the same as text.  A task of which
        nothing is held out is left out, and a line is logged.

    Raises
    ------
    UserError
        If there is no such student, or nothing is held out of any task.
    """
    loaded = load_student(_folder_of(workspace, student), device)
    known = {entry.task.name for entry in loaded.config.tasks}
    tasks = {}
    for task in workspace.tasks:
        if plan.is_named and task not in known:
            continue
        cases = holdout_of(workspace, task)[: plan.max_cases]
        rows = [row for case in cases for row in _rows(loaded, case, plan)]
        if not rows:
            logger.warning("%s: left out, as no held-out case shows any of its labels", task)
            continue
        tasks[task] = {"n_cases": len(cases), "n_objects": len(rows), **_means(rows)}
    if not tasks:
        raise nothing_held_out(workspace)
    return {"tasks": tasks, "table": _table(tasks, plan.n_clicks)}


def _folder_of(workspace: Workspace, student: str | None) -> Path:
    """Return the folder of a version or, if there is no such version, of any student."""
    if student is None or student in versions(workspace):
        return student_folder(workspace, student)
    if student in (SAMPLE, *DOWNLOADS) or Path(student).is_dir():
        return find_student(student)
    return student_folder(workspace, student)  # which says what versions there are


def _rows(loaded: LoadedStudent, case: LabelledCase, plan: ClickPlan) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        predictor = Predictor(loaded, plan.mode, Path(folder))
        if plan.is_named:
            return click_rows(predictor, case, plan.n_clicks, plan.perfect_mm)
        return unnamed_rows(predictor, case, plan.n_clicks, is_boxed=plan.is_boxed)


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    dice = np.mean([row["dice"] for row in rows], axis=0)
    off = [
        abs(predicted - reached)
        for row in rows
        for predicted, reached in zip(row["predicted"], row["dice"][1:], strict=False)
    ]  # a user who is content gets no further answers
    return {
        "dice": dice.tolist(),
        "closed": float((dice[-1] - dice[0]) / max(1 - dice[0], 1e-9)),
        "predicted_off": float(np.mean(off)) if off else None,
    }


def _table(tasks: dict[str, Any], n_clicks: int) -> str:
    numbers = "  ".join(f"{n} clicks" for n in range(n_clicks + 1))
    lines = [f"task  cases  objects  {numbers}  closed  predicted Dice off by"]
    for name, found in tasks.items():
        curve = "  ".join(f"{value:.4f}" for value in found["dice"])
        off = "-" if found["predicted_off"] is None else f"{found['predicted_off']:.3f}"
        counts = f"{found['n_cases']}  {found['n_objects']}"
        lines.append(f"{name}  {counts}  {curve}  {found['closed']:.3f}  {off}")
    return "\n".join(lines)
