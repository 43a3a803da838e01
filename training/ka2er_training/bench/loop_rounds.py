"""The cells in which a workspace goes on from corrections, or is trained anew with them."""

from __future__ import annotations

import shutil
import tomllib
from typing import TYPE_CHECKING, Any

import tomli_w

from ka2er_training.bench.loop_annotation import package_of, state_workspace
from ka2er_training.bench.loop_controls import copied_package, damaged_package
from ka2er_training.bench.loop_copies import copy_workspace
from ka2er_training.bench.loop_settings import RetrainBudget
from ka2er_training.bench.loop_start import (
    STAGES,
    read_stages,
    start_workspace,
    timed,
    train_experts,
    train_first,
)
from ka2er_training.ingest import ingest
from ka2er_training.ingest_plan import plan_ingest
from ka2er_training.package_check import check_for_workspace
from ka2er_training.registry import current, promote
from ka2er_training.retrain import retrain
from ka2er_training.round_state import RoundOptions, unfinished
from ka2er_training.workspace import SETTINGS_FILE, Workspace, read_json, write_json, write_text
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.package import read_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means

_OUTCOME = "outcome.json"


def round_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Retrain a copy of a state with the packages of annotation cells; a stopped round goes on.

    Without replay the gate is not asked, so that the arm shows what it would refuse: the candidate
    becomes the current student whatever was decided.
    """
    packages = [package_of(need, store) for need in cell.needed("annotation")]
    result = _retrained(cell, store, means, packages)
    if not cell.settings["replay"] and not result["promoted"]:
        _use(Workspace.open(store.folder_of(cell) / "workspace"), result["candidate"])
    return result


def control_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Give a state a damaged package; whoever promotes it has failed."""
    folder, settings = store.folder_of(cell), cell.settings
    good = package_of(cell.needed("annotation")[0], store)
    bad = folder / "package" / good.name
    if not bad.exists():
        damaged_package(good, bad, settings["damage"], settings["package_seed"])
    try:
        result = _retrained(cell, store, means, [bad])
    except UserError as error:  # the check may see it before anything is trained
        told = {"promoted": False, "refused_by": "check", "reason": f"{error}"}
        result = {**told, "stages": {}, "candidate": None}
    shutil.rmtree(folder / "workspace", ignore_errors=True)  # twenty would fill the disk
    return {**result, "refused": not result["promoted"]}


def copy_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Give the check a package with a copy of a hold-out case."""
    folder = store.folder_of(cell)
    workspace = state_workspace(cell.needs[0], store)
    task = cell.settings["task"]
    package = folder / "package" / "Dataset901_copy"
    shutil.rmtree(package.parent, ignore_errors=True)
    copied_package(workspace.holdout_cases(task)[0], workspace.record(task).task, package)
    problems = check_for_workspace(workspace, package)
    return {"refused": bool(problems), "problems": problems}


def scratch_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Train all anew with the start's budget, on the start's cases and all corrections."""
    folder = store.folder_of(cell)
    workspace = start_workspace(folder / "workspace", cell.settings, means)
    for number, need in enumerate(cell.needed("annotation"), start=1):
        package = package_of(need, store)
        plan = folder / f"ingest-{number}.json"
        if not plan.is_file():
            write_json(plan, plan_ingest(workspace, [read_package(package)], number))
        ingest(workspace, read_json(plan))
    train_experts(workspace, cell.settings, folder / STAGES, means)
    train_first(workspace, cell.settings, folder / STAGES, means)
    return {
        "student": current(workspace),
        "stages": read_stages(folder / STAGES),
        "n_training": {t: len(workspace.training_cases(t)) for t in workspace.tasks},
    }


def _retrained(cell: Cell, store: Store, means: Means, packages: Sequence[Path]) -> dict[str, Any]:
    """Return what a round came to, in a copy of the workspace of the first needed cell."""
    folder, settings = store.folder_of(cell), cell.settings
    budget = RetrainBudget(**settings["budget"])
    home = folder / "workspace"
    kept = folder / _OUTCOME  # of a round that was finished when the bench was stopped
    if not home.exists():
        kept.unlink(missing_ok=True)
        source = store.folder_of(cell.needs[0]) / "workspace"
        with replacing(home) as partial:
            copy_workspace(source, partial)
            more = {"replay": settings["replay"], **budget.rates()}
            _set_retraining(partial / SETTINGS_FILE, more)
    workspace = Workspace.open(home)
    if not kept.is_file():
        resume = unfinished(workspace) is not None
        # Corrections only: what the gates would stop is what this arm shows.
        alone = not settings["replay"]
        accept = alone or settings.get("accept_labels", False)
        told = {"seed": settings["seed"], "keep_going": alone, "accept_labels": accept}
        options = RoundOptions(**budget.lengths(), **told)
        with timed(folder / STAGES, "round"):
            outcome = retrain(
                home, [] if resume else packages, options, resume=resume,
                device=means.device, progress=means.progress, cancelled=means.cancelled,
            )  # fmt: skip
        write_json(kept, outcome)
    outcome = read_json(kept)
    return {
        "promoted": outcome["status"] == "promoted",
        "stopped_early": outcome["status"] == "refused" and outcome["version"] is None,
        "reason": outcome["reason"],
        "refused_by": outcome.get("refused_by", ""),
        "candidate": outcome["version"],
        "student": current(workspace),
        "stages": {name: dict(stage) for name, stage in _stages(home, outcome["round"]).items()},
        "round": read_stages(folder / STAGES)["round"],
        "n_training": {t: len(workspace.training_cases(t)) for t in workspace.tasks},
        "n_held": {t: len(workspace.held_cases(t)) for t in workspace.tasks},
    }


def _set_retraining(path: Path, more: Mapping[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)
    table["retrain"] = {**table.get("retrain", {}), **more}
    write_text(path, tomli_w.dumps(table))


def _stages(home: Path, number: int) -> Mapping[str, Mapping[str, float]]:
    """Return wall and CPU seconds of a round's stages."""
    state = read_json(home / "runs" / f"round-{number:04d}" / "state.json")
    return {
        name: {"seconds": stage["seconds"], "cpu_s": stage["cpu_s"]}
        for name, stage in state["stages"].items()
    }


def _use(workspace: Workspace, version: str) -> None:
    """Let a refused candidate and its experts be the current ones."""
    promote(workspace, version, "the gate is not asked in this arm", force=True)
