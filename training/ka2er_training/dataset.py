"""Add a task's data to a workspace: check every case, hold patients out, copy, then register."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.holdout import split_cases
from ka2er_training.integrity import (
    ReadOptions,
    check_cases,
    found_labels,
    read_channel,
    require_every_label,
)
from ka2er_training.settings import TaskRecord, with_task
from ka2er_training.workspace import (
    CASES_FORMAT,
    SETTINGS_FILE,
    SPLITS,
    Workspace,
    read_json,
    write_json,
    write_text,
)
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, write_labels, write_volume
from napari_ka2er.core.io.atomic import left_behind, remove, replacing
from napari_ka2er.core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ka2er_training.integrity import CheckedCase
    from ka2er_training.sources import Source, SourceCase

# What nnU-Net reads as it is; everything else is converted to the first.
COPIED_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
# Bytes: folders, locks and temporary files are named after a task, and file systems allow 255.
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What a user may say about a task; empty means: as the source says."""

    name: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    licence: str = ""
    source: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)


def add_task(
    workspace: Workspace,
    source: Source,
    options: TaskOptions,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> TaskRecord:
    """Check a source, split it by patient and make it a task of the workspace.

    The task exists from the moment its table stands in ``ka2er.toml``, which is written last; if
    anything fails before, nothing is left.

    Raises
    ------
    UserError
        If the name is taken, too long or unusable, a case cannot be used, or another process is
        adding a task.
    CancelledError
        If `cancelled` said so.
    """
    name = options.name or re.sub(r"[^A-Za-z0-9_-]", "_", source.name)
    _check_name(workspace, name)
    checked = check_cases(source, options.read, progress, cancelled)
    labels = source.labels or found_labels(checked)
    require_every_label(labels, checked)
    task = Task(name, labels, source.modality)
    with workspace.lock("task-add"):
        record = TaskRecord(
            task=task,
            spacing_mm=options.spacing_mm or _median_spacing(checked),
            dataset=f"Dataset{_next_number(workspace):03d}_{name}",
            kind=source.kind,
            licence=options.licence or source.licence,
            source=options.source or source.reference,
            patient=options.read.patient,
        )
        splits = split_cases(workspace, checked)
        _install(workspace, record, source, options, list(zip(checked, splits, strict=True)))
    return record


def _check_name(workspace: Workspace, name: str) -> None:
    """Refuse a name that is taken or too long for folders, before any case is read."""
    if name in workspace.tasks:
        raise UserError(
            f"a new task name in {workspace.folder}", f"{name}, which exists", "give --name"
        )
    if (size := len(name.encode())) > LONGEST_NAME:
        wanted = f"a task name of at most {LONGEST_NAME} bytes"
        raise UserError(wanted, f"{size}: {name[:20]}…", "give a shorter --name")


def _median_spacing(checked: Sequence[CheckedCase]) -> tuple[float, float, float]:
    """Return the median spacing of all cases, in mm, to the micrometre or to four digits."""
    spacings = np.median([one.spacing for one in checked], axis=0).tolist()
    z, y, x = (round(mm, 3) if mm > 0.1 else float(f"{mm:.4g}") for mm in spacings)
    return z, y, x


def _next_number(workspace: Workspace) -> int:
    """Return the first dataset number that no task, no data set and nothing of nnU-Net's has."""
    names = [record.dataset for record in workspace.tasks.values()]
    for place in ("datasets", "preprocessed", "experts"):
        names += [path.name for path in (workspace.folder / place).glob("Dataset[0-9][0-9][0-9]*")]
    used = {int(name[7:10]) for name in names}
    return next(number for number in count(1) if number not in used)


def _install(
    workspace: Workspace,
    record: TaskRecord,
    source: Source,
    options: TaskOptions,
    cases: list[tuple[CheckedCase, str]],
) -> None:
    """Write the dataset under a temporary name, rename it, then register it.

    What a killed attempt left under such a name is removed; any other may be the user's.
    """
    target = workspace.folder / "datasets" / record.dataset
    kept = [(one, split) for one, split in cases if split]
    for left in left_behind(target.parent):
        remove(left)
    with replacing(target) as partial:
        _write_dataset(partial, record, source, options, kept)
    try:
        _register(workspace, record, kept)
    except UserError:
        remove(target)
        raise


def _write_dataset(
    folder: Path,
    record: TaskRecord,
    source: Source,
    options: TaskOptions,
    cases: list[tuple[CheckedCase, str]],
) -> None:
    """Write images, labels, dataset.json and cases.json."""
    endings = {
        _ending(path) for one, _ in cases for path in (one.case.image, one.case.label) if path
    }
    is_plain = options.read.channel is None and not _is_any_sheared(cases)
    is_copied = is_plain and len(endings) == 1 and endings <= set(COPIED_ENDINGS)
    ending = endings.pop() if is_copied else COPIED_ENDINGS[0]
    for split in {"training", *(split for _, split in cases)}:
        for name in filter(None, SPLITS[split]):
            (folder / name).mkdir(parents=True, exist_ok=True)
    for one, split in cases:
        _write_case(folder, one.case, split, ending, None if is_copied else options)
    write_json(folder / "dataset.json", _description(record, source, ending, cases))
    manifest = [
        {
            "id": one.case.id,
            "patient": one.patient,
            "split": split,
            "image": one.image_digest,
            "label": one.label_digest,
        }
        for one, split in cases
    ]
    write_json(folder / "cases.json", {"format": CASES_FORMAT, "cases": manifest})


def _write_case(
    folder: Path, case: SourceCase, split: str, ending: str, options: TaskOptions | None
) -> None:
    """Copy a case, or convert it if there are options."""
    images, labels = SPLITS[split]
    image = folder / images / f"{case.id}_0000{ending}"
    label = folder / labels / f"{case.id}{ending}" if labels else None
    if options is None:
        shutil.copyfile(case.image, image)
        if label and case.label:
            shutil.copyfile(case.label, label)
        return
    volume = read_channel(case.image, options.read.channel)
    volume = replace(volume, header={})  # all in mm: nnU-Net's NibabelIO does not look at the unit
    write_volume(image, volume)
    if label and case.label:
        write_labels(label, read_labels(case.label)[0], volume)


def _description(
    record: TaskRecord, source: Source, ending: str, cases: list[tuple[CheckedCase, str]]
) -> dict[str, Any]:
    """Return nnU-Net's dataset.json."""
    labels = {"background": 0, **{label.name: label.value for label in record.task.labels}}
    if source.ignore is not None:
        labels["ignore"] = source.ignore
    description = {
        "name": record.task.name,
        "channel_names": {"0": record.task.modality},
        "labels": labels,
        "numTraining": sum(split == "training" for _, split in cases),
        "file_ending": ending,
        "licence": record.licence,
        "reference": record.source,
    }
    if _is_any_sheared(cases):  # ITK refuses such NIfTI, and nnU-Net tries one file only
        description["overwrite_image_reader_writer"] = "NibabelIO"
    return description


def _is_any_sheared(cases: Sequence[tuple[CheckedCase, str]]) -> bool:
    return any(one.is_sheared for one, _ in cases)


def _register(
    workspace: Workspace, record: TaskRecord, cases: list[tuple[CheckedCase, str]]
) -> None:
    """Freeze the hold-out, then write the task's table: from here on the task exists."""
    held = {
        one.case.id: {"patient": one.patient, "image": one.image_digest, "label": one.label_digest}
        for one, split in cases
        if split == "holdout"
    }
    path = workspace.folder / "holdout.json"
    tasks = {name: entry for name, entry in workspace.holdout().items() if name in workspace.tasks}
    settings = workspace.settings.holdout
    tasks[record.task.name] = {"share": settings.share, "salt": settings.salt, "cases": held}
    write_json(path, {**read_json(path), "tasks": tasks})
    path = workspace.folder / SETTINGS_FILE
    write_text(path, with_task(path.read_text(encoding="utf-8"), record))


def _ending(path: Path) -> str:
    """Return the part of a file name that nnU-Net calls the file ending."""
    return next((ending for ending in COPIED_ENDINGS if path.name.endswith(ending)), path.suffix)
