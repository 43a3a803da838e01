"""Plan, preprocess and train through nnU-Net's Python API; runs as a process of its own.

``python -m ka2er_training.nnunet JOB`` is started by `ka2er_training.experts`, with nnU-Net's
environment variables set for this process only.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.child import reporting
from ka2er_training.expert_resume import latest_checkpoint, make_final, write_inputs
from ka2er_training.gpus import VARIABLE, visible_gpus
from ka2er_training.presets import Preset
from ka2er_training.workspace import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONFIGURATION = "3d_fullres"
FOLD = "all"
TRAINER_NAMES = {"dice_ce": "Ka2erTrainer", "ce": "Ka2erTrainerCE"}


@dataclass(frozen=True, slots=True)
class Job:
    """What the process is to do.

    Parameters
    ----------
    workspace : str
        Folder of the workspace.
    dataset : str
        nnU-Net's name of the dataset.
    preset : Preset
        How to plan and train.
    loss : str
        ``"dice_ce"`` or ``"ce"``.
    spacing_mm : tuple of float, optional
        Target spacing, axes as in the files; None: nnU-Net decides.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"mps"``; which CUDA device is set from outside.
    resume : bool
        Go on from the latest checkpoint, if there is one.
    seed : int
        Of weights and augmentation.
    """

    workspace: str
    dataset: str
    preset: Preset
    loss: str
    spacing_mm: tuple[float, float, float] | None
    device: str
    resume: bool
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Build a job from what `to_json` returned."""
        spacing = tuple(data["spacing_mm"]) if data["spacing_mm"] else None
        return cls(**{**data, "preset": Preset(**data["preset"]), "spacing_mm": spacing})

    @property
    def preprocessed(self) -> Path:
        """Where nnU-Net keeps plans and preprocessed cases."""
        return Path(self.workspace, "preprocessed", self.dataset)


def environment(workspace: Path, device: str) -> dict[str, str]:
    """Return nnU-Net's variables for one process that works in a workspace.

    On the CPU one core augments and the others compute.  The malloc thresholds keep glibc from
    returning every feature map to the system, which costs a sixth of the time.
    """
    n_cpus = os.cpu_count() or 1
    variables = {
        "nnUNet_raw": str(workspace / "datasets"),
        "nnUNet_preprocessed": str(workspace / "preprocessed"),
        "nnUNet_results": str(workspace / "experts"),
        "nnUNet_def_n_proc": str(n_processes()),
    }
    kind, _, number = device.partition(":")
    if kind == "cuda":
        return {**variables, **({VARIABLE: visible_gpus([int(number)])} if number else {})}
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, n_cpus - 1)))
    malloc = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**30))
    return {**variables, **malloc, "OMP_NUM_THREADS": threads, "nnUNet_n_proc_DA": "1"}


def n_processes() -> int:
    """Return how many processes read and resample cases: each loads torch, so not one per core."""
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def prepare(job: Job, report: Callable[[dict[str, Any]], None]) -> None:
    """Fingerprint, plan and preprocess, unless this was done for the same cases and settings."""
    done = job.preprocessed / f"{job.preset.plans}.done.json"
    wanted = {"inputs": _inputs(job)}
    if done.is_file() and read_json(done) == wanted:
        return
    done.unlink(missing_ok=True)
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    from ka2er_training.planners import PLANNERS

    number, processes = int(job.dataset[7:10]), n_processes()
    report({"stage": "fingerprint", "fraction": 0.0})
    api.extract_fingerprint_dataset(number, num_processes=processes, show_progress_bar=False)
    report({"stage": "planning", "fraction": 0.3})
    api.plan_experiment_dataset(
        number, PLANNERS[job.preset.plans], overwrite_target_spacing=job.spacing_mm
    )
    report({"stage": "preprocessing", "fraction": 0.4})
    (job.preprocessed / "splits_final.json").unlink(
        missing_ok=True
    )  # would name the cases of before
    api.preprocess_dataset(
        number, job.preset.plans, (CONFIGURATION,), (processes,), show_progress_bar=False
    )
    write_json(done, wanted)


def train(job: Job, report: Callable[[dict[str, Any]], None]) -> None:
    """Train on all cases of the dataset, from the latest checkpoint if that is asked for."""
    import torch

    from ka2er_training import trainers

    folder = fold_folder(job)
    checkpoint = latest_checkpoint(folder) if job.resume else None
    if checkpoint is None:
        shutil.rmtree(folder, ignore_errors=True)
        write_inputs(folder, job)
    seed_everything(job.seed)
    plans = read_json(job.preprocessed / f"{job.preset.plans}.json")
    plans["continue_training"] = checkpoint is not None
    description = read_json(job.preprocessed / "dataset.json")
    trainer = getattr(trainers, TRAINER_NAMES[job.loss])(
        plans, CONFIGURATION, FOLD, description, torch.device(job.device)
    )
    trainer.configure(job.preset, report)
    if checkpoint:
        trainer.load_checkpoint(str(checkpoint))
        seed_everything(job.seed + trainer.current_epoch)
        report({"stage": "resuming", "epoch": trainer.current_epoch, "of": job.preset.epochs})
    if trainer.current_epoch < job.preset.epochs:
        trainer.run_training()
    elif checkpoint:
        make_final(checkpoint)


def seed_everything(seed: int) -> None:
    """Seed everything that nnU-Net draws from."""
    import numpy as np
    import torch

    for sow in (random.seed, np.random.seed, torch.manual_seed):
        sow(seed)


def model_folder(job: Job) -> Path:
    """Return nnU-Net's folder for this trainer, plans and configuration."""
    name = f"{TRAINER_NAMES[job.loss]}__{job.preset.plans}__{CONFIGURATION}"
    return Path(job.workspace, "experts", job.dataset, name)


def fold_folder(job: Job) -> Path:
    """Return where the checkpoints are."""
    return model_folder(job) / f"fold_{FOLD}"


def _inputs(job: Job) -> str:
    """Return a digest of all that the preprocessed cases depend on."""
    dataset = Path(job.workspace, "datasets", job.dataset)
    parts = [
        (dataset / name).read_text(encoding="utf-8") for name in ("dataset.json", "cases.json")
    ]
    parts += [version("nnunetv2"), job.preset.plans, str(job.spacing_mm)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main(arguments: Sequence[str]) -> None:
    """Do the job that the only argument describes."""
    report = reporting()
    job = Job.from_json(json.loads(arguments[0]))
    prepare(job, report)
    train(job, report)


if __name__ == "__main__":
    main(sys.argv[1:])
