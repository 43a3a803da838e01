"""What is written to files: labels, packages, sizes, and the autosaved mask."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.correction import Correction, correction_of, export_package
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume, write_labels
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.log import read_header
from napari_ka2er.core.metrics import volumes_ml
from napari_ka2er.core.records import read_records
from napari_ka2er.core.session_exports import note_export
from napari_ka2er.core.sessions import SessionSummary, replay, source_of, summarise_session
from napari_ka2er.core.volume import Volume
from napari_ka2er.widgets.restore import mark_finished

if TYPE_CHECKING:
    from napari_ka2er.widgets.desk import SessionDesk

AUTOSAVED = "labels.nii.gz"


@dataclass(frozen=True, slots=True)
class Who:
    """Who vouches for a correction, a pseudonym of the patient, and what to call the case.

    With several cases, reviewer and patient are those of all: cases of one patient are never on
    both sides of a hold-out.
    """

    reviewer: str = ""
    patient: str = ""
    name: str = ""


def save_labels(path: Path, desk: SessionDesk) -> str:
    """Write the labels in the volume's own geometry; return what to tell."""
    labels = desk.ask(lambda: np.array(desk.session.mask))
    write_labels(path, labels, desk.session.volume, desk.session.task)
    return f"Labels saved as {path}."


def write_volumes(path: Path, desk: SessionDesk) -> str:
    """Write each label's size in millilitres as JSON; return what to tell."""
    labels = desk.ask(lambda: np.array(desk.session.mask))
    volume, task = desk.session.volume, desk.session.task
    sizes = volumes_ml(labels, volume.geometry, task.values)
    report = {
        "volume": volume.name,
        "task": task.name,
        "unit": "ml",
        "labels": {label.name: float(f"{sizes[label.value]:.6g}") for label in task.labels},
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return f"Sizes written to {path}."


def export(
    path: Path,
    folder: Path,
    desk: SessionDesk,
    more: Sequence[Path],
    who: Who,
    report: Callable[[float, str], None],
) -> str:
    """Write this session, and those in other folders, as a package; return what to tell.

    The sessions are read from their logs, so that counting what was changed stops nobody.  What
    `report` raises ends the export, and no package is left.
    """
    report(0.0, "reading the session")
    done = [desk.ask(lambda: summarise_session(folder))]  # before: what comes meanwhile is news
    cases = [replace(_correction(folder, who), volume=desk.session.volume)]
    for other in (other for other in more if other.resolve() != folder.resolve()):
        report(0.0, f"reading session {1 + len(cases)} of {1 + len(more)}")
        done.append(summarise_session(other))
        cases.append(_with_image(other, who))
    export_package(path, cases, progress=report)
    for summary in done:
        _note_packed(summary, path)
    return f"Package written to {path}{f' with {len(cases)} cases' if cases[1:] else ''}."


def _note_packed(summary: SessionSummary, package: Path) -> None:
    mark_finished(summary.folder, summary.n_actions)
    note_export(summary.folder, package, summary.n_worked, time.time())


def n_committed(folder: Path) -> int:
    """Return the number of actions in a session's log."""
    return sum(1 for _ in read_records(folder))


def _correction(folder: Path, who: Who) -> Correction:
    return correction_of(replay(folder), who.reviewer, who.patient, who.name)


def _with_image(folder: Path, who: Who) -> Correction:
    """Return the correction in another session's folder, with its image from its file.

    Raises
    ------
    UserError
        If the file is not there any more, or holds another image.
    """
    path = source_of(folder)
    if path is None:
        raise UserError(f"the image of session {folder.name}", "none", "put its file back")
    correction = _correction(folder, replace(who, name=""))
    return replace(correction, volume=_image_of(folder, path, correction.volume))


def _image_of(folder: Path, path: Path, place: Volume) -> Volume:
    """Return the channel of a file that a session is about, in the place it was segmented in.

    That place need not be the file's: the spacing may have been put right in napari.
    """
    digest = read_header(folder)["volume"].get("digest", "")
    found = read_volume(path)
    for channel in found.channels if found.shape == place.shape else ():
        volume = Volume(channel, place.affine, name=place.name, header=found.header)
        if volume.digest() == digest:
            return volume
    remedy = "open the image of that session, continue it and export it from there"
    raise UserError(f"the image of session {folder.name}", f"another one in {path}", remedy)
