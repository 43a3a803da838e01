"""Every decision of the Annotate widget, and its work in the background; no layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.sessions import SessionSummary
from napari_ka2er.widgets import files, jobs, restore
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.layers import source_of
from napari_ka2er.widgets.maps import Maps
from napari_ka2er.widgets.model_work import ModelWork
from napari_ka2er.widgets.prompt_layer import PromptEdits
from napari_ka2er.widgets.prompt_queue import PromptQueue
from napari_ka2er.widgets.runner import Worker
from napari_ka2er.widgets.services import Services
from napari_ka2er.widgets.session_view import Place, SessionView, Tool


class AnnotateController(ModelWork):
    """One viewer's work: a volume, a student, a session and the layers that show it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Whose layers are used.
    sessions : Path, optional
        Where sessions are kept; by default in the user's data folder.
    services : Services, optional
        Hands out the model's process; closed with the controller unless it is given.

    Signals
    -------
    changed, told, failed, progressed
        See `SessionBase` and `ModelWork`.
    """

    def __init__(
        self,
        viewer: Any,
        sessions: Path | None = None,
        parent: QObject | None = None,
        services: Services | None = None,
    ) -> None:
        super().__init__(viewer, services or Services(), parent)
        self._owns_services = services is None
        self._sessions = sessions or user_data_path("napari-ka2er") / "sessions"
        self.keys: dict[Any, Callable[[], object]] = {}  # what keys do on our layers
        self._files = Worker("files", self)  # in turn: nothing that is being saved is dropped
        self._files.failed.connect(self._fail)
        self._files.emptied.connect(self._files_emptied)
        self._n_saving = 0
        self._known: dict[Any, list[SessionSummary]] = {}  # layer's id -> what can be restored
        self._n_saved = 0  # how often the mask had been changed when it was saved
        self._autosave_timer = QTimer(self)
        self._autosave_timer.timeout.connect(self._autosave)
        self._begun_on: Place | None = None

    @property
    def is_saving(self) -> bool:
        """Whether labels or a package are being written."""
        return self._n_saving > 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs, but for encoding in the background."""
        timers = (self._ask_timer, self._changed_timer)
        busy = self.work or self.is_saving or self._files.is_busy
        desk = self._desk is not None and self._desk.is_busy
        return not (busy or desk or any(timer.isActive() for timer in timers))

    # ------------------------------------------------- begin, restore, end

    def start(self, layer: Any, choice: jobs.Choice) -> None:
        """Begin a session on an image layer; what was there before stays until it is ready."""
        with self._reporting():
            self._begin_on(layer, choice, None)

    def restorable(self, layer: Any) -> list[SessionSummary]:
        """Return the unfinished sessions of the volume in a layer, as far as known by now.

        Its voxels and the logs are read in the background; `changed` tells when more is known.
        """
        key = layer.unique_id
        if key not in self._known:
            self._known[key] = []
            try:
                source = source_of(layer)
            except UserError:
                return []
            self._files.do(
                lambda: restore.of_source(self._sessions, source),
                lambda found: self._restorable(key, found),
            )
        return self._known[key]

    def restore(self, layer: Any, folder: Path, choice: jobs.Choice) -> None:
        """Continue the session in a folder, with all its committed actions."""
        with self._reporting():
            self._begin_on(layer, choice, folder)

    def finish(self) -> None:
        """End the session for good: it is not offered again; what was done is in its folder."""
        started = self._started
        self._end_session()
        if started is not None:
            folder = started.folder
            self._files.do(lambda: restore.mark_finished(folder, files.n_committed(folder)))
            self._known = {}
        self._note()

    def close(self) -> None:
        """Stop what runs and let others open the session; called when the window closes."""
        for timer in (self._ask_timer, self._fill_timer, self._autosave_timer, self._changed_timer):
            if isalive(timer):
                timer.stop()
        self._runner.close()
        if self._owns_services:
            self._services.close()
        if self._desk is not None:
            self._desk.leave()
        self._files.close()

    def show_layers(self) -> None:
        """Show the session's layers, at first and after the user removed any."""
        if self.view is not None:
            self.view.show()
            self.view.set_label(self.label)
            self.view.set_tool(Tool.POSITIVE)

    def _begin_on(self, layer: Any, choice: jobs.Choice, restored: Path | None) -> None:
        source = source_of(layer)
        self._begun_on = Place(layer, source.place, source.is_oblique)
        job = jobs.starting(source, choice, self._sessions, self._services, restored)
        self._submit("starting", job)

    def _take(self, result: object) -> None:
        if isinstance(result, jobs.Started):
            self._begin(result)
        super()._take(result)

    def _begin(self, started: jobs.Started) -> None:
        place = self._begun_on
        self._end_session()
        if place is None:
            return
        self._started, session = started, started.session
        self._queue = PromptQueue(session)
        self._desk = desk = SessionDesk(session, started.shown, self)
        desk.failed.connect(self._fail)
        desk.emptied.connect(self._desk_emptied)
        for signal in (desk.labels_changed, desk.reviewed_changed, desk.drawn):
            signal.connect(self._note)
        desk.prompts_changed.connect(self._ask_timer.start)
        edits = PromptEdits(self.add_prompt, self._move_prompt, self._delete_prompt)
        self.view = SessionView(self._viewer, desk, place, edits)
        self.view.changed.connect(self._view_changed)
        self.view.failed.connect(self._fail)
        self.view.painted.connect(self._paint)
        self.view.bind(self.keys)
        self._maps = Maps(self._viewer, session.volume.name, place.transforms)
        self._seen, self.filled_share, self._n_saved = {}, 0.0, desk.n_drawn
        self.label = session.task.values[0]
        self.show_layers()
        self.told.emit(f"Session started; every step is kept in {started.folder}.")

    def _end_session(self) -> None:
        if self._maps is not None:
            self._maps.close()
        if self.view is not None:
            self.view.close()
        if self._desk is not None:
            self._desk.leave()
            self._desk.deleteLater()
        self.view = self._started = self._queue = self._desk = self._maps = None
        self._n_tools = 0

    def _move_prompt(self, number: int, prompt: Any) -> None:
        self._act(lambda session: session.move_prompt(number, prompt))

    def _delete_prompt(self, number: int) -> None:
        self._act(lambda session: session.delete_prompt(number))

    def _desk_emptied(self) -> None:
        self._n_tools = 0
        self._note()

    def _files_emptied(self) -> None:
        self._n_saving = 0
        self._note()

    def _restorable(self, key: Any, found: list[SessionSummary]) -> None:
        self._known[key] = found
        self._note()

    # --------------------------------------------------------------- files

    def save_labels(self, path: Path) -> None:
        """Write the labels in the volume's own geometry."""
        self._write(lambda desk, folder: files.save_labels(path, desk))

    def write_volumes(self, path: Path) -> None:
        """Write each label's size in millilitres as JSON."""
        self._write(lambda desk, folder: files.write_volumes(path, desk))

    def export(
        self,
        path: Path,
        more_sessions: Sequence[Path] = (),
        reviewer: str = "",
        patient: str = "",
        name: str = "",
    ) -> None:
        """Write a package that training can use; unreviewed voxels are ignored there.

        Cases of other sessions, given by their folders, go into the same package.
        """
        who = files.Who(reviewer, patient, name)
        report = self.progressed.emit
        self._write(
            lambda desk, folder: files.export(path, folder, desk, more_sessions, who, report)
        )

    def set_autosave(self, seconds: int) -> None:
        """Save the mask beside the session's log every so many seconds; 0: never."""
        self._autosave_timer.stop()
        if seconds > 0:
            self._autosave_timer.start(1000 * seconds)

    def _write(self, write: Callable[[SessionDesk, Path], str]) -> None:
        with self._reporting():
            started, desk = self._need(), self._desk
            if desk is not None:
                self._n_saving += 1
                self._files.do(lambda: write(desk, started.folder), self.told.emit)
                self._note()

    def _autosave(self) -> None:
        desk, started = self._desk, self._started
        if desk is None or started is None or self._files.is_busy:
            return
        if desk.n_drawn != self._n_saved:
            self._n_saved = desk.n_drawn
            self._files.do(lambda: files.save_labels(started.folder / files.AUTOSAVED, desk))
