"""The cases of a dataset as ``cases.json`` lists them, and the files that must follow from it.

``cases.json`` is the one thing that is changed at once.  Everything else of a dataset (files in
the folders of their split, dataset.json, the hold-out) follows from it and from the packages, so
that work killed at any moment is made good by `settle`, which may be called at any time.

A corrected case has, besides id, patient, split and digests: ``package`` and ``name`` (where it
came from), ``round``, ``partial`` (whether it has unreviewed voxels) and, where a correction took
the place of an older label, ``label_version``; all versions lie in ``label_versions/``.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.integrity import label_digest
from ka2er_training.workspace import CASES_FORMAT, SPLITS, read_json, write_json
from napari_ka2er.core.correction import values_in_package
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import content_digest, file_digest
from napari_ka2er.core.io import read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.io.atomic import remove
from napari_ka2er.core.package import read_package

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.package import Package, PackagedCase

    Entry = dict[str, Any]

DATA_LOCK = "data"
# Jobs on several machines look after the data at the same time, and a large package takes minutes.
PATIENCE_S = 600


def write_cases(workspace: Workspace, task: str, cases: Sequence[Entry]) -> None:
    """Let a dataset have these cases: from here on it has, whatever happens; then `settle`."""
    path = workspace.dataset_folder(task) / "cases.json"
    write_json(path, {"format": CASES_FORMAT, "cases": list(cases)})


def settle_all(workspace: Workspace) -> None:
    """Make good what a killed process may have left undone, in every dataset.

    Raises
    ------
    UserError
        If another process is changing the data and goes on with it for minutes.
    """
    if not workspace.tasks:
        return
    with workspace.lock(DATA_LOCK, PATIENCE_S):
        for task in workspace.tasks:
            upgrade(workspace, task)
            settle(workspace, task)


def settle(workspace: Workspace, task: str) -> None:
    """Let files, dataset.json and hold-out of a task follow from its ``cases.json``.

    The caller holds the lock `DATA_LOCK`.
    """
    folder = workspace.dataset_folder(task)
    cases = workspace.manifest(task)
    remove(folder / ".settling")
    _describe(folder, cases)
    for case in cases:
        _place_image(workspace, folder, case)
        if SPLITS[case["split"]][1]:
            _place_label(workspace, task, case)
    remove(folder / ".settling")
    _freeze_holdout(workspace, task, cases)


def ignore_value(workspace: Workspace, task: str) -> int | None:
    """Return the label value of voxels that nobody reviewed, or None if there are none."""
    labels = read_json(workspace.dataset_folder(task) / "dataset.json")["labels"]
    value = labels.get("ignore")
    return None if value is None else int(value)


def future_ignore(workspace: Workspace, task: str) -> int:
    """Return the value that unreviewed voxels have or will have: the highest, as nnU-Net wants."""
    present = ignore_value(workspace, task)
    return max(workspace.record(task).task.values) + 1 if present is None else present


def packages_folder(workspace: Workspace, digest: str) -> Path:
    """Return where the workspace keeps its copy of a package."""
    return workspace.folder / "packages" / digest[:16]


def packaged(package: Package, name: str) -> PackagedCase:
    """Return a package's case by name."""
    return next(case for case in package.cases if case.name == name)


def labels_of(workspace: Workspace, task: str, case: PackagedCase) -> NDArray[np.uint16]:
    """Return a packaged case's labels with the values of the workspace's dataset."""
    labels, _ = read_labels(case.labels)
    known = workspace.record(task).task
    table = np.full(len(known.values) + 2, future_ignore(workspace, task), np.uint16)
    table[0] = 0
    for value, packed in values_in_package(known).items():
        table[packed] = value
    mapped: NDArray[np.uint16] = table[labels]
    return mapped


def version_path(folder: Path, case_id: str, version: int, ending: str) -> Path:
    """Return where a version of a label that was superseded, or supersedes one, is kept."""
    return folder / "label_versions" / f"{case_id}.v{version:03d}{ending}"


def upgrade(workspace: Workspace, task: str) -> None:
    """Compute the digests of a dataset anew if an older version of this program wrote them."""
    folder = workspace.dataset_folder(task)
    if read_json(folder / "cases.json")["format"] == CASES_FORMAT:
        return
    ending = read_json(folder / "dataset.json")["file_ending"]
    cases = workspace.manifest(task)
    for case in cases:
        images, labels = SPLITS[case["split"]]
        image = read_volume(folder / images / f"{case['id']}_0000{ending}")
        case["image"] = content_digest(image)
        if labels:
            case["label"] = label_digest(*read_labels(folder / labels / f"{case['id']}{ending}"))
    write_cases(workspace, task, cases)


