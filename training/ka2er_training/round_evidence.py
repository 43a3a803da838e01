"""What a round's report shows beside numbers: worst cases as pictures, expert maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ka2er_training.changes import case_changes, label_changes, worst
from ka2er_training.expert_map import mean_weights
from ka2er_training.scoring import results_of, student_system
from ka2er_training.version_diff import write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode


def evidence(
    workspace: Workspace,
    before: Path,
    after: Path,
    out: Path,
    *,
    mode: Mode = "sparse",
    device: str = "cpu",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Return what `Round` shows of two students: ``dataclasses.replace(round, **evidence(…))``.

    Parameters
    ----------
    workspace : Workspace
        Whose hold-out.  Numbers, masks and expert maps are those of the gate's evaluations; only
        what is not kept any more is predicted again.
    before, after : Path
        Students' folders.
    out : Path
        Folder for the pictures.
    mode, device, progress, cancelled
        How students work; told the share that is done; asked before every case.
    """
    systems = [student_system(folder, mode, device, workspace) for folder in (before, after)]
    shared = [t for t in workspace.tasks if all(t in system.tasks for system in systems)]
    found = [
        [r for task in shared for r in results_of(workspace, system, task, cancelled=cancelled)]
        for system in systems
    ]
    sides = [[row for result in results for row in result.rows] for results in found]
    chosen = worst(case_changes(sides[0], sides[1]))
    told: dict[str, Any] = {"progress": progress, "cancelled": cancelled}
    pictures = write_pictures(workspace, systems, chosen, out, **told)
    maps = [mean_weights(*pair) for pair in zip(systems, found, strict=True)]
    return {
        "scores": label_changes(sides[0], sides[1], workspace.settings.gate),
        "weights_before": maps[0],
        "weights_after": maps[1],
        "pictures": tuple(pictures),
    }
