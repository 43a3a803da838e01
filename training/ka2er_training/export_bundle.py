"""A student as a MONAI bundle, a folder that `python -m monai.bundle run` can use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from ka2er_training.export import copy_descriptions, our_licence
from ka2er_training.export_text import data_licence, metadata, readme
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.bundle_network import BundleNetwork
from napari_ka2er.model.checkpoint import load_student

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ka2er_training.export import Order
    from napari_ka2er.core.task import Task

_PACKAGE = "napari_ka2er.model.bundle_network"


def write_bundle(order: Order, out: Path) -> None:
    """Write a bundle into an empty folder.

    Raises
    ------
    UserError
        If the student lacks experts that its mode runs, or cannot be loaded.
    """
    names = [] if order.mode == "distilled" else [entry.name for entry in order.config.experts]
    loaded = load_student(order.student)
    if lacking := set(loaded.experts.missing) & set(names):
        wanted = f"the experts that mode {order.mode} runs, in {order.student / 'experts'}"
        raise UserError(wanted, f"no {', '.join(sorted(lacking))}", "or use --mode distilled")
    for folder in ("configs", "models", "docs"):
        (out / folder).mkdir()
    copy_descriptions(order.student, out / "models" / "student", names)
    network = BundleNetwork(str(out / "models" / "student"), order.task.name, order.mode)
    network.student.load_state_dict(loaded.student.state_dict())
    for own, name in zip(network.experts, names, strict=True):
        own.load_state_dict(loaded.experts[name].network.state_dict())
    network.has_weights.fill_(True)
    torch.save(compact(network.state_dict()), out / "models" / "model.pt")
    _write_json(out / "configs" / "metadata.json", metadata(order))
    _write_json(out / "configs" / "inference.json", inference(order))
    texts = {"docs/README.md": readme(order), "docs/data_license.txt": data_licence(order)}
    for name, text in {**texts, "LICENSE": our_licence()}.items():
        (out / name).write_text(text, encoding="utf-8")


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as float16 where that changes no value; what shares memory still does."""
    made: dict[int, Tensor] = {}
    for tensor in state.values():
        key = tensor.data_ptr()
        if key not in made:
            half = tensor.half() if tensor.is_floating_point() else tensor
            made[key] = half if torch.equal(half.to(tensor.dtype), tensor) else tensor
    return {name: made[tensor.data_ptr()] for name, tensor in state.items()}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def inference(order: Order) -> dict[str, Any]:
    """Return what `monai.bundle run` reads; ``@`` refers to other entries, ``$`` is Python."""
    return {
        "imports": ["$import glob", "$import os", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$os.path.join(@bundle_root, 'images')",
        "output_dir": "$os.path.join(@bundle_root, 'eval')",
        "checkpoint": "$os.path.join(@bundle_root, 'models', 'model.pt')",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "network_def": {
            "_target_": f"{_PACKAGE}.BundleNetwork",
            "folder": "$os.path.join(@bundle_root, 'models', 'student')",
            "task": order.task.name,
            "mode": order.mode,
        },
        "network": "$@network_def.to(@device)",
        **_loading(),
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": _compose(*_postprocessing(order.task)),
        "evaluator": {
            "_target_": f"{_PACKAGE}.BundleEvaluator",
            "dataloader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "device": "@device",
        },
        "initialize": [
            "$@network.load_state_dict("
            "torch.load(@checkpoint, map_location=@device, weights_only=True))"
        ],
        "run": ["$@evaluator.run()"],
    }


def _loading() -> dict[str, Any]:
    """Return what reads the images, raw, with their affine."""
    return {
        "preprocessing": _compose(
            {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ),
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
    }


def _compose(*transforms: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def _postprocessing(task: Task) -> list[dict[str, Any]]:
    """Return the transforms from logits to a label map in a file."""
    largest = max(task.values)
    steps: list[dict[str, Any]] = [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]
    if task.values != tuple(range(1, len(task.values) + 1)):
        labels = {
            "orig_labels": list(range(len(task.values) + 1)),
            "target_labels": [0, *task.values],
        }
        steps.append({"_target_": "MapLabelValued", "keys": "pred", **labels})
    steps.append(
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": task.name,
            "output_dtype": f"$numpy.{'uint8' if largest < 256 else 'uint16'}",
            "resample": False,
            "separate_folder": False,
        }
    )
    return steps
