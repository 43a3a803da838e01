"""What a path holds, in words and numbers, for `ka2er info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ka2er_training.exported import describe_export
from napari_ka2er.core.io import is_readable, read_volume
from napari_ka2er.core.student_card import student_in
from napari_ka2er.model.catalogue import find_student


def describe(name: str) -> dict[str, Any]:
    """Return what a student's folder, a workspace's student, an exported one or a volume is.

    Raises
    ------
    UserError
        If the path is none of these.
    """
    path = Path(name).expanduser()
    if (exported := describe_export(path)) is not None:
        return exported
    if path.exists() and not (path / "student.json").is_file() and is_readable(path):
        return describe_volume(path)
    return describe_student(student_in(find_student(name)))


def describe_student(folder: Path) -> dict[str, Any]:
    """Return a student's tasks, experts, sizes, data, licences and metrics."""
    from napari_ka2er.core.student_card import read_student_json
    from napari_ka2er.model.checkpoint import sha256_of
    from napari_ka2er.model.config import StudentConfig

    text = read_student_json(folder)
    config = StudentConfig.from_json(text["config"])
    tasks = {
        entry.task.name: {
            "labels": {str(label.value): label.name for label in entry.task.labels},
            "modality": entry.task.modality,
            "spacing_mm": list(entry.spacing_mm),
            "window": list(entry.window),
        }
        for entry in config.tasks
    }
    experts = {
        entry.name: {
            "digest": entry.digest,
            "present": (folder / "experts" / entry.name / "expert.json").is_file(),
        }
        for entry in config.experts
    }
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*.safetensors"))
    }
    return {
        "student": str(folder),
        "weights": text["weights"],
        "tasks": tasks,
        "experts": experts,
        "files": files,
        **text["card"],
    }


def describe_volume(path: Path) -> dict[str, Any]:
    """Return a volume's lattice and intensities."""
    volume = read_volume(path)
    data = volume.data
    return {
        "volume": str(path),
        "shape": list(volume.shape),
        "channels": list(volume.channel_names),
        "spacing_mm": [float(f"{mm:.7g}") for mm in volume.spacing],
        "extent_mm": [round(e, 3) for e in volume.geometry.extent_mm],
        "type": str(data.dtype),
        "range": [float(data.min()), float(data.max())],
        "digest": volume.digest(),
    }
