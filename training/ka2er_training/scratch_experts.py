"""Train experts anew, for comparison with retraining: same data, full schedule, own folders."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

from ka2er_training.child import run_child
from ka2er_training.expert_retraining import candidate_folder
from ka2er_training.experts import Monitor
from ka2er_training.holdout import check_training_data
from ka2er_training.nnunet import FOLD, Job, environment, model_folder
from ka2er_training.round_state import options_of, round_folder
from ka2er_training.workspace import Workspace, read_json
from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def expert_from_scratch(
    folder: str | Path,
    number: int,
    task: str,
    device: str = "cpu",
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Plan, preprocess and train a task's expert anew as a round's candidate.

    The same arguments, result and errors as `ka2er_training.expert_retraining.retrain_expert`.
    nnU-Net works in a folder of the round, so that the expert in use stays as it is.
    """
    from napari_ka2er.model.experts import Expert, convert_expert

    workspace = Workspace.open(folder)
    out = candidate_folder(workspace, number, task)
    job, shadow, where = _job(workspace, number, task, device)
    monitor = Monitor(progress, job.preset.iterations)
    if not (out / "expert.json").is_file():
        check_training_data(workspace, task)
        with workspace.lock(f"expert-{task}"):
            run_child(
                "ka2er_training.nnunet", job.to_json(), shadow / f"{task}.log",
                environment=environment(shadow, where), on_report=monitor, cancelled=cancelled,
            )  # fmt: skip
            known = workspace.record(task).task
            out.parent.mkdir(parents=True, exist_ok=True)
            convert_expert(model_folder(job), out, task=known, folds=FOLD, trust=True)
    parent = workspace.expert_folder(task) / "expert.json"
    return {
        "task": task,
        "parent": read_json(parent)["digest"] if parent.is_file() else None,
        "digest": Expert.load(out).digest,
        "epochs": job.preset.epochs,
        "cases": len(workspace.training_cases(task)),
        "corrected": 0,
        "last_epoch": monitor.epochs[-1] if monitor.epochs else None,
    }


def _let_see(folder: Path, place: Path) -> None:
    """Let a folder be found in another place, by a link, or by a copy where none may be made."""
    if place.exists():
        return
    try:
        os.symlink(folder, place, target_is_directory=True)
    except OSError:  # Windows wants a right for it; some network disks have no links
        with replacing(place) as partial:
            shutil.copytree(folder, partial)


def _job(workspace: Workspace, number: int, task: str, device: str) -> tuple[Job, Path, str]:
    """Return nnU-Net's job, the folder that looks to it like a workspace, and the device."""
    from napari_ka2er.model.device import resolve_device

    shadow = round_folder(workspace, number) / "scratch"
    record, settings = workspace.record(task), workspace.settings
    for name in ("preprocessed", "experts", "datasets"):
        (shadow / name).mkdir(parents=True, exist_ok=True)
    _let_see(workspace.dataset_folder(task), shadow / "datasets" / record.dataset)
    where = resolve_device(device)
    seed = options_of(workspace, number).seed
    job = Job(
        workspace=str(shadow),
        dataset=record.dataset,
        preset=settings.presets[settings.expert.preset],
        loss=settings.expert.loss,
        spacing_mm=record.spacing_mm if settings.expert.preset == "tiny" else None,
        device=where.type,
        resume=True,
        seed=number if seed is None else seed,
    )
    return job, shadow, str(where)
