"""Make a task's expert better by its corrections: short, with replay, and as a candidate only."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.child import run_child
from ka2er_training.expert_job import ExpertJob
from ka2er_training.experts import Monitor
from ka2er_training.holdout import check_training_data
from ka2er_training.nnunet import TRAINER_NAMES, environment
from ka2er_training.round_state import options_of, round_folder
from ka2er_training.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ka2er_training.presets import Preset

logger = logging.getLogger(__name__)

_FLOOR = 1  # an epoch at least, however short the preset


def candidate_folder(workspace: Workspace, number: int, task: str) -> Path:
    """Return where a round's retrained expert of a task is, or will be."""
    return round_folder(workspace, number) / "experts" / workspace.record(task).task.name


def retrain_expert(
    folder: str | Path,
    number: int,
    task: str,
    device: str = "cpu",
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Retrain a task's expert on its old cases and a round's corrections.

    The expert that is in use is not touched: the candidate is written into the round's folder.
    Called again it goes on from its last checkpoint, or returns at once if it was done.  All
    arguments are small, so that this runs as a job on another machine that sees the folder.

    Parameters
    ----------
    folder : str or Path
        The workspace.
    number : int
        The round; its packages are ingested.
    task : str
        The task.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` …
    progress, cancelled : callable, optional
        As for `ka2er_training.experts.train_expert`.

    Returns
    -------
    dict
        Plain data: ``task``, ``parent`` and ``digest`` of the experts, ``epochs``, ``seconds``,
        ``cases`` and ``corrected`` (numbers), ``last_epoch``.

    Raises
    ------
    UserError
        If the data are not in order, or nnU-Net fails.
    CancelledError
        If `cancelled` said so; the checkpoint is kept.
    """
    workspace = Workspace.open(folder)
    out = candidate_folder(workspace, number, task)
    told = out.with_name(f"{out.name}.json")
    if told.is_file() and (out / "expert.json").is_file():
        done: dict[str, Any] = read_json(told)
        return done
    check_training_data(workspace, task)
    job, started = job_for(workspace, number, task, device), time.monotonic()
    monitor = Monitor(progress, job.preset.iterations)
    with workspace.lock(f"expert-{task}"):
        _run(workspace, job, device, monitor, cancelled)
        digest = _convert(workspace, task, job, out)
    monitor.show(1.0, "done")
    result = {
        "task": task,
        "parent": read_json(Path(job.expert, "expert.json"))["digest"],
        "digest": digest,
        "epochs": job.preset.epochs,
        "cases": len(job.cases),
        "corrected": len(job.corrected),
        "seconds": round(time.monotonic() - started, 1),
        "last_epoch": monitor.epochs[-1] if monitor.epochs else None,
    }
    write_json(told, result)
    return result


def _run(
    workspace: Workspace,
    job: ExpertJob,
    device: str,
    monitor: Monitor,
    cancelled: Callable[[], bool] | None,
) -> None:
    """Let nnU-Net work in a process of its own; what it was told and said stays in the round."""
    run = Path(job.results)
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "job.json", job.to_json())
    run_child(
        "ka2er_training.expert_job",
        job.to_json(),
        run / "nnunet.log",
        environment=_environment(workspace, job, device),
        on_report=monitor,
        cancelled=cancelled,
    )


def job_for(workspace: Workspace, number: int, task: str, device: str = "cpu") -> ExpertJob:
    """Return what the process that retrains an expert is told."""
    from napari_ka2er.model.device import resolve_device

    settings, options = workspace.settings.retrain, options_of(workspace, number)
    cases = {case["id"]: case for case in workspace.manifest(task) if case["split"] == "training"}
    corrected = tuple(name for name, case in cases.items() if case.get("round") == number)
    if not settings.replay:
        cases = {name: cases[name] for name in corrected}
    ignore = read_json(workspace.dataset_folder(task) / "dataset.json")["labels"].get("ignore")
    return ExpertJob(
        dataset_folder=str(workspace.dataset_folder(task)),
        expert=str(workspace.expert_folder(task)),
        preprocessed=str(workspace.folder / "preprocessed"),
        results=str(round_folder(workspace, number) / "experts_work" / task),
        preset=short_preset(workspace, task, options.expert_epochs),
        loss=loss_of(workspace.expert_folder(task), workspace.settings.expert.loss),
        cases={name: _key(case, ignore) for name, case in cases.items()},
        corrected=corrected,
        oversampling=settings.oversampling,
        device=resolve_device(device).type,
        seed=number if options.seed is None else options.seed,
    )


def loss_of(expert: Path, usual: str) -> str:
    """Return the loss that an expert was last trained with; `usual` if it was not trained here.

    Parameters
    ----------
    expert : Path
        Its folder.  ``expert.json`` keeps the name of the model folder that it comes from, which
        begins with the trainer's; the checkpoints name nnU-Net's own.
    usual : str
        What ``ka2er.toml`` says.
    """
    trainer = str(read_json(expert / "expert.json").get("source", "")).partition("__")[0]
    return {name: loss for loss, name in TRAINER_NAMES.items()}.get(trainer, usual)


def short_preset(workspace: Workspace, task: str, epochs: int | None = None) -> Preset:
    """Return an expert's preset with a shorter schedule, a lower rate and a warm-up."""
    folder, settings = workspace.expert_folder(task), workspace.settings
    plans = read_json(folder / "plans.json").get("plans_name")
    own = [preset for preset in settings.presets.values() if preset.plans == plans]
    preset = own[0] if own else settings.presets[settings.expert.preset]
    mirrored = read_json(folder / "expert.json")["mirroring"]
    epochs = epochs or max(_FLOOR, round(preset.epochs * settings.retrain.expert_share))
    return dataclasses.replace(
        preset,
        epochs=epochs,
        learning_rate=preset.learning_rate * settings.retrain.expert_rate,
        warm_up=max(1, epochs // 10) if epochs > 1 else 0,
        foreground_weight=1.0,  # it keeps labels from vanishing early on; here they are there
        mirror=preset.mirror and bool(mirrored),
    )


def _key(case: Mapping[str, Any], ignore: int | None) -> str:
    """Return what a preprocessed case depends on, besides the plans.

    The ignore label too: nnU-Net notes where voxels are annotated only if there is one.
    """
    parts = [case["image"], case["label"], str(ignore)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


def _environment(workspace: Workspace, job: ExpertJob, device: str) -> dict[str, str]:
    from napari_ka2er.model.device import resolve_device

    variables = environment(workspace.folder, str(resolve_device(device)))
    return {**variables, "nnUNet_results": job.results}


def _convert(workspace: Workspace, task: str, job: ExpertJob, out: Path) -> str:
    """Write the candidate in its safe form, with exactly the plans of the expert it comes from."""
    from napari_ka2er.model.experts import convert_expert

    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(Path(job.expert, name), job.model_folder / name)
    out.parent.mkdir(parents=True, exist_ok=True)
    known = workspace.record(task).task
    return str(convert_expert(job.model_folder, out, task=known, folds="all", trust=True).digest)
