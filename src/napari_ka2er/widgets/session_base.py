"""A session at work in the window, if there is one: what all that is done to it has in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.session import Session
from napari_ka2er.core.student_card import StudentCard
from napari_ka2er.core.task import Task
from napari_ka2er.widgets import jobs
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.prompt_queue import PromptQueue
from napari_ka2er.widgets.session_view import SessionView

logger = logging.getLogger(__name__)
T = TypeVar("T")


class SessionBase(QObject):
    """A session in a thread of its own, its view, and how to tell of them.

    Nothing here raises for what a user did: it is told.  What is asked for is done a moment later,
    in the order in which it was asked for.

    Signals
    -------
    changed()
        What can be pressed, or what is shown, has changed; at most once in a turn of the event
        loop.
    told(str), failed(str)
        A line for the user; an error for the user.
    """

    changed = Signal()
    told = Signal(str)
    failed = Signal(str)

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._started: jobs.Started | None = None
        self._desk: SessionDesk | None = None
        self._queue: PromptQueue | None = None
        self.view: SessionView | None = None
        self.label = 0
        self._changed_timer = QTimer(self, singleShot=True, interval=0)
        self._changed_timer.timeout.connect(self.changed)

    @property
    def session(self) -> Session | None:
        """The session, if one was started; to be read only, and only small things of it."""
        return None if self._started is None else self._started.session

    @property
    def choice(self) -> jobs.Choice | None:
        """The student, mode and device at work."""
        return None if self._started is None else self._started.choice

    @property
    def student_card(self) -> StudentCard | None:
        """What is known of the student at work."""
        return None if self._started is None else self._started.card

    @property
    def drawn(self) -> tuple[Any, ...]:
        """What the labels on the screen depend on: equal to what it was if they are the same."""
        desk, session = self._desk, self.session
        if desk is None or session is None:
            return ()
        return id(desk), desk.n_drawn, session.task

    # ------------------------------------------------------------- for all

    def _view_changed(self) -> None:
        label = None if self.view is None else self.view.label
        if self.session is not None and label is not None and label != self.label:
            if label in self.session.task.values:
                self.label = label
            else:
                self._keep_label(label, self.session.task)
        self._note()

    def _keep_label(self, other: int, task: Task) -> None:
        """Go on with the label before: napari's picker and keys know nothing of a task."""
        if self.view is not None:
            self.view.set_label(self.label)
        what = f"{other} is no label of this task" if other else "The background is no label"
        advice = "choose one in the table (keys 1–9)" if other else "the eraser removes labels"
        self.told.emit(f"{what}: {task.label(self.label).name} stays chosen; {advice}.")

    def _act(self, act: Callable[[Session], T], then: Callable[[T], object] | None = None) -> None:
        """Let something be done to the session; `then` gets what it returned, here."""

        def finish(result: T) -> None:
            if then is not None:
                then(result)
            self._note()

        with self._reporting():
            self._need()
            if self._desk is not None:
                self._desk.act(act, finish)
                self._note()

    def _note(self) -> None:
        """Tell soon, and once, that something changed."""
        self._changed_timer.start()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, UserError):
            self.failed.emit(str(error))
        elif not isinstance(error, CancelledError):
            logger.error("work for the Annotate widget failed", exc_info=error)
            self.failed.emit(f"{type(error).__name__}: {error} (the log has the details)")
        self._note()

    def _need(self) -> jobs.Started:
        if self._started is None:
            remedy = "choose a volume and a student and press Start"
            raise UserError("a session", "none", remedy)
        return self._started

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Tell the user what went wrong; Qt would only print it."""
        try:
            yield
        except UserError as error:
            self._fail(error)
