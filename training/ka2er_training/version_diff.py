"""What changed from one student to another: numbers per task and label, and the cases behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.changes import case_changes, change_table, label_changes, most_changed
from ka2er_training.comparison import write_comparison
from ka2er_training.evaluate import on_lattice
from ka2er_training.evaluate_workspace import holdout_of, part_of
from ka2er_training.registry import student_folder
from ka2er_training.rounds import Picture
from ka2er_training.scoring import mask_of, rows_of, student_system
from ka2er_training.workspace import write_json
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import read_labels, read_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.changes import CaseChange
    from ka2er_training.evaluate import LabelledCase, Row
    from ka2er_training.scoring import System
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.config import Mode

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]


def diff_versions(
    workspace: Workspace,
    first: str,
    second: str,
    *,
    n_cases: int = 2,
    mode: Mode = "sparse",
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> dict[str, Any]:
    """Compare two versions on the hold-out of every task that both know.

    Parameters
    ----------
    workspace : Workspace
        Its ``reports`` get a folder ``diff-FIRST-SECOND-MODE`` with ``diff.json`` and pictures.
    first, second : str
        Versions; the second is the later one, "after".
    n_cases : int
        The cases of each task that changed most, to be shown.
    mode, device, progress, cancelled
        How students work; told the share that is done; asked before every case.

    Returns
    -------
    dict
        Plain data: ``labels`` (see `label_changes`), ``cases`` (all, most changed first),
        ``pictures`` (paths), ``table`` (text).

    Raises `UserError` if a version is missing or nothing that both know is held out.
    """
    folders = student_folder(workspace, first), student_folder(workspace, second)
    systems = [student_system(folder, mode, device, workspace) for folder in folders]
    sides = _sides(workspace, systems, part_of(progress, 0.0, 0.9), cancelled)
    if not sides[0]:
        raise UserError(f"held-out cases of tasks that {first} and {second} share", "none")
    changes = case_changes(sides[0], sides[1])
    out = workspace.folder / "reports" / f"diff-{first}-{second}-{mode}"
    part, chosen = part_of(progress, 0.9, 0.1), most_changed(changes, n_cases)
    pictures = write_pictures(workspace, systems, chosen, out, progress=part, cancelled=cancelled)
    result: dict[str, Any] = {"first": first, "second": second, "mode": mode}
    result |= _numbers(workspace, sides, changes, pictures)
    write_json(out / "diff.json", result)
    return result


def _numbers(
    workspace: Workspace,
    sides: Sequence[Sequence[Row]],
    changes: Sequence[CaseChange],
    pictures: Sequence[Picture],
) -> dict[str, Any]:
    labels = label_changes(sides[0], sides[1], workspace.settings.gate)
    return {
        "labels": labels,
        "cases": [change.to_json() for change in changes],
        "pictures": [picture.path for picture in pictures],
        "table": change_table(labels),
    }


def _sides(
    workspace: Workspace,
    systems: Sequence[System],
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> list[list[Row]]:
    """Return the rows of each system on the tasks that all of them know."""
    names = [t for t in workspace.tasks if all(t in system.tasks for system in systems)]
    share = 1 / len(systems)
    return [
        _rows(workspace, system, names, part_of(progress, i * share, share), cancelled)
        for i, system in enumerate(systems)
    ]


def _rows(
    workspace: Workspace,
    system: System,
    tasks: Sequence[str],
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> list[Row]:
    rows = []
    for i, task in enumerate(tasks):
        part = part_of(progress, i / len(tasks), 1 / len(tasks))
        rows += rows_of(workspace, system, task, progress=part, cancelled=cancelled)
    return rows


def write_pictures(
    workspace: Workspace,
    systems: Sequence[System],
    changes: Sequence[CaseChange],
    out: Path,
    *,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> list[Picture]:
    """Write what two students found in hold-out cases beside the truth.

    Their masks are those of the evaluations, as far as these are kept.

    Parameters
    ----------
    workspace : Workspace
        Whose hold-out.
    systems : pair of System
        Before and after, `ka2er_training.scoring.student_system`.
    changes : sequence of CaseChange
        Which cases.
    out : Path
        Folder for the PNG files; made if missing.
    progress, cancelled : callable, optional
        Told the share done; asked before every case.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures = []
    for i, change in enumerate(changes):
        if cancelled is not None and cancelled():
            raise CancelledError
        if progress is not None:
            progress(i / len(changes), f"picture of {change.case}")
        case = next(c for c in holdout_of(workspace, change.task) if c.name == change.case)
        path = out / f"{change.task}-{re.sub(r'[^A-Za-z0-9_.-]', '_', change.case)}.png"
        volume = read_volume(case.image)
        masks = [mask_of(workspace, system, case) for system in systems]
        write_comparison(path, volume, _maps(case, volume, masks), case.task, f"{change}")
        pictures.append(Picture(f"{change}", str(path)))
    return pictures


def _maps(
    case: LabelledCase, volume: Volume, masks: Sequence[NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    before, after = masks
    truth, geometry = read_labels(case.labels)
    truth = np.where(np.isin(truth, case.task.values), truth, 0)
    return {
        "before": before,
        "after": after,
        "truth": on_lattice(truth, geometry, volume.geometry),
    }
