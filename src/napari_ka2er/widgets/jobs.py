"""What takes longer than a window may wait: each function returns a job for the runner.

Nothing here touches Qt or a layer that is shown.  The model runs in a process of its own: the
window's process never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.sessions import create_session, restore_session
from napari_ka2er.core.student_card import StudentCard, read_student_card
from napari_ka2er.widgets import layers
from napari_ka2er.widgets.prompt_queue import Answer
from napari_ka2er.widgets.results import WHOLE, ExpertMap, Filled, Segmented, Uncertainty
from napari_ka2er.widgets.services import Choice as Choice

if TYPE_CHECKING:
    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.session import Session
    from napari_ka2er.core.task import Task
    from napari_ka2er.model.service import PredictorService
    from napari_ka2er.widgets.desk import SessionDesk
    from napari_ka2er.widgets.layers import Source
    from napari_ka2er.widgets.prompt_queue import PromptQueue
    from napari_ka2er.widgets.runner import IsCancelled, Job, Report
    from napari_ka2er.widgets.services import Services

# A job for the model's process: it is ready, and has the volume.
ModelJob = Callable[["PredictorService", "Report", "IsCancelled"], object]


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    """A session that has begun, with what, in which folder, and a copy of its mask to show.

    `task` is the student's own, without labels that were added in the session.
    """

    session: Session
    choice: Choice
    card: StudentCard
    task: Task
    folder: Path
    shown: Labels


def starting(
    source: Source, choice: Choice, parent: Path, services: Services, restored: Path | None = None
) -> Job:
    """Return the job that reads the volume, loads the student and begins a session in `parent`.

    With `restored`, the session in that folder is continued instead, with the task it has.
    """

    def job(report: Report, is_cancelled: IsCancelled) -> Started:
        report(0.0, "starting the student")
        card = read_student_card(choice.student)
        services.begin(choice)  # loads while the volume is read
        layers.warm_up()
        report(0.1, "reading the volume")
        volume = source.read()
        _go_on(is_cancelled)
        report(0.4, "opening the session")
        folder = restored or parent / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        if restored:
            session = restore_session(folder, volume)
        else:
            task = task_of(card, choice.task)
            session = create_session(folder, volume, task, source=source.path)
        with ExitStack() as undo:
            undo.callback(session.close)
            started = _started(session, choice, card, folder, services, report, is_cancelled)
            undo.pop_all()
        return started

    return job


def _started(
    session: Session,
    choice: Choice,
    card: StudentCard,
    folder: Path,
    services: Services,
    report: Report,
    is_cancelled: IsCancelled,
) -> Started:
    """Wait for the student; note in the session that it is at work."""
    task = task_of(card, session.task.name)
    report(0.6, "loading the student")
    services.ready(choice, session.volume, lambda share, what: None, is_cancelled)
    _go_on(is_cancelled)
    known = session.state.student
    if known is None or (known.version, known.mode) != (card.version, choice.mode):
        session.set_student(card.version, choice.mode)
    chosen = replace(choice, task=task.name)
    return Started(session, chosen, card, task, folder, np.array(session.mask))


def modelling(started: Started, services: Services, act: ModelJob) -> Job:
    """Return the job that lets the model's process do something with the session's volume."""
    volume = started.session.volume

    def job(report: Report, is_cancelled: IsCancelled) -> object:
        service = services.ready(started.choice, volume, report, is_cancelled)
        _go_on(is_cancelled)
        return act(service, report, is_cancelled)

    return job


def segmenting(session: Session, only: int | None = None) -> ModelJob:
    """Return what segments all labels of the task, or one; the result is ready to be committed."""
    since = session.state.history.steps

    def act(service: PredictorService, report: Report, is_cancelled: IsCancelled) -> Segmented:
        found = service.segment(session.task.name, progress=report, cancelled=is_cancelled)
        edit = session.prepare(WHOLE, found.labels, since) if only is None else None
        return Segmented(found.labels, float(found.seconds), edit, only, since)

    return act


def answering(desk: SessionDesk, queue: PromptQueue, task: Task) -> ModelJob:
    """Return what answers the object that waits and was changed last; None if none waits."""

    def act(service: PredictorService, report: Report, is_cancelled: IsCancelled) -> Answer | None:
        request = desk.ask(queue.next_request)
        if request is None:
            return None
        label = request.object.label
        result = service.prompt(
            task.name,
            label if label in task.values else None,  # one that was added here: any structure
            request.prompts,
            request.previous(),
            progress=report,
            cancelled=is_cancelled,
        )
        return Answer(request, result)

    return act


def filling(task: str, around_mm: tuple[float, float, float] | None) -> ModelJob:
    """Return what encodes one window more, near a place."""

    def act(service: PredictorService, report: Report, is_cancelled: IsCancelled) -> Filled:
        made = service.fill(task, around_mm, max_windows=1, cancelled=is_cancelled)
        return Filled(made, float(service.filled_share(task)))

    return act


def doubting(task: str) -> ModelJob:
    """Return what finds out how unsure the student is."""

    def act(service: PredictorService, report: Report, is_cancelled: IsCancelled) -> Uncertainty:
        service.segment(task, progress=report, cancelled=is_cancelled)
        report(1.0, "uncertainty")
        values = service.uncertainty(task)
        axes = ((1, 2), (0, 2), (0, 1))
        slices = tuple(values.mean(axis=others, dtype=np.float64) for others in axes)
        return Uncertainty(values.astype(np.float16), slices)

    return act


def trusting(task: str) -> ModelJob:
    """Return what finds out how much each expert was trusted."""

    def act(service: PredictorService, report: Report, is_cancelled: IsCancelled) -> ExpertMap:
        service.segment(task, progress=report, cancelled=is_cancelled)
        report(1.0, "expert map")
        names, values = service.expert_map(task)
        return ExpertMap(tuple(names), np.asarray(values, dtype=np.float16))

    return act


def task_of(card: StudentCard, name: str) -> Task:
    """Return a student's task.

    Raises
    ------
    UserError
        If it has none of that name.
    """
    for task in card.tasks:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in card.tasks)
    raise UserError(f"a task of the student: {known}", repr(name), "choose another student")


def _go_on(is_cancelled: IsCancelled) -> None:
    if is_cancelled():
        raise CancelledError
