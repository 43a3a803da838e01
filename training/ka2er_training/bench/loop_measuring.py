"""How good a state of the loop is on the hold-out, and how many clicks it takes there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.clicks import click_rows
from ka2er_training.bench.loop_annotation import state_workspace
from ka2er_training.evaluate_workspace import holdout_of
from ka2er_training.registry import current, student_folder
from ka2er_training.scoring import rows_of, student_system
from napari_ka2er.core.io import read_volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from ka2er_training.evaluate import Row
    from ka2er_training.workspace import Workspace


def version_of(cell: Cell, store: Store, workspace: Workspace, which: str) -> str:
    """Return the version of a state's student that is meant: the current one, or the candidate."""
    if which == "candidate" and cell.kind == "round":
        candidate: str | None = store.result(cell)["candidate"]
        if candidate is not None:
            return candidate
    return str(current(workspace))


def measure_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Measure a state's student on the hold-out of every task, then count clicks on one task's."""
    settings, state = cell.settings, cell.needs[0]
    workspace = state_workspace(state, store)
    version = version_of(state, store, workspace, settings["which"])
    for known in cell.needed("measure"):
        if store.result(known)["version"] == version:
            return store.result(known)
    folder = student_folder(workspace, version)
    system = student_system(folder, settings["mode"], means.device, workspace)
    rows: list[Row] = []
    for task in workspace.tasks:  # what the gate has measured is not measured again
        rows += rows_of(
            workspace, system, task, "holdout",
            progress=means.progress, cancelled=means.cancelled,
        )  # fmt: skip
    clicks = count_clicks(workspace, version, settings, means) if settings["n_clicks"] else []
    return {"version": version, "rows": [row.to_json() for row in rows], "clicks": clicks}


def count_clicks(
    workspace: Workspace, version: str, settings: Any, means: Means
) -> list[dict[str, Any]]:
    """Return Dice after 0, 1 … clicks per label of the first hold-out cases of a task."""
    loaded = load_student(student_folder(workspace, version), means.device)
    cases = holdout_of(workspace, settings["task"])[: settings["click_cases"]]
    rows = []
    for i, case in enumerate(cases):
        if means.progress is not None:
            means.progress(i / len(cases), f"clicks on {case.name}")
        with tempfile.TemporaryDirectory() as folder:
            predictor = Predictor(loaded, settings["mode"], Path(folder))
            predictor.set_volume(read_volume(case.image))
            rows += click_rows(predictor, case, settings["n_clicks"])
    return rows


def clicks_needed(dice: Sequence[float], good: float) -> int:
    """Return the clicks until a curve of Dice is good; one more than there are if it never is."""
    return next((n for n, value in enumerate(dice) if value >= good), len(dice))
