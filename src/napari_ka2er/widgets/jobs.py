"""What takes longer than a window may wait: each function returns a job for the runner.

Nothing here touches Qt or a layer.  The model is imported inside the jobs, so that opening the
widget does not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.correction import correction_of, export_package
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.io import write_labels
from napari_ka2er.core.sessions import create_session, replay

if TYPE_CHECKING:
    from napari_ka2er.core.objects import PromptRequest
    from napari_ka2er.core.session import Session
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.predictor import Predictor
    from napari_ka2er.model.prompting import PromptResult
    from napari_ka2er.widgets.layers import Source
    from napari_ka2er.widgets.runner import Job

Report = Callable[[float, str], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to work with: a student's folder, one of its tasks, and a mode."""

    student: Path
    task: str
    mode: str


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    """A session that has begun: its folder, and where its layers belong."""

    session: Session
    predictor: Predictor
    folder: Path
    place: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the student made of an object's prompts."""

    request: PromptRequest
    result: PromptResult


def starting(source: Source, choice: Choice, parent: Path) -> Job:
    """Return the job that reads the volume, loads the student and begins a session in `parent`."""

    def job(report: Report, is_cancelled: IsCancelled) -> Started:
        report(0.0, "reading the volume")
        volume = source.read()
        _go_on(is_cancelled)
        report(0.2, "loading the student")
        predictor = _predictor(choice, volume)
        _go_on(is_cancelled)
        report(0.7, "opening the session")
        folder = parent / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        task = predictor.entry(choice.task).task
        session = create_session(folder, volume, task, source=source.path)
        session.set_student(str(predictor.loaded.card.get("version", "")), choice.mode)
        return Started(session, predictor, folder, source.place)

    return job


def segmenting(session: Session, predictor: Predictor) -> Job:
    """Return the job that segments all labels of the task; its result is ready to be committed."""

    def job(report: Report, is_cancelled: IsCancelled) -> object:
        found = predictor.segment(session.task.name, progress=report, cancelled=is_cancelled)
        whole = (slice(None), slice(None), slice(None))
        return session.prepare(whole, found.labels)

    return job


def answering(task: Task, predictor: Predictor, request: PromptRequest) -> Job:
    """Return the job that answers an object's prompts."""

    def job(report: Report, is_cancelled: IsCancelled) -> Answer:
        result = predictor.prompt(
            task.name,
            request.object.label,
            request.prompts,
            request.previous(),
            progress=report,
            cancelled=is_cancelled,
        )
        return Answer(request, result)

    return job


def saving(path: Path, session: Session) -> Job:
    """Return the job that writes the labels as they are now, in the volume's own geometry."""
    labels, volume, task = np.array(session.mask), session.volume, session.task

    def job(report: Report, is_cancelled: IsCancelled) -> str:
        write_labels(path, labels, volume, task)
        return f"Labels saved as {path}."

    return job


def exporting(path: Path, folder: Path, volume: Volume) -> Job:
    """Return the job that writes what a session's log holds as a package.

    The session is read from its log: counting what was changed takes too long for the window, and
    the live session must not be read while it is edited.
    """

    def job(report: Report, is_cancelled: IsCancelled) -> str:
        report(0.0, "reading the session")
        correction = replace(correction_of(replay(folder)), volume=volume)
        export_package(path, [correction], progress=report)
        return f"Package written to {path}."

    return job


def _predictor(choice: Choice, volume: Volume) -> Predictor:
    from napari_ka2er.model.checkpoint import load_student
    from napari_ka2er.model.device import resolve_device
    from napari_ka2er.model.predictor import Predictor

    loaded = load_student(choice.student, resolve_device())
    predictor = Predictor(loaded, choice.mode)  # type: ignore[arg-type]
    predictor.set_volume(volume)
    return predictor


def _go_on(is_cancelled: IsCancelled) -> None:
    if is_cancelled():
        raise CancelledError
