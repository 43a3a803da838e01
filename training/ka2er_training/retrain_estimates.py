"""How long a round will take: from what earlier work took, or else from rough constants."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ka2er_training.belonging_stage import MOST_CASES
from ka2er_training.expert_retraining import short_preset
from ka2er_training.registry import student_folder
from ka2er_training.round_preset import config_of, preset_of
from ka2er_training.round_state import RoundOptions, rounds
from ka2er_training.round_student import round_recipe
from napari_ka2er.core.student_card import read_student_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ka2er_training.workspace import Workspace

# Seconds where nothing was measured in this workspace, for the tiny presets on one CPU core and
# the others on one GPU; they differ by a factor of three between machines.
ROUGH = {
    "tiny": {"step": 1.5, "click": 1.5, "look": 8.0, "epoch": 25.0, "case": 3.0},
    "base": {"step": 0.8, "click": 0.8, "look": 5.0, "epoch": 60.0, "case": 5.0},
}
MEMORY_GIB = {"tiny": 2.5, "base": 24.0}  # of the process, of the GPU


def estimate(
    workspace: Workspace, options: RoundOptions, counts: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Return seconds per stage and memory, and where each number comes from.

    Parameters
    ----------
    workspace : Workspace
        Its logs are read.
    options : RoundOptions
        What is to be done.
    counts : mapping
        New cases per task and split.
    """
    tasks = affected(counts)
    steps = _steps(workspace, options)
    measured_pace = measured(workspace, tasks)
    sizes = options.preset or preset_of(config_of(workspace))
    pace = {**ROUGH[sizes], **measured_pace}
    names = list(workspace.tasks) if options.from_scratch else tasks
    epochs = {name: _epochs(workspace, options, name) for name in names}
    n_new = sum(sum(by_split.values()) for by_split in counts.values())
    n_old = sum(len(workspace.training_cases(name)) for name in workspace.tasks)
    n_held = sum(len(workspace.holdout_cases(name)) for name in workspace.tasks)
    looks = n_new * len(workspace.tasks) + len(names) * (n_old + n_new)
    seconds = {
        "labels": min(n_new, MOST_CASES * len(counts)) * pace["look"],
        "experts": sum(epochs.values()) * pace["epoch"],
        "features": looks * pace["look"],
        "student": (steps["trunk"] + steps["polish"]) * pace["step"]
        + steps["clicks"] * pace["click"],
        "gate": n_held * pace["case"],  # the current student's results are kept
    }
    return {
        "epochs": epochs,
        "steps": steps,
        "seconds": {name: round(value) for name, value in seconds.items()},
        "seconds_total": round(sum(seconds.values())),
        "pace": {
            k: {"seconds": round(v, 3), "measured": k in measured_pace} for k, v in pace.items()
        },
        "memory_gib": MEMORY_GIB[sizes],
    }


def affected(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the tasks with new training cases."""
    return [task for task, by_split in counts.items() if by_split.get("training")]


def measured(workspace: Workspace, tasks: Sequence[str]) -> dict[str, float]:
    """Return seconds per step, click step and epoch, as far as there are logs of them."""
    pace = dict(_of_last_round(workspace))
    if "step" not in pace:
        pace |= _of_first_student(workspace)
    found = [value for task in tasks if (value := _epoch_seconds(workspace, task))]
    if found and "epoch" not in pace:
        pace["epoch"] = sum(found) / len(found)
    return pace


def _of_last_round(workspace: Workspace) -> dict[str, float]:
    """Return the pace of the latest round that came as far as its student."""
    for state in reversed(rounds(workspace)):
        if "student" not in state.stages:
            continue
        notes, pace = state.result("student"), {}
        steps = notes["steps"]
        if trunk := steps["trunk"] + steps["polish"]:
            pace["step"] = notes["seconds_trunk"] / trunk
        if steps["clicks"]:
            pace["click"] = notes["seconds_clicks"] / steps["clicks"]
        epochs = [
            one["last_epoch"]["seconds"]
            for one in state.result("experts")["experts"].values()
            if one["last_epoch"]
        ]
        return pace | ({"epoch": sum(epochs) / len(epochs)} if epochs else {})
    return {}


def _of_first_student(workspace: Workspace) -> dict[str, float]:
    """Return the pace of `ka2er amalgamate`: its notes' seconds over its logs' lines."""
    card = read_student_json(student_folder(workspace))["card"]
    seconds = card.get("notes", {}).get("seconds_trunk")
    run = workspace.folder / "runs" / "amalgamate"
    logs = [run / part / "scalars.jsonl" for part in ("trunk", "polish")]
    steps = sum(len(log.read_text().splitlines()) for log in logs if log.is_file())
    return {"step": seconds / steps} if seconds and steps else {}


def _epoch_seconds(workspace: Workspace, task: str) -> float | None:
    """Return the last epoch's time in the logs of nnU-Net."""
    folder = workspace.experts_folder / workspace.record(task).dataset
    logs = sorted(folder.glob("*/fold_*/training_log_*.txt"), key=lambda p: p.stat().st_mtime)
    for log in reversed(logs):
        if found := re.findall(r"Epoch time: ([\d.]+) s", log.read_text(errors="replace")):
            return float(found[-1])
    return None


def _steps(workspace: Workspace, options: RoundOptions) -> dict[str, int]:
    sizes = round_recipe(workspace, options, 1).sizes
    return {
        "trunk": sizes.schedule.steps,
        "polish": sizes.polish.steps,
        "clicks": sizes.clicks.steps,
    }


def _epochs(workspace: Workspace, options: RoundOptions, task: str) -> int:
    if options.from_scratch:
        return workspace.settings.presets[workspace.settings.expert.preset].epochs
    return short_preset(workspace, task, options.expert_epochs).epochs
