"""How good a workspace's student and experts are on its hold-out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ka2er_training.evaluate import LabelledCase, evaluate, summarise
from ka2er_training.evaluation_text import rows_table, text_table
from ka2er_training.ledger import ignore_value
from ka2er_training.registry import student_folder
from ka2er_training.segmenters import ExpertSegmenter, StudentSegmenter
from ka2er_training.workspace import write_json, write_text
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ka2er_training.evaluate import Row, Segmenter
    from ka2er_training.workspace import Case, Workspace
    from napari_ka2er.model.config import Mode


def evaluate_workspace(
    workspace: Workspace,
    student: str | None = None,
    *,
    mode: Mode = "sparse",
    experts: bool = False,
    device: str = "cpu",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Evaluate a student, or the experts, on the hold-out of every task that it knows.

    Parameters
    ----------
    workspace : Workspace
        Its ``reports`` folder gets ``evaluation-NAME.json`` and ``.txt``, the latter with the table
        and, below it, a line for each label of each case.
    student, mode : str, optional
        Version, the current one by default, and mode.
    experts : bool
        Evaluate the experts, each on its own task, instead of a student.
    device, progress, cancelled
        See `ka2er_training.evaluate.evaluate`.

    Returns
    -------
    dict
        ``name``, ``summary`` (per task and label), ``rows`` (per case), ``table`` (text).

    Raises `UserError` if there is no such student, no expert, or nothing held out.
    """
    if experts:
        name, systems = "experts", list(_experts(workspace, device))
    else:
        name, systems = _student(workspace, student, mode, device)
    rows = []
    for i, (task, system) in enumerate(systems):
        part = part_of(progress, i / len(systems), 1 / len(systems))
        rows += evaluate(system, holdout_of(workspace, task), progress=part, cancelled=cancelled)
    return _kept(workspace, name, rows)


def _kept(workspace: Workspace, name: str, rows: list[Row]) -> dict[str, Any]:
    """Write an evaluation's report and return it."""
    if not rows:
        raise nothing_held_out(workspace)
    summaries = summarise(rows)
    table = text_table(summaries)
    result: dict[str, Any] = {
        "name": name,
        "summary": [summary.to_json() for summary in summaries],
        "rows": [row.to_json() for row in rows],
        "table": table,
    }
    reports = workspace.folder / "reports"
    write_json(reports / f"evaluation-{name}.json", result)
    write_text(reports / f"evaluation-{name}.txt", f"{table}\n\n{rows_table(rows)}\n")
    return result


def nothing_held_out(workspace: Workspace) -> UserError:
    """Return the error that there is nothing to evaluate on."""
    remedy = "set a share of [holdout] in ka2er.toml before tasks are added"
    return UserError(f"held-out cases in {workspace.folder}", "none", remedy)


def holdout_of(workspace: Workspace, task: str) -> list[LabelledCase]:
    """Return the hold-out cases of a task."""
    return labelled(workspace, task, workspace.holdout_cases(task))


def labelled(workspace: Workspace, task: str, cases: Sequence[Case]) -> list[LabelledCase]:
    """Return cases of a task with what scoring them needs; those without labels are left out."""
    known, ignore = workspace.record(task).task, ignore_value(workspace, task)
    return [
        LabelledCase(case.id, known, case.image, case.label, ignore)
        for case in cases
        if case.label is not None
    ]


def _experts(workspace: Workspace, device: str) -> Iterator[tuple[str, Segmenter]]:
    """Yield each task that has an expert, and the expert."""
    found = False
    for task in workspace.tasks:
        folder = workspace.expert_folder(task)
        if (folder / "expert.json").is_file():
            found = True
            yield task, ExpertSegmenter(Expert.load(folder, device), f"expert {task}")
    if not found:
        remedy = "train one with ka2er expert train, or add one with ka2er expert add"
        raise UserError(f"an expert in {workspace.folder}", "none", remedy)


def _student(
    workspace: Workspace, version: str | None, mode: Mode, device: str
) -> tuple[str, list[tuple[str, Segmenter]]]:
    """Return a student's name, and the tasks that it shares with the workspace."""
    folder = student_folder(workspace, version)
    loaded = load_student(folder, device)
    name = f"{folder.name}-{mode}"
    segmenter = StudentSegmenter(loaded, mode, name)
    known = {entry.task.name for entry in loaded.config.tasks}
    return name, [(task, segmenter) for task in workspace.tasks if task in known]


def part_of(
    progress: Callable[[float, str], None] | None, begin: float, share: float
) -> Callable[[float, str], None] | None:
    """Return what tells a part's progress as a share of the whole."""
    if progress is None:
        return None
    return lambda done, what: progress(begin + share * done, what)