def _describe(folder: Path, cases: Sequence[Entry]) -> None:
    """Let dataset.json tell the number of cases, and the ignore label once it is needed."""
    description = read_json(folder / "dataset.json")
    labels = dict(description["labels"])
    if any(case.get("partial") for case in cases):
        labels.setdefault("ignore", max(labels.values()) + 1)
    number = sum(case["split"] == "training" for case in cases)
    wanted = {**description, "labels": labels, "numTraining": number}
    if wanted != description:
        write_json(folder / "dataset.json", wanted)


def _place_image(workspace: Workspace, folder: Path, case: Entry) -> None:
    """Put an image into the folder of its split: from another split's, or from its package."""
    ending = _ending(folder)
    target = folder / SPLITS[case["split"]][0] / f"{case['id']}_0000{ending}"
    if target.exists() or _move(folder, target, [images for images, _ in SPLITS.values()]):
        return
    source = _source(workspace, case).images[0]
    with_new = _new(folder, target)
    if source.name.endswith(ending):
        shutil.copyfile(source, with_new)
    else:
        write_volume(with_new, read_volume(source))
    _put(with_new, target)


def _place_label(workspace: Workspace, task: str, case: Entry) -> None:
    """Put a label map into the folder of its split, in the version that is listed."""
    folder = workspace.dataset_folder(task)
    ending = _ending(folder)
    labels = SPLITS[case["split"]][1]
    target = folder / str(labels) / f"{case['id']}{ending}"
    present = target.exists() or _move(
        folder, target, [name for _, name in SPLITS.values() if name]
    )
    version = case.get("label_version")
    if version is not None:
        kept = version_path(folder, case["id"], version, ending)
        if not present or file_digest(kept) != file_digest(target):
            new = _new(folder, target)
            shutil.copyfile(kept, new)
            _put(new, target)
    elif not present:
        source = _source(workspace, case)
        new = _new(folder, target)
        write_labels(new, labels_of(workspace, task, source), read_volume(source.images[0]))
        _put(new, target)


def _source(workspace: Workspace, case: Entry) -> PackagedCase:
    if "package" not in case:
        raise UserError("every file that cases.json lists", f"none of {case['id']}", "restore it")
    return packaged(read_package(packages_folder(workspace, case["package"])), case["name"])


def _move(folder: Path, target: Path, elsewhere: Sequence[str]) -> bool:
    """Move a file from another split's folder, if it is in one."""
    for name in elsewhere:
        if (folder / name / target.name).exists():
            target.parent.mkdir(exist_ok=True)
            os.replace(folder / name / target.name, target)
            return True
    return False


def _new(folder: Path, target: Path) -> Path:
    """Return a temporary place for a file; not beside it, as nnU-Net takes whatever lies there."""
    (folder / ".settling").mkdir(exist_ok=True)
    target.parent.mkdir(exist_ok=True)
    return folder / ".settling" / target.name


def _put(new: Path, target: Path) -> None:
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(new, target)


def _ending(folder: Path) -> str:
    return str(read_json(folder / "dataset.json")["file_ending"])


def _freeze_holdout(workspace: Workspace, task: str, cases: Sequence[Entry]) -> None:
    """Let the hold-out have a new version if its cases changed; the old one is kept."""
    path = workspace.folder / "holdout.json"
    frozen = read_json(path)
    held = {
        case["id"]: {key: case[key] for key in ("patient", "image", "label")}
        for case in cases
        if case["split"] == "holdout"
    }
    if task not in frozen["tasks"] or frozen["tasks"][task]["cases"] == held:
        return
    if left := sorted(set(frozen["tasks"][task]["cases"]) - set(held)):
        wanted = f"every case of the frozen hold-out of {task} in cases.json"
        raise UserError(wanted, f"{left[0]} elsewhere", "no case ever leaves it: restore it")
    version = frozen.get("version", 1)
    old = workspace.folder / "holdouts" / f"v{version:04d}.json"
    old.parent.mkdir(exist_ok=True)
    write_json(old, frozen)
    tasks = {**frozen["tasks"], task: {**frozen["tasks"][task], "cases": held}}
    write_json(path, {**frozen, "version": version + 1, "tasks": tasks})
