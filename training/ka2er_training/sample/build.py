"""Build the student that ships with the project, from its public data to the folder that ships."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.distributed import first_alone, rank
from ka2er_training.evaluate_workspace import evaluate_workspace
from ka2er_training.experts import ExpertPlan, train_expert
from ka2er_training.integrity import ReadOptions
from ka2er_training.nnunet import FOLD
from ka2er_training.registry import current, student_folder
from ka2er_training.sample.brain import make_brain_task
from ka2er_training.sample.chest import PATIENT as CHEST_PATIENT
from ka2er_training.sample.chest import make_chest_task
from ka2er_training.sample.patients import PATIENT, name_by_patient
from ka2er_training.sources import read_source
from ka2er_training.students import AmalgamationPlan, amalgamate_workspace
from ka2er_training.workspace import SETTINGS_FILE, Workspace, read_json, write_text
from napari_ka2er.model.checkpoint import load_student, save_student
from napari_ka2er.model.config import Mode
from napari_ka2er.model.experts import Expert, convert_expert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

TASKS = {
    "hippocampus": TaskOptions(
        "hippocampus", (1.0, 1.0, 1.0), "CC BY-SA 4.0",
        "Medical Segmentation Decathlon, Task04 Hippocampus (Antonelli et al. 2022)",
        ReadOptions(None, PATIENT),
    ),
    "lungs": TaskOptions(
        "lungs", (5.0, 5.0, 5.0), "BSD-style, BSD-3-Clause and Apache-2.0, by case",
        "sample CTs of Chest Imaging Platform, elastix, pyradiomics and a torso atlas, and random "
        "variants of them",
        ReadOptions(None, CHEST_PATIENT),
    ),
    "brain_tissue": TaskOptions(
        "brain_tissue", (2.0, 2.0, 2.0), "ICBM 152 2009a terms (free use with the notice)",
        "random warps and contrasts of the ICBM 152 template as shipped by nilearn",
    ),
}  # fmt: skip

# Three training CTs: everything that augmentation can vary must vary.
_STRENGTH = (("lungs", 1.3),)
# With variants there is more to learn than in the preset's 40.
_EPOCHS = {"lungs": 60}
# Who installs no nnU-Net has distilled mode only: without experts a student learns slowly.
_STEPS, _ALONE = 2000, 0.5
# Clicks on what has no name learn slowly too: between steps 200 and 325 of 800 single vertebrae
# still got better (docs/benchmarks/sample.md); nothing was compared after that.
_CLICK_STEPS = 800


@dataclass(frozen=True, slots=True)
class SampleData:
    """Where the public data lie, as nnU-Net raw datasets; the brain task is made here."""

    hippocampus: Path
    lungs: Path


def build_sample(
    workspace_folder: Path,
    data: SampleData,
    out: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train experts and student, step by step; a step that is done is not done again.

    Parameters
    ----------
    workspace_folder : Path
        New, or that of a build that was interrupted.
    data : SampleData
        The public data.
    out : Path
        Folder of the student that ships; replaced as a whole.
    seed : int
        Of everything random.
    progress : callable, optional
        Told the share done and a line of text.

    Returns
    -------
    dict
        Plain data: the student's version, its folder and how large it is.
    """
    tell = progress or (lambda share, text: None)
    with first_alone():
        workspace = _open_or_create(workspace_folder, data)
        for i, name in enumerate(TASKS):
            tell(0.1 * i, f"task {name}")
            workspace = _task(workspace, name, data, seed)
            _expert(workspace, name, seed)
    if current(workspace) is None:
        plan = AmalgamationPlan(
            tasks=tuple(TASKS), seed=seed, resume=True, task_strength=_STRENGTH,
            steps=_STEPS, click_steps=_CLICK_STEPS, alone=_ALONE,
        )  # fmt: skip
        amalgamate_workspace(workspace, plan, progress=lambda s, t: tell(0.3 + 0.7 * s, t))
    if rank():
        return {}
    _evaluate(workspace)
    return ship(workspace, out)


