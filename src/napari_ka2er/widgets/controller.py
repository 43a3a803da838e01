"""Every decision of the Annotate widget, and its work in the background; no layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.editable import PreparedEdit
from napari_ka2er.widgets import jobs
from napari_ka2er.widgets.layers import source_of
from napari_ka2er.widgets.prompt_queue import PromptQueue
from napari_ka2er.widgets.runner import Job, LatestRunner
from napari_ka2er.widgets.session_edits import SessionEdits
from napari_ka2er.widgets.session_view import SessionView, Tool


class AnnotateController(SessionEdits):
    """One viewer's work: a volume, a student, a session and the layers that show it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Whose layers are used.
    sessions : Path, optional
        Where sessions are kept; by default in the user's data folder.

    Signals
    -------
    changed, told, failed
        See `SessionEdits`.
    progressed(float, str)
        Share done of the long work, and what is being done.
    """

    progressed = Signal(float, str)

    def __init__(
        self, viewer: Any, sessions: Path | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._sessions = sessions or user_data_path("napari-ka2er") / "sessions"
        self.model_runner = self._runner(self._model_failed)
        self.file_runner = self._runner(self._fail)  # a click must not cancel what is being saved
        self.work = ""  # "starting", "segmenting", "answering" or nothing
        self.keys: dict[Any, Callable[[], None]] = {}  # what keys do while our layers are selected
        self._asked = 0  # the object whose answer is under way
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self._answer_next)

    @property
    def is_long(self) -> bool:
        """Whether something runs that a click must wait for."""
        return self.work in ("starting", "segmenting")

    @property
    def is_saving(self) -> bool:
        """Whether labels or a package are being written."""
        return self.file_runner.is_busy

    # ------------------------------------------------------------ long work

    def start(self, layer: Any, choice: jobs.Choice) -> None:
        """Begin a session on an image layer; what was there before stays until it is ready."""
        with self._reporting():
            self._submit("starting", jobs.starting(source_of(layer), choice, self._sessions))

    def segment(self) -> None:
        """Let the student segment all labels of the task."""
        with self._reporting():
            started = self._need()
            self._submit("segmenting", jobs.segmenting(started.session, started.predictor))

    def save_labels(self, path: Path) -> None:
        """Write the labels in the volume's own geometry."""
        with self._reporting():
            self._write(jobs.saving(path, self._need().session))

    def export(self, path: Path) -> None:
        """Write a package that training can use; unreviewed voxels are ignored there."""
        with self._reporting():
            started = self._need()
            self._write(jobs.exporting(path, started.folder, started.session.volume))

    def cancel(self) -> None:
        """Stop the long work; what was encoded is kept."""
        if self._queue is not None:
            self._queue.clear()
        self.model_runner.cancel()

    def finish(self) -> None:
        """End the session; what was done is in its folder."""
        if self.view is not None:
            self.view.close()
        if self._queue is not None:
            self._queue.close()
        if self.session is not None:
            self.session.close()
        self.view = self._started = self._queue = None

    def close(self) -> None:
        """Stop what runs and let others open the session; called when the window closes."""
        self._timer.stop()
        self.model_runner.close()
        self.file_runner.close()
        if self.session is not None:
            self.session.close()

    # -------------------------------------------------------------- answers

    def _runner(self, fail: Callable[[Exception], None]) -> LatestRunner:
        runner = LatestRunner(self)
        runner.finished.connect(self._take)
        runner.failed.connect(fail)
        runner.cancelled.connect(self._stopped)
        runner.progressed.connect(self.progressed)
        return runner

    def _submit(self, work: str, job: Job) -> None:
        self.work = work
        self.model_runner.submit(job)
        self.changed.emit()

    def _write(self, job: Job) -> None:
        self.file_runner.submit(job)
        self.changed.emit()

    def _take(self, result: object) -> None:
        with self._reporting():
            match result:
                case jobs.Started():
                    self._begin(result)
                case PreparedEdit():
                    self._commit(result)
                case jobs.Answer():
                    self._answered(result)
                case _:
                    self.told.emit(str(result))
        self._ended()

    def _model_failed(self, error: Exception) -> None:
        if self.work == "answering" and self._queue is not None:
            self._queue.answered(self._asked)  # else it would be asked, and fail, again and again
        self._fail(error)
        self._ended()

    def _stopped(self) -> None:
        self.told.emit("Stopped. What was encoded is kept.")
        self._ended()

    def _ended(self) -> None:
        if not self.model_runner.is_busy:
            self.work = ""
            self._timer.start()
        self.changed.emit()

    def _begin(self, started: jobs.Started) -> None:
        self.finish()
        self._started = started
        session = started.session
        self._queue = PromptQueue(session, self._timer.start)
        self.view = SessionView(self._viewer, session, started.place, self.add_point)
        self.view.changed.connect(self._view_changed)
        self.view.failed.connect(self._fail)
        self.view.bind(self.keys)
        self.label = session.task.values[0]
        self.show_layers()
        self.told.emit(f"Session started; every step is kept in {started.folder}.")

    def show_layers(self) -> None:
        """Show the session's layers, at first and after the user removed any."""
        if self.view is not None:
            self.view.show()
            self.view.set_label(self.label)
            self.view.set_tool(Tool.POSITIVE)

    def _commit(self, edit: PreparedEdit) -> None:
        changed = self._need().session.commit(edit, "automatic")
        self.told.emit("Segmented." if changed else "Segmented: nothing was found, or changed.")

    def _answered(self, answer: jobs.Answer) -> None:
        request, result = answer.request, answer.result
        detail = {"predicted_dice": result.predicted_dice}
        session = self._need().session
        if session.apply_result(request, result.box, result.mask, detail):
            if self._queue is not None:
                self._queue.answered(request.object.number)
            dice = f"the student expects a Dice of {result.predicted_dice:.2f}"
            self.told.emit(f"Answered in {result.seconds:.1f} s; {dice}.")

    def _answer_next(self) -> None:
        """Ask for the newest object that waits; the others follow when it is answered."""
        if self._started is None or self._queue is None or self.is_long:
            return
        with self._reporting():
            request = self._queue.next_request()
            if request is not None:
                self._asked = request.object.number
                task, predictor = self._started.session.task, self._started.predictor
                self._submit("answering", jobs.answering(task, predictor, request))
