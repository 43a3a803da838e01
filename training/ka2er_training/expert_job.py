"""Retrain one expert on its old cases and new corrections; runs as a process of its own.

``python -m ka2er_training.expert_job JOB`` is started by `ka2er_training.expert_retraining`, with
nnU-Net's environment variables set for this process only.  What the expert is does not change:
plans, normalisation and head are those of the expert it starts from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.child import reporting
from ka2er_training.expert_resume import latest_checkpoint, make_final
from ka2er_training.nnunet import FOLD, TRAINER_NAMES, seed_everything
from ka2er_training.presets import Preset
from ka2er_training.workspace import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLANS_NAME = "retrain"


@dataclass(frozen=True, slots=True)
class ExpertJob:
    """What the process is to do.

    Parameters
    ----------
    dataset_folder : str
        The task's raw dataset.
    expert : str
        Folder of the converted expert to start from.
    preprocessed, results : str
        nnU-Net's folders for this process.
    preset : Preset
        Schedule; its plans are not used.
    loss : str
        ``"dice_ce"`` or ``"ce"``.
    cases : dict of str to str
        Training cases and a key of what each was preprocessed from.
    corrected : tuple of str
        Those that came with this round.
    oversampling : float
        Share of the patches that come from them.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"mps"``.
    seed : int
        Of augmentation.
    """

    dataset_folder: str
    expert: str
    preprocessed: str
    results: str
    preset: Preset
    loss: str
    cases: dict[str, str]
    corrected: tuple[str, ...]
    oversampling: float
    device: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ExpertJob:
        """Build a job from what `to_json` returned."""
        corrected = tuple(data["corrected"])
        return cls(**{**data, "preset": Preset(**data["preset"]), "corrected": corrected})

    @property
    def dataset(self) -> str:
        """nnU-Net's name of the dataset."""
        return Path(self.dataset_folder).name

    @property
    def configuration(self) -> str:
        """nnU-Net's name of the expert's configuration."""
        return str(read_json(Path(self.expert, "expert.json"))["configuration"])

    @property
    def data_identifier(self) -> str:
        """Name of the folder of preprocessed cases: one for all experts with the same plans."""
        text = Path(self.expert, "plans.json").read_text(encoding="utf-8")
        plans = json.dumps(json.loads(text), sort_keys=True)
        return f"{PLANS_NAME}-{hashlib.sha256(plans.encode()).hexdigest()[:12]}"

    @property
    def model_folder(self) -> Path:
        """nnU-Net's folder for the trained model."""
        name = f"{TRAINER_NAMES[self.loss]}__{PLANS_NAME}__{self.configuration}"
        return Path(self.results, self.dataset, name)

    @property
    def fold_folder(self) -> Path:
        """Where the checkpoints are."""
        return self.model_folder / f"fold_{FOLD}"


def frozen_plans(job: ExpertJob) -> dict[str, Any]:
    """Return the expert's plans with our names of dataset and folders, and the dataset's reader.

    An expert that was trained elsewhere may name a reader that refuses this dataset's files.
    """
    plans: dict[str, Any] = deepcopy(read_json(Path(job.expert, "plans.json")))
    plans.setdefault("label_manager", "LabelManager")
    plans |= {"dataset_name": job.dataset, "plans_name": PLANS_NAME}
    plans["configurations"][job.configuration]["data_identifier"] = job.data_identifier
    description = read_json(Path(job.dataset_folder, "dataset.json"))
    if reader := description.get("overwrite_image_reader_writer"):
        plans["image_reader_writer"] = reader
    return plans


def prepare(job: ExpertJob, report: Callable[[dict[str, Any]], None]) -> None:
    """Preprocess the cases that are new or changed, with the expert's own plans."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder = Path(job.preprocessed, job.dataset, job.data_identifier)
    folder.mkdir(parents=True, exist_ok=True)
    if not (fingerprint := folder.with_name("dataset_fingerprint.json")).exists():
        write_json(fingerprint, {})  # of experts trained elsewhere; nnU-Net copies it about
    description = read_json(Path(job.dataset_folder, "dataset.json"))
    manager = PlansManager(frozen_plans(job))
    configuration = manager.get_configuration(job.configuration)
    preprocessor = configuration.preprocessor_class(verbose=False)
    done_file = folder.with_name(f"{folder.name}.json")
    done = read_json(done_file) if done_file.is_file() else {}
    for name in sorted(set(done) - set(job.cases)):
        _forget(folder, name)
    done = {name: key for name, key in done.items() if job.cases.get(name) == key}
    for i, (name, key) in enumerate(job.cases.items()):
        report({"stage": "preprocessing", "fraction": i / len(job.cases)})
        if name in done:
            continue
        _forget(folder, name)
        ending = description["file_ending"]
        image = Path(job.dataset_folder, "imagesTr", f"{name}_0000{ending}")
        label = Path(job.dataset_folder, "labelsTr", f"{name}{ending}")
        preprocessor.run_case_save(
            str(folder / name), [str(image)], str(label), manager, configuration, description
        )
        done[name] = key
        write_json(done_file, done)


def _forget(folder: Path, name: str) -> None:
    for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def train(job: ExpertJob, report: Callable[[dict[str, Any]], None]) -> None:
    """Train from the expert's weights, or from the latest checkpoint of this job."""
    import torch

    from ka2er_training import trainers
    from napari_ka2er.model.expert_files import fill_weights

    checkpoint = latest_checkpoint(job.fold_folder)
    if checkpoint is None:
        shutil.rmtree(job.fold_folder, ignore_errors=True)
    seed_everything(job.seed)
    plans = {**frozen_plans(job), "continue_training": checkpoint is not None}
    description = read_json(Path(job.dataset_folder, "dataset.json"))
    kind = getattr(trainers, TRAINER_NAMES[job.loss])
    trainer = kind(plans, job.configuration, FOLD, description, torch.device(job.device))
    trainer.configure(job.preset, report)
    trainer.replay(list(job.cases), set(job.corrected), job.oversampling)
    if checkpoint:
        trainer.load_checkpoint(str(checkpoint))
        seed_everything(job.seed + trainer.current_epoch)
        report({"stage": "resuming", "epoch": trainer.current_epoch, "of": job.preset.epochs})
    else:
        trainer.initialize()
        fill_weights(trainer.plain_network, Path(job.expert, "expert.safetensors"))
    if trainer.current_epoch < job.preset.epochs:
        trainer.run_training()
    elif checkpoint:
        make_final(checkpoint)


def main(arguments: Sequence[str]) -> None:
    """Do the job that the only argument describes."""
    report = reporting()
    job = ExpertJob.from_json(json.loads(arguments[0]))
    prepare(job, report)
    train(job, report)


if __name__ == "__main__":
    main(sys.argv[1:])