def _open_or_create(folder: Path, data: SampleData) -> Workspace:
    """Return the workspace; a new one is made only if the data are there."""
    settings = folder / SETTINGS_FILE
    if not settings.exists():
        for source in (data.hippocampus, data.lungs):
            read_source(source)
        Workspace.create(folder)
        # A quarter, so that one of the four CTs is held out.
        write_text(settings, settings.read_text("utf-8").replace("share = 0.2\n", "share = 0.25\n"))
    return Workspace.open(folder)


def _task(workspace: Workspace, name: str, data: SampleData, seed: int) -> Workspace:
    if name in workspace.tasks:
        return workspace
    raw = workspace.folder / "runs" / "raw" / name
    raw.parent.mkdir(parents=True, exist_ok=True)
    if name == "hippocampus":
        folder = raw if raw.exists() else name_by_patient(data.hippocampus, raw)
    elif name == "brain_tissue":
        folder = raw if raw.exists() else make_brain_task(raw, seed=seed)
    else:
        folder = raw if raw.exists() else make_chest_task(data.lungs, raw, seed=seed)
    add_task(workspace, read_source(folder), TASKS[name])
    return Workspace.open(workspace.folder)


def _expert(workspace: Workspace, name: str, seed: int) -> None:
    """Train a task's expert and convert it to half precision, in which it ships."""
    folder = workspace.expert_folder(name)
    mark = folder / "expert.json"
    if mark.exists() and _is_half(folder):
        return
    if mark.exists():
        trained = _model_folder(workspace, name)
    else:
        epochs = _EPOCHS.get(name)
        plan = ExpertPlan(preset="tiny", resume=True, device="cpu", seed=seed, epochs=epochs)
        trained = workspace.folder / train_expert(workspace, name, plan)["model_folder"]
    # Amalgamated and shipped alike: rounding after the amalgamation would change the digest.
    convert_expert(
        trained, folder, task=workspace.record(name).task, folds=FOLD, trust=True, half=True
    )


def _model_folder(workspace: Workspace, name: str) -> Path:
    found = sorted((workspace.experts_folder / workspace.record(name).dataset).glob("*__*"))
    return found[-1]


def _is_half(folder: Path) -> bool:
    size = (folder / "expert.safetensors").stat().st_size
    n_weights = sum(p.numel() for p in Expert.load(folder).network.parameters())
    return size < 3 * n_weights


def _evaluate(workspace: Workspace) -> None:
    """Evaluate experts and student on the hold-out, in every mode, unless it was done."""
    version = current(workspace)
    reports = workspace.folder / "reports"
    if not (reports / "evaluation-experts.json").exists():
        evaluate_workspace(workspace, experts=True)
    for mode in get_args(Mode):
        if not (reports / f"evaluation-{version}-{mode}.json").exists():
            evaluate_workspace(workspace, mode=mode)


def _metrics(workspace: Workspace, version: str) -> dict[str, Any]:
    """Return the summaries of the evaluations by system."""
    found = {}
    for name in ("experts", *(f"{version}-{mode}" for mode in get_args(Mode))):
        path = workspace.folder / "reports" / f"evaluation-{name}.json"
        if path.exists():
            found[name.removeprefix(f"{version}-")] = read_json(path)["summary"]
    return found


def ship(workspace: Workspace, out: Path) -> dict[str, Any]:
    """Write the current student to `out` in half precision, with experts and figures."""
    source = student_folder(workspace)
    loaded = load_student(source)
    experts = {name: source / "experts" / name for name in loaded.experts}
    card = {**loaded.card, "metrics": _metrics(workspace, source.name)}
    save_student(out, loaded.student, card, half=True, experts=experts)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    logger.info("student %s with %d experts: %.1f MB", out, len(experts), size / 1e6)
    return {"version": loaded.card["version"], "folder": str(out), "bytes": size}
