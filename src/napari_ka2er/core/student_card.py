"""What a student's folder tells about it, read without its weights and without torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = "ka2er-student"
FORMAT_VERSION = 2  # 2: the mask decoder sees how much a voxel is like those that were clicked


@dataclass(frozen=True, slots=True)
class StudentCard:
    """What people want to know before they choose a student.

    Parameters
    ----------
    folder : Path
        Where it is.
    version : str
        Its version, empty if nobody gave it one.
    tasks : tuple of Task
        What it can segment, at least one.
    experts, missing : tuple of str
        The experts it was amalgamated from, and those of them that its folder lacks.
    dice : mapping, optional
        Mode -> task -> mean Dice over cases and labels of the hold-out, where it was measured.
    fingerprints : mapping, optional
        Task -> what its training volumes have in common, empty where nobody noted it; see
        `napari_ka2er.model.ranking`.
    """

    folder: Path
    version: str
    tasks: tuple[Task, ...]
    experts: tuple[str, ...]
    missing: tuple[str, ...]
    dice: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fingerprints: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def student_in(folder: Path) -> Path:
    """Return the student that a folder stands for: itself, or the current one of a workspace.

    Raises
    ------
    UserError
        If the folder is neither.
    """
    if (folder / "student.json").is_file():
        return folder
    pointer = folder / "students" / "current"
    if not pointer.is_file():
        got = f"{folder} without" if folder.is_dir() else f"{folder}, which is no folder"
        raise UserError("a folder with student.json, or a workspace with a current student", got)
    return pointer.parent / pointer.read_text(encoding="utf-8").strip()


def read_student_card(folder: Path) -> StudentCard:
    """Return what student.json tells; raises `UserError` where `read_student_json` does."""
    text = read_student_json(folder)
    try:
        tasks = tuple(Task.from_json(entry["task"]) for entry in text["config"]["tasks"])
        experts = tuple(str(entry["name"]) for entry in text["config"]["experts"])
        version = str(text["card"].get("version", ""))
        prints = [dict(entry.get("intensity") or {}) for entry in text["config"]["tasks"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"tasks and experts in {folder / 'student.json'}", f"{error}") from error
    if not tasks:
        raise UserError(f"at least one task in {folder / 'student.json'}", "none")
    places = {name: folder / "experts" / name / "expert.json" for name in experts}
    missing = tuple(name for name, place in places.items() if not place.is_file())
    fingerprints = {task.name: own for task, own in zip(tasks, prints, strict=True)}
    return StudentCard(folder, version, tasks, experts, missing, _dice(text["card"]), fingerprints)


def read_student_json(folder: Path) -> dict[str, Any]:
    """Return what a student's student.json says, without its weights.

    Raises
    ------
    UserError
        If there is none, it is not one, or it is of a newer format.
    """
    path = folder / "student.json"
    if not path.is_file():
        raise UserError("a student folder with student.json", f"{folder} without it")
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"JSON in {path}", f"{error}") from error
    if not isinstance(text, dict) or text.get("format") != FORMAT:
        raise UserError(f"a student of format {FORMAT} in {path}", "something else")
    version = text.get("format_version")
    if version != FORMAT_VERSION:
        is_older = isinstance(version, int) and version < FORMAT_VERSION
        remedy = "make it anew with ka2er amalgamate" if is_older else "update napari-ka2er"
        raise UserError(f"format version {FORMAT_VERSION} in {path}", f"version {version}", remedy)
    weights = text.get("weights")
    if (
        not {"config", "card"} <= set(text)
        or not isinstance(weights, dict)
        or "sha256" not in weights
    ):
        raise UserError(f"weights, config and card in {path}", f"{', '.join(text)}")
    return text


def _dice(card: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return mode -> task -> mean Dice; what a card does not tell, or tells oddly, is left out."""
    found: dict[str, dict[str, float]] = {}
    metrics = card.get("metrics")
    for mode, rows in metrics.items() if isinstance(metrics, dict) else ():
        for entry in rows if isinstance(rows, list) else ():
            try:
                task, label, mean = entry["task"], entry["label"], float(entry["dice"]["mean"])
            except (KeyError, TypeError, ValueError):
                continue
            # The row of all labels comes last; a task of one label has none.
            if math.isfinite(mean) and (label == "all" or task not in found.get(mode, {})):
                found.setdefault(str(mode), {})[str(task)] = mean
    return found
