"""What a press of a button does to a session at once; long work is the controller's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.session import Session
from napari_ka2er.widgets import jobs
from napari_ka2er.widgets.prompt_queue import PromptQueue
from napari_ka2er.widgets.session_view import SessionView, Tool

logger = logging.getLogger(__name__)


class SessionEdits(QObject):
    """A session, if there is one, and the quick things that people do to it.

    Nothing here raises for what a user did: it is told.

    Signals
    -------
    changed()
        What can be pressed, or what is shown, has changed.
    told(str), failed(str)
        A line for the user; an error for the user.
    """

    changed = Signal()
    told = Signal(str)
    failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._started: jobs.Started | None = None
        self._queue: PromptQueue | None = None
        self.view: SessionView | None = None
        self.label = 0

    @property
    def session(self) -> Session | None:
        """The session, if one was started."""
        return None if self._started is None else self._started.session

    def add_point(self, point: Point) -> int:
        """Give the chosen label's object a point, which will be answered; return its number.

        Raises
        ------
        UserError
            If there is no session, or the point lies outside the volume.
        """
        if self._queue is None:
            raise UserError("a session", "none", "press Start")
        return self._queue.add_point(self.label, point)

    def new_object(self) -> None:
        """Begin another object of the same label, beside what is there already."""
        with self._reporting():
            if self._queue is None:
                raise UserError("a session", "none", "press Start")
            self._queue.new_object(self.label)
            self.told.emit("The next point begins a new object; what is there stays as it is.")

    def undo(self) -> None:
        """Take back the last step, whatever made it."""
        with self._reporting():
            if not self._need().session.undo():
                self.told.emit("Nothing to undo.")
        self.changed.emit()

    def redo(self) -> None:
        """Make the last undone step again."""
        with self._reporting():
            if not self._need().session.redo():
                self.told.emit("Nothing to redo.")
        self.changed.emit()

    def review(self, is_reviewed: bool) -> None:
        """Vouch for the labels of the whole volume, or no longer."""
        with self._reporting():
            self._need().session.review_volume(is_reviewed)
        self.changed.emit()

    def set_label(self, value: int) -> None:
        """Choose the label that points and the brush are for."""
        self.label = value
        if self.view is not None:
            self.view.set_label(value)
        self.changed.emit()

    def step_label(self, step: int) -> None:
        """Choose the next (1) or the previous (-1) label."""
        if self.session is not None:
            values = self.session.task.values
            self.set_label(values[(values.index(self.label) + step) % len(values)])

    def flip_sign(self) -> None:
        """Go from positive to negative points, or back."""
        if self.view is not None:
            self.view.set_tool(Tool.NEGATIVE if self.view.is_positive else Tool.POSITIVE)

    def hide(self) -> None:
        """Hide the labels, or show them again."""
        if self.view is not None and self.view.labels is not None:
            self.view.labels.visible = not self.view.labels.visible

    def _view_changed(self) -> None:
        painted = None if self.view is None else self.view.label
        if self.session is not None and painted in self.session.task.values:
            self.label = int(painted or 0)
        self.changed.emit()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, UserError):
            self.failed.emit(str(error))
        else:
            logger.error("work for the Annotate widget failed", exc_info=error)
            self.failed.emit(f"{type(error).__name__}: {error} (the log has the details)")
        self.changed.emit()

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
