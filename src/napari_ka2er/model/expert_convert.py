"""From a trained nnU-Net v2 model folder to files that run no code when they are read."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task
from napari_ka2er.model import expert_files
from napari_ka2er.model.expert_checkpoint import read_checkpoint
from napari_ka2er.model.expert_features import total_strides
from napari_ka2er.model.expert_files import read_json
from napari_ka2er.model.expert_probe import token_centres, trained_centres

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from napari_ka2er.model.expert_plan import Plan

logger = logging.getLogger(__name__)

DEFAULT_CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the models in a folder to take, and how far to trust it.

    Parameters
    ----------
    configuration : str, optional
        By default the one that was trained; another is refused.
    fold : str, optional
        ``"0"``, ``"all"`` …; by default the first that has the checkpoint.
    checkpoint : str
        File name in the fold's folder.
    trust : bool
        Whether code inside the checkpoint may run, where it cannot be read without.
    """

    configuration: str | None = None
    fold: str | None = None
    checkpoint: str = DEFAULT_CHECKPOINT
    trust: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """One fold of a trained nnU-Net v2 model.

    Parameters
    ----------
    plans, dataset : dict
        ``plans.json`` and ``dataset.json``.
    configuration, fold, trainer : str
        What was trained.
    weights : dict of str to Tensor
        The network's state.
    mirroring : tuple of int or None
        Axes along which predictions may be mirrored.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    fold: str
    trainer: str
    weights: dict[str, Tensor]
    mirroring: tuple[int, ...] | None


def convert(
    model_folder: Path, out: Path, choice: Choice, *, task: Task | None, half: bool
) -> None:
    """Write the expert; see `napari_ka2er.model.experts.convert_expert`."""
    model = read_model_folder(model_folder, choice)
    plan = expert_files.open_plan(model.plans, model.dataset, model.configuration)
    plan.check_for_student()
    known = task_of(model.plans, model.dataset)
    if task is not None:
        _check_labels(task, known, has_regions=plan.labels.has_regions)
    network = _network(plan, model)
    if half:
        network.half().float()
    _check_finite(network, model)
    strides = total_strides(network)
    probed = token_centres(network, plan.patch_size, strides)
    supervised = "NoDeepSupervision" not in model.trainer  # as nnU-Net's own trainers are named
    centres = trained_centres(probed, strides, is_deeply_supervised=supervised)
    entry = {
        "format": expert_files.FORMAT_VERSION,
        "task": (task or known).to_json(),
        "digest": expert_files.digest(network, model.plans, model.configuration),
        "configuration": model.configuration,
        "fold": model.fold,
        "trainer": model.trainer,
        "mirroring": model.mirroring,
        "token_centres": centres,
        "source": model_folder.resolve().name,
    }
    texts = {"expert.json": entry, "plans.json": model.plans, "dataset.json": model.dataset}
    expert_files.write_expert(out, network, texts, half=half)


def _network(plan: Plan, model: TrainedModel) -> nn.Module:
    network = plan.network()
    try:
        network.load_state_dict(model.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1:2])
        got = f"those of another ({reason.strip()}), trained by {model.trainer}"
        raise UserError("weights of the network in plans.json", got) from error
    return network


def _check_labels(task: Task, known: Task, *, has_regions: bool) -> None:
    """Refuse a model that cannot teach a task; warn of labels that are named otherwise."""
    named = {label.value: label.name for label in known.labels}
    if has_regions:
        wanted = "a model whose labels do not overlap, as a task's labels do not"
        remedy = "train one on labels that exclude each other"
        raise UserError(wanted, f"one of regions ({', '.join(named.values())})", remedy)
    if set(task.values) != set(known.values):
        wanted = f"a model of task {task.name} with values {task.values}"
        raise UserError(wanted, f"values {known.values}")
    if max(named) > len(named):  # nnU-Net numbers its outputs; so do losses on them
        raise UserError(f"a model with values 1 to {len(named)}", f"values {known.values}")
    pairs = [(named[label.value], label.name) for label in task.labels]
    if other := [f"{theirs} for {ours}" for theirs, ours in pairs if theirs != ours]:
        text = "task %s: the model names labels otherwise (%s); make sure that it means the same"
        logger.warning(text, task.name, ", ".join(other))


def _check_finite(network: nn.Module, model: TrainedModel) -> None:
    for name, tensor in expert_files.tensors_of(network).items():
        if not bool(torch.isfinite(tensor).all()):
            got = f"NaN or infinity in {name}, trained by {model.trainer}"
            raise UserError("finite weights", got, "take another checkpoint, or train again")


def read_model_folder(folder: Path, choice: Choice) -> TrainedModel:
    """Read one fold of the folder ``<trainer>__<plans>__<configuration>``.

    Raises
    ------
    UserError
        If something is missing, is no checkpoint, or needs trust.
    """
    if not (folder / "plans.json").is_file() or not (folder / "dataset.json").is_file():
        raise UserError(
            "a trained nnU-Net v2 model folder with plans.json, dataset.json and fold_0",
            f"{folder}",
            "give the folder named <trainer>__<plans>__<configuration>",
        )
    fold = _choose_fold(folder, choice)
    data = read_checkpoint(folder / f"fold_{fold}" / choice.checkpoint, trust=choice.trust)
    trained = data["init_args"]["configuration"]
    if choice.configuration not in (None, trained):
        raise UserError(f"a model of {choice.configuration}", f"one of {trained} in {folder}")
    mirroring = data.get("inference_allowed_mirroring_axes")
    return TrainedModel(
        plans=read_json(folder / "plans.json"),
        dataset=read_json(folder / "dataset.json"),
        configuration=trained,
        fold=fold,
        trainer=str(data["trainer_name"]),
        weights={_plain(key): value for key, value in data["network_weights"].items()},
        mirroring=None if mirroring is None else tuple(int(axis) for axis in mirroring),
    )


def _plain(key: str) -> str:
    """Drop what DistributedDataParallel and torch.compile put before parameter names."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def _choose_fold(folder: Path, choice: Choice) -> str:
    paths = folder.glob(f"fold_*/{choice.checkpoint}")
    found = sorted(path.parent.name.removeprefix("fold_") for path in paths)
    if choice.fold is not None and choice.fold.removeprefix("fold_") in found:
        return choice.fold.removeprefix("fold_")
    if choice.fold is not None or not found:
        wanted = "a fold" if choice.fold is None else f"fold {choice.fold}"
        got = f"folds {', '.join(found)}" if found else "none"
        raise UserError(f"{wanted} with {choice.checkpoint} in {folder}", got)
    if len(found) > 1:
        logger.warning("%s has folds %s: taking fold %s", folder, ", ".join(found), found[0])
    return found[0]


def task_of(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> Task:
    """Return the task of an nnU-Net dataset, named like the dataset.

    Of a dataset with regions the labels are the regions, with the values that nnU-Net writes.

    Raises
    ------
    UserError
        If labels or channels are not as nnU-Net writes them.
    """
    name = re.sub(r"^Dataset\d+_", "", str(plans.get("dataset_name") or dataset.get("name") or ""))
    name = re.sub(r"[^\w-]+", "_", name, flags=re.ASCII) or "task"
    try:
        return Task(name, _labels_of(dataset), _modality_of(dataset))
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise UserError("labels and channels in dataset.json", got) from error


def _labels_of(dataset: Mapping[str, Any]) -> tuple[Label, ...]:
    foreground = {n: v for n, v in dataset["labels"].items() if n not in ("background", "ignore")}
    values = dataset.get("regions_class_order") or list(foreground.values())
    labels = [Label(int(v), str(n)) for n, v in zip(foreground, values, strict=True)]
    return tuple(sorted(labels, key=lambda label: label.value))


def _modality_of(dataset: Mapping[str, Any]) -> str:
    channels = dataset.get("channel_names") or dataset.get("modality") or {"0": "MR"}
    return str(next(iter(channels.values())))
