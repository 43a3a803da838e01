"""Corrections as packages that training can use: nnU-Net raw datasets with their provenance.

Plain nnU-Net trains on them.  Voxels nobody reviewed carry its ignore label, out of the loss.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.anonymous import without_names
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import content_digest, file_digest
from napari_ka2er.core.io import write_labels, write_volume
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.provenance import provenance
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.review import Reviewed
    from napari_ka2er.core.session import Session
    from napari_ka2er.core.task import Task

    Progress = Callable[[float, str], None]

FORMAT, VERSION = "ka2er-package", 1
MANIFEST, CORRECTIONS, DATASET = "manifest.json", "corrections.jsonl", "dataset.json"
SUFFIX = ".nii.gz"
# Where of an export its cases end, and of a case its digest and its image.
_CASES, _DIGEST, _IMAGE = 0.95, 0.1, 0.85


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """One corrected case.

    Parameters
    ----------
    volume : Volume
        The image.
    labels : ndarray of unsigned int, shape (Z, Y, X)
        Its labels, values of `task` and 0.
    task : Task
        What the labels mean.
    reviewed : Reviewed
        Where somebody vouches for them; must not be empty.
    record : mapping, optional
        Its provenance, as `provenance` returns it.
    """

    volume: Volume
    labels: Labels
    task: Task
    reviewed: Reviewed
    record: dict[str, Any] = field(default_factory=dict)


def correction_of(
    session: Session, reviewer: str = "", patient: str = "", name: str = ""
) -> Correction:
    """Return what a session has made of its volume so far.

    Parameters
    ----------
    session : Session
        The session; it may go on afterwards, the labels are copied.
    reviewer : str, optional
        Who vouches for the labels.
    patient : str, optional
        A pseudonym, so that all cases of one patient stay on one side of a hold-out.
    name : str, optional
        What to call the case.  File names often tell a patient's name, so by default a part of the
        image's digest is taken.
    """
    who = {"name": name, "patient": patient, "reviewer": reviewer}
    state = session.state
    record = {**who, **provenance(session)}
    return Correction(session.volume, state.mask.copy(), state.task, state.reviewed, record)


def export_package(
    path: Path,
    corrections: Sequence[Correction],
    *,
    progress: Progress | None = None,
) -> Path:
    """Write corrected cases of one task as a package; it appears complete or not at all.

    Parameters
    ----------
    path : Path
        The new folder.  nnU-Net's own commands want a name such as ``Dataset123_liver``.
    corrections : sequence of Correction
        At least one, of the same labels and number of channels, of different images.
    progress : callable, optional
        Told before each file the share that is done and what comes.  What it raises ends the
        export, and nothing of it is left.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        If the folder exists, a case has no reviewed voxel, or the cases do not go together.
    """
    if path.exists():
        raise UserError("a new folder for the package", f"{path}", "choose another name")
    _check_together(corrections)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as folder:
        _write_package(folder, corrections, progress or (lambda share, what: None))
    return path


def values_in_package(task: Task) -> dict[int, int]:
    """Return the value in a package of each label of a task: 1, 2, 3 … as nnU-Net wants them."""
    return {value: number for number, value in enumerate(sorted(task.values), start=1)}


def _check_together(corrections: Sequence[Correction]) -> None:
    if not corrections:
        raise UserError("at least one corrected case", "none")
    first = corrections[0]
    names = {label.name for label in first.task.labels}
    if names & {"background", "ignore"}:
        raise UserError("label names that nnU-Net leaves free", "background or ignore", "rename it")
    for c in corrections:
        if c.task.labels != first.task.labels or c.volume.n_channels != first.volume.n_channels:
            got = f"{first.volume.name} and {c.volume.name}, which differ in them"
            raise UserError("cases of the same labels and channels", got, "export two packages")
        if c.reviewed.is_empty():
            remedy = "mark the slices you checked, or the whole volume, as reviewed"
            raise UserError("a reviewed part in every case", f"none in {c.volume.name}", remedy)


def _write_package(folder: Path, corrections: Sequence[Correction], progress: Progress) -> None:
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    lines = []
    for number, correction in enumerate(corrections):
        lines.append(_write_case(folder, correction, _part(progress, number, len(corrections))))
    names = [line["case"] for line in lines]
    if len(set(names)) < len(names):
        raise UserError("each image once in a package", f"{sorted(names)}")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / CORRECTIONS).write_text(text, "utf-8")
    _write_json(folder / DATASET, _dataset(corrections))
    progress(_CASES, "checksums")
    _write_json(folder / MANIFEST, _manifest(folder, corrections[0].task))
    progress(1.0, "done")


def _part(progress: Progress, number: int, n_cases: int) -> Progress:
    """Return how a case tells its own share, in [0, 1], of the whole."""
    which = f"case {number + 1} of {n_cases}, " if n_cases > 1 else ""
    return lambda share, what: progress(_CASES * (number + share) / n_cases, which + what)


def _write_case(folder: Path, correction: Correction, progress: Progress) -> dict[str, Any]:
    """Write image and labels of a case; return its line of the provenance."""
    progress(0.0, "digest")
    volume = without_names(correction.volume)
    content = content_digest(volume)
    stem = re.sub(r"[^0-9A-Za-z-]+", "_", correction.record.get("name") or "case").strip("_")
    case = f"{stem or 'case'}_{content[:12]}"
    for number, channel in enumerate(volume.channels):
        progress(_DIGEST + (_IMAGE - _DIGEST) * number / volume.n_channels, "image")
        image = Volume(channel, volume.affine, header=volume.header)
        write_volume(folder / "imagesTr" / f"{case}_{number:04d}{SUFFIX}", image)
    progress(_IMAGE, "labels")
    labels = _packaged_labels(correction)
    write_labels(folder / "labelsTr" / f"{case}{SUFFIX}", labels, volume)
    reviewed = correction.reviewed.mask(volume.shape)
    return {
        "case": case,
        "image": {"digest": correction.volume.digest(), "content": content},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "reviewed": correction.reviewed.to_json(),
        "reviewed_share": float(reviewed.mean()),
        **{key: value for key, value in correction.record.items() if key != "reviewed"},
    }


def _packaged_labels(correction: Correction) -> Labels:
    """Return labels with nnU-Net's values, and its ignore label where nobody looked."""
    values = values_in_package(correction.task)
    ignore = len(values) + 1
    labels = np.zeros(correction.labels.shape, np.min_scalar_type(ignore))
    for value, packaged in values.items():
        labels[correction.labels == value] = packaged
    labels[~correction.reviewed.mask(labels.shape)] = ignore
    return labels


def _dataset(corrections: Sequence[Correction]) -> dict[str, Any]:
    """Return nnU-Net's dataset.json."""
    task, volume = corrections[0].task, corrections[0].volume
    values = values_in_package(task)
    labels = {"background": 0, **{label.name: values[label.value] for label in task.labels}}
    if not all(c.reviewed.is_whole(c.volume.shape) for c in corrections):
        labels["ignore"] = len(values) + 1
    names = (task.modality,) if volume.n_channels == 1 else volume.channel_names
    dataset = {
        "name": task.name,
        "description": task.description,
        "channel_names": {str(number): name for number, name in enumerate(names)},
        "labels": labels,
        "numTraining": len(corrections),
        "file_ending": SUFFIX,
    }
    # SimpleITK refuses these, nibabel does not.
    if any(c.volume.geometry.is_sheared for c in corrections):
        dataset["overwrite_image_reader_writer"] = "NibabelIO"
    return dataset


def _manifest(folder: Path, task: Task) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "format": FORMAT,
        "version": VERSION,
        "task": task.to_json(),
        "files": {
            path.relative_to(folder).as_posix(): {
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
            }
            for path in files
        },
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")
