"""How cells train experts, and how the negative control's experts come about."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
import torch

from ka2er_training import settings as workspace_settings
from ka2er_training.bench.means import expert_folder
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.experts import ExpertPlan, train_expert
from ka2er_training.sources import read_source
from ka2er_training.workspace import SETTINGS_FILE, Workspace, write_text
from napari_ka2er.model.expert_files import digest, read_json, write_expert
from napari_ka2er.model.expert_probe import token_centres
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means


def train_expert_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Train an expert in a workspace of its own, which holds nothing but its training cases.

    Test cases cannot leak into the training through a shared workspace.  A workspace that is there
    already belongs to a run that was stopped, and its training is resumed.
    """
    settings, folder = cell.settings, store.folder_of(cell)
    workspace = _workspace(folder / "workspace", settings, means)
    plan = ExpertPlan(
        settings["preset"], settings["loss"], resume=True, device=means.device, seed=0
    )
    outcome = train_expert(
        workspace,
        settings["task"],
        plan,
        progress=means.progress,
        cancelled=means.cancelled,
    )
    shutil.rmtree(folder / "expert", ignore_errors=True)
    shutil.copytree(outcome["expert_folder"], folder / "expert")
    curve = training_curve(Path(outcome["model_folder"]) / "fold_all" / "checkpoint_final.pth")
    expert = Expert.load(folder / "expert")
    return {
        "digest": expert.digest,
        "curve": curve,
        "converged": has_converged(curve["train_losses"]),
        "n_cases": len(settings["cases"]),
        "parameters": sum(p.numel() for p in expert.network.parameters()),
        "patch_size": list(expert.patch_size),
        "spacing_mm": list(expert.spacing_mm),
    }


def _workspace(folder: Path, settings: Mapping[str, Any], means: Means) -> Workspace:
    """Open the cell's workspace, or make it."""
    if (folder / SETTINGS_FILE).is_file() and settings["task"] in Workspace.open(folder).tasks:
        return Workspace.open(folder)
    shutil.rmtree(folder, ignore_errors=True)
    Workspace.create(folder)
    text = {
        "format": workspace_settings.FORMAT,
        "holdout": {"share": 0.0},
        "presets": {settings["preset"]: {"epochs": settings["epochs"]}},
    }
    write_text(folder / SETTINGS_FILE, tomli_w.dumps(text))
    workspace = Workspace.open(folder)
    source = read_source(means.data / settings["folder"])
    wanted = set(settings["cases"])
    source = dataclasses.replace(source, cases=tuple(c for c in source.cases if c.id in wanted))
    spacing = tuple(settings["spacing_mm"])
    add_task(workspace, source, TaskOptions(name=settings["task"], spacing_mm=spacing))
    return Workspace.open(folder)


def training_curve(checkpoint: Path) -> dict[str, list[float]]:
    """Return the training losses and the Dice on patches that nnU-Net's checkpoint has logged.

    The patches are training patches: with fold ``all`` nothing is held out.
    """
    numbers = [type(np.dtype(code)) for code in ("f4", "f8")]
    with torch.serialization.safe_globals([np.dtype, np._core.multiarray.scalar, *numbers]):  # type: ignore[attr-defined]
        log = torch.load(checkpoint, map_location="cpu", weights_only=True)["logging"]
    dice = [float(np.nanmean(epoch)) for epoch in log["dice_per_class_or_region"]]
    return {"train_losses": [float(loss) for loss in log["train_losses"]], "dice_on_patches": dice}


def has_converged(losses: Sequence[float], tolerance: float = 0.02) -> bool:
    """Return whether the mean loss of the last fifth is within `tolerance` of the fifth before.

    The learning rate falls to nothing, which flattens any curve: this alone proves little.  The
    tables therefore also show the same expert after a schedule of half the length.
    """
    n = len(losses) // 5
    if n == 0:
        return False
    last, before = np.mean(losses[-n:]), np.mean(losses[-2 * n : -n])
    return bool(before - last < tolerance)


def reset_expert_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Write an expert with the plans of a trained one and fresh weights: the negative control."""
    trained = Expert.load(expert_folder(cell.needs[0], store))
    torch.manual_seed(cell.settings["seed"])
    network = trained.plan.network()
    network.apply(network.initialize)  # type: ignore[arg-type]  # nnU-Net's own, not PyTorch's
    plans, dataset = (read_json(trained.folder / f"{name}.json") for name in ("plans", "dataset"))
    entry = {
        **trained.entry,
        "digest": digest(network, plans, trained.plan.name),
        "token_centres": token_centres(network, trained.plan.patch_size, trained.strides),
        "source": "untrained, for the negative control",
    }
    out = expert_folder(cell, store)
    texts = {"expert.json": entry, "plans.json": plans, "dataset.json": dataset}
    write_expert(out, network, texts, half=False)
    return {"digest": Expert.load(out).digest}
