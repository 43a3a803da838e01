"""Experts of a workspace: trained here with nnU-Net, or taken from a trained model folder."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ka2er_training.child import run_child
from ka2er_training.expert_resume import check_inputs, latest_checkpoint
from ka2er_training.holdout import check_training_data
from ka2er_training.nnunet import (
    FOLD,
    Job,
    environment,
    fold_folder,
    model_folder,
)
from ka2er_training.presets import LOSSES, PRESETS, check_choice
from ka2er_training.workspace import write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.experts import Expert

logger = logging.getLogger(__name__)

# Shares of the whole work that progress shows.
PREPARED, TRAINED = 0.05, 0.98


@dataclass(frozen=True, slots=True)
class ExpertPlan:
    """How to train one expert; None means: as ``ka2er.toml`` says, `epochs`: as the preset does."""

    preset: str | None = None
    loss: str | None = None
    resume: bool = False
    device: str = "auto"
    seed: int = 0
    epochs: int | None = None


@dataclass(slots=True)
class Monitor:
    """Turn the job's reports into progress and log lines, and keep them."""

    progress: Callable[[float, str], None] | None
    iterations: int
    epochs: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, report: dict[str, Any]) -> None:
        """Take one report."""
        if "stage" in report:
            where = f" at epoch {report['epoch']} of {report['of']}" if "epoch" in report else ""
            logger.info("%s%s", report["stage"], where)
            self.show(PREPARED * report.get("fraction", 1.0), report["stage"])
            return
        self.epochs.append(report)
        dice = " ".join(f"{value:.3f}" for value in report["dice"])
        what = f"loss {report['loss']:.3f}, Dice on patches {dice}"
        text = f"epoch {report['epoch']}/{report['of']}: {what}"
        logger.info("%s, %.2f s per iteration", text, report["seconds"] / self.iterations)
        self.show(PREPARED + (TRAINED - PREPARED) * report["epoch"] / report["of"], text)

    def show(self, share: float, what: str) -> None:
        """Hand on how far the work is."""
        if self.progress:
            self.progress(share, what)


def train_expert(
    workspace: Workspace,
    task: str,
    plan: ExpertPlan | None = None,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Plan, preprocess and train a task's expert with nnU-Net, then convert it.

    Hold-out cases are not touched.  Returns plain data: folders, digest, preset, and what nnU-Net
    reported on the last epoch.

    Raises
    ------
    UserError
        If there is no such task, preset, loss or device, the same expert is in training, it is
        to be resumed with other data or settings than it began with, or nnU-Net fails.
    CancelledError
        If `cancelled` said so; the checkpoints are kept.
    """
    plan = plan or ExpertPlan()
    job, device = _job(workspace, task, plan)
    check_training_data(workspace, task)
    monitor = Monitor(progress, job.preset.iterations)
    started = time.monotonic()
    with workspace.lock(f"expert-{task}"):
        if plan.resume:
            _check_resumed(job)
        _run(workspace, task, job, device, (monitor, cancelled))
        expert = _convert(workspace, task, model_folder(job), folds=FOLD, trust=True)
    monitor.show(1.0, "done")
    return {
        **_outcome(workspace, task, expert),
        "preset": plan.preset or workspace.settings.expert.preset,
        "loss": job.loss,
        "model_folder": str(model_folder(job)),
        "seconds": round(time.monotonic() - started, 1),
        "last_epoch": monitor.epochs[-1] if monitor.epochs else None,
    }


def add_expert(
    workspace: Workspace, task: str, folder: Path, *, trust: bool = False
) -> dict[str, Any]:
    """Take a trained nnU-Net v2 model folder as a task's expert.

    Raises
    ------
    UserError
        If there is no such task, the folder holds no model for its labels or none that the student
        can use (such as one of overlapping regions), the system refuses to write, or reading it
        would run code and `trust` is False.
    """
    with workspace.lock(f"expert-{workspace.record(task).task.name}"):
        expert = _convert(workspace, task, folder, folds=None, trust=trust)
    logger.info("expert of %s in %s", task, expert.folder)
    return _outcome(workspace, task, expert)


def _job(workspace: Workspace, task: str, plan: ExpertPlan) -> tuple[Job, str]:
    """Return the job for the child process, and the device as nnU-Net's environment needs it."""
    record, defaults = workspace.record(task), workspace.settings.expert
    preset, loss = plan.preset or defaults.preset, plan.loss or defaults.loss
    check_choice(preset, tuple(PRESETS), "preset")
    check_choice(loss, LOSSES, "loss")
    from napari_ka2er.model.device import resolve_device

    device = resolve_device(plan.device)
    sizes = workspace.settings.presets[preset]
    job = Job(
        workspace=str(workspace.folder),
        dataset=record.dataset,
        preset=sizes if plan.epochs is None else replace(sizes, epochs=plan.epochs),
        loss=loss,
        # The other presets are nnU-Net as it is; tiny works on the student's own grid.
        spacing_mm=record.spacing_mm if preset == "tiny" else None,
        device=device.type,
        resume=plan.resume,
        seed=plan.seed,
    )
    return job, str(device)


def _check_resumed(job: Job) -> None:
    """Say that there is nothing to resume, or refuse what began with other data or settings."""
    folder = fold_folder(job)
    if latest_checkpoint(folder) is None:
        logger.info("no checkpoint to resume from: starting from the beginning")
    else:
        check_inputs(folder, job)


def _run(
    workspace: Workspace,
    task: str,
    job: Job,
    device: str,
    hooks: tuple[Monitor, Callable[[], bool] | None],
) -> None:
    """Let nnU-Net work in a process of its own; what it was told and said stays in ``runs/``."""
    run = workspace.run_folder(f"expert-{task}")
    write_json(run / "job.json", job.to_json())
    run_child(
        "ka2er_training.nnunet",
        job.to_json(),
        run / "nnunet.log",
        environment=environment(workspace.folder, device),
        on_report=hooks[0],
        cancelled=hooks[1],
    )


def _outcome(workspace: Workspace, task: str, expert: Expert) -> dict[str, Any]:
    """Return what there is to say about every new expert."""
    folder = str(workspace.expert_folder(task))
    return {"task": task, "expert_folder": folder, "digest": expert.digest}


def _convert(
    workspace: Workspace, task: str, folder: Path, *, folds: str | None, trust: bool
) -> Expert:
    """Write the expert's safe form, in place of an older one."""
    from napari_ka2er.model.experts import convert_expert

    record, out = workspace.record(task), workspace.expert_folder(task)
    expert: Expert = convert_expert(folder, out, task=record.task, folds=folds, trust=trust)
    return expert
