"""From a trained nnU-Net v2 model folder to files that run no code when they are read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
DEFAULT_CHECKPOINT = "checkpoint_final.pth"

# nnU-Net's training log holds NumPy numbers; building these runs no code of the file's author.
_HARMLESS = [
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """What a trained nnU-Net model folder holds for one fold.

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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UserError
        If the file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"a JSON file {path.name}", f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"a JSON object in {path}", f"a {type(data).__name__}")
    return data


def read_model_folder(
    folder: Path, *, fold: str | None, checkpoint: str, configuration: str | None, trust: bool
) -> TrainedModel:
    """Read one fold of a trained nnU-Net v2 model.

    Parameters
    ----------
    folder : Path
        The folder ``<trainer>__<plans>__<configuration>`` with plans.json, dataset.json and
        ``fold_*/``.
    fold : str, optional
        ``"0"``, ``"all"`` …; by default the first that has the checkpoint.
    checkpoint : str
        File name in the fold's folder.
    configuration : str, optional
        By default the one that was trained; another is refused.
    trust : bool
        Whether code inside the checkpoint may run, where it cannot be read without.

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
    chosen = _choose_fold(folder, fold, checkpoint)
    data = _read_checkpoint(folder / f"fold_{chosen}" / checkpoint, trust)
    trained = str(data["init_args"]["configuration"])
    if configuration not in (None, trained):
        raise UserError(
            f"a model of configuration {configuration}", f"one of {trained} in {folder}"
        )
    mirroring = data.get("inference_allowed_mirroring_axes")
    return TrainedModel(
        plans=read_json(folder / "plans.json"),
        dataset=read_json(folder / "dataset.json"),
        configuration=trained,
        fold=chosen,
        trainer=str(data["trainer_name"]),
        weights={_plain(key): value for key, value in data["network_weights"].items()},
        mirroring=None if mirroring is None else tuple(int(axis) for axis in mirroring),
    )


def _plain(key: str) -> str:
    """Drop what DistributedDataParallel and torch.compile put before parameter names."""
    return re.sub(r"^(module\.|_orig_mod\.)+", "", key)


def _choose_fold(folder: Path, fold: str | None, checkpoint: str) -> str:
    found = sorted(
        path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}")
    )
    if fold is not None and fold.removeprefix("fold_") in found:
        return fold.removeprefix("fold_")
    if fold is not None or not found:
        wanted = f"fold {fold}" if fold is not None else "a fold"
        raise UserError(
            f"{wanted} with {checkpoint} in {folder}", f"folds {', '.join(found) or 'none'}"
        )
    if len(found) > 1:
        logger.warning("%s has folds %s; taking fold %s", folder, ", ".join(found), found[0])
    return found[0]


def _read_checkpoint(path: Path, trust: bool) -> dict[str, Any]:
    """Read a checkpoint without running code from it if that is possible."""
    needs = f"an nnU-Net checkpoint {path}"
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_archive(path):
            raise UserError(needs, "a file that PyTorch cannot read") from error
        if not trust:
            raise UserError(
                f"{needs} that holds only numbers",
                "one that runs its author's code when it is read",
                "add --trust if you trust where it comes from",
            ) from error
        data = _unpickle(path)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(needs, f"a file that PyTorch cannot read ({error})") from error
    keys = ("network_weights", "init_args", "trainer_name")
    if not isinstance(data, dict) or any(key not in data for key in keys):
        raise UserError(f"{needs} with {', '.join(keys)}", "a file without")
    return data


def _is_archive(path: Path) -> bool:
    try:
        torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, pickle.UnpicklingError, EOFError):
        return False
    return True


def _unpickle(path: Path) -> dict[str, Any]:
    """Read a checkpoint and run what it wants run; only for files the user trusts."""
    try:
        data: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, ImportError, AttributeError, RuntimeError) as error:
        raise UserError(f"an nnU-Net checkpoint {path}", f"one that fails with: {error}") from error
    return data


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each once.

    A state dict of nnU-Net holds the encoder twice, as the decoder points to it, and the layers of
    each block twice; safetensors refuses tensors that share memory.
    """
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def digest(network: nn.Module, plans: Mapping[str, Any], configuration: str) -> str:
    """Return the SHA-256 of what decides an expert's features.

    Covers the configuration's name, the plans as JSON with sorted keys, and every tensor's name,
    shape and values as little-endian float32, so that it does not depend on the type they are
    stored in (rounding to float16 makes another expert, with another digest).
    """
    canonical = json.dumps(plans, sort_keys=True, separators=(",", ":"))
    sha = hashlib.sha256(f"{configuration}\n{canonical}\n".encode())
    for name, tensor in sorted(tensors_of(network).items()):
        sha.update(f"{name} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().float().numpy().astype("<f4").tobytes())
    return sha.hexdigest()


def task_of(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> Task:
    """Return the task of an nnU-Net dataset, named like the dataset.

    Of a dataset with regions the labels are the regions, with the values that nnU-Net writes.
    """
    name = re.sub(r"^Dataset\d+_", "", str(plans.get("dataset_name") or dataset.get("name") or ""))
    name = re.sub(r"[^\w-]+", "_", name, flags=re.ASCII) or "task"
    channels = dataset.get("channel_names") or dataset.get("modality") or {"0": "MR"}
    foreground = {n: v for n, v in dataset["labels"].items() if n not in ("background", "ignore")}
    order = dataset.get("regions_class_order")
    values = order if order else list(foreground.values())
    labels = [Label(int(v), str(n)) for n, v in zip(foreground, values, strict=True)]
    return Task(
        name, tuple(sorted(labels, key=lambda x: x.value)), str(next(iter(channels.values())))
    )


def write_expert(
    out: Path, network: nn.Module, model: TrainedModel, entry: Mapping[str, Any], *, half: bool
) -> None:
    """Write an expert's folder; it appears whole or not at all.

    Raises
    ------
    UserError
        If there is already something else.
    """
    if out.exists() and not (out / "expert.json").is_file() and any(out.iterdir()):
        raise UserError(
            "an empty folder or an expert to replace", f"{out}", "choose another folder"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        tensors = {
            name: (t.half() if half and t.is_floating_point() else t).contiguous()
            for name, t in tensors_of(network).items()
        }
        save_file(tensors, building / "expert.safetensors")
        parts = {"plans.json": model.plans, "dataset.json": model.dataset, "expert.json": entry}
        for name, data in parts.items():
            (building / name).write_text(json.dumps(data, indent=2), encoding="utf-8")
        building.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def fill_weights(network: nn.Module, path: Path) -> None:
    """Set a network's weights, as float32, from a file that `write_expert` wrote.

    Raises
    ------
    UserError
        If the file cannot be read or belongs to another network.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"an expert's weights {path}", f"{error}") from error
    own = tensors_of(network)
    shapes = {name: tuple(t.shape) for name, t in own.items()}
    if shapes != {name: tuple(t.shape) for name, t in stored.items()}:
        raise UserError(
            f"weights of the network in {path.parent / 'plans.json'}", f"others in {path}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
