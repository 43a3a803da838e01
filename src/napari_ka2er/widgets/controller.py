"""Every decision of the Annotate widget, and its work in the background; no layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.session_exports import read_exports
from napari_ka2er.core.student_card import read_student_card, student_in
from napari_ka2er.widgets import files, jobs, restore
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.layers import release, source_of
from napari_ka2er.widgets.maps import Maps
from napari_ka2er.widgets.prompt_layer import PromptEdits
from napari_ka2er.widgets.prompt_queue import PromptQueue
from napari_ka2er.widgets.services import Services
from napari_ka2er.widgets.session_layers import Place
from napari_ka2er.widgets.session_view import SessionView, Tool
from napari_ka2er.widgets.task_ranking import TaskRanking


class AnnotateController(TaskRanking):
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
    student_changed(Choice)
        The session goes on with another student, and in which mode.
    """

    student_changed = Signal(object)

    def __init__(
        self,
        viewer: Any,
        sessions: Path | None = None,
        parent: QObject | None = None,
        services: Services | None = None,
    ) -> None:
        folder = sessions or user_data_path("napari-ka2er") / "sessions"
        super().__init__(viewer, services or Services(), folder, parent)
        self._owns_services = services is None
        self.keys: dict[Any, Callable[[], object]] = {}  # what keys do on our layers
        self._begun_on: Place | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs, but for encoding in the background."""
        timers = (self._ask_timer, self._changed_timer)
        busy = self.work or self.is_saving or self._files.is_busy or self._scans.is_busy
        desk = self._desk is not None and self._desk.is_busy
        showing = self.view is not None and self.view.is_showing
        return not (busy or desk or showing or any(timer.isActive() for timer in timers))

    # ------------------------------------------------- begin, restore, end

    def start(self, layer: Any, choice: jobs.Choice) -> None:
        """Begin a session on an image layer; what was there before stays until it is ready."""
        with self._reporting():
            self._begin_on(layer, choice, None)

    def restore(self, layer: Any, folder: Path, choice: jobs.Choice) -> None:
        """Continue the session in a folder, with all its committed actions."""
        with self._reporting():
            self._begin_on(layer, choice, folder)

    def use_student(self, folder: Path, mode: str = "", device: str = "") -> None:
        """Go on with another student, such as a newer version; the session stays as it is.

        Mode and device stay, too, where none are given; a student that lacks experts is distilled.
        """
        with self._reporting():
            started = self._need()
            card = read_student_card(student_in(folder))
            task = jobs.task_of(card, started.task.name)
            before = started.choice
            mode = "distilled" if card.missing else mode or before.mode
            device = device or before.device
            choice = replace(before, student=card.folder, mode=mode, device=device)
            self.cancel()
            self._started = replace(started, choice=choice, card=card, task=task)
            self._seen, self.filled_share = {}, 0.0
            self._forget_maps()
            self._act(lambda session: session.set_student(card.version, choice.mode))
            self.student_changed.emit(choice)
            who = f"student {card.version}, {mode}".replace(" ,", ",")
            self.told.emit(f"From here on {who}, answers; what is there stays.")
            self._fill_timer.start()

    def finish(self) -> None:
        """End the session for good: it is not offered again; what was done is in its folder."""
        started = self._started
        self.cancel()
        self._end_session()
        if started is not None:
            folder = started.folder
            self._files.do(
                lambda: restore.mark_finished(folder, files.n_committed(folder)),
                lambda _: self._forget_earlier(),
            )
            self.told.emit(f"Finished, and not offered again; its steps stay in {folder}.")
        self._note()

    def close(self, *, is_ending: bool = False) -> None:
        """Stop what runs, take our layers away and let others open the session.

        What was painted and what was to be saved is written first; this waits for it.

        Parameters
        ----------
        is_ending : bool, optional
            Whether napari itself is closing: its layers go with it, and are not to be touched.
        """
        if isalive(self):
            self._take_strokes()
        for timer in (self._ask_timer, self._fill_timer, self._autosave_timer, self._changed_timer):
            if isalive(timer):
                timer.stop()
        self._runner.close()
        if self._owns_services:
            self._services.close()
        self._leave_files()  # before the desk: what is saved is the desk's
        if self._desk is not None:
            self._desk.leave()
        self._leave_viewer(is_ending)

    def show_layers(self) -> None:
        """Show the session's layers, at first and after the user removed any."""
        if self.view is not None:
            self.view.show()

    def _layers_shown(self) -> None:
        if self.view is not None:
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
        self._exports = read_exports(started.folder)
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
        self.view.shown.connect(self._layers_shown)
        self.view.failed.connect(self._fail)
        self.view.painted.connect(self._paint)
        self.view.assigned.connect(self._assigned)
        self.view.bind(self.keys)
        self._maps = Maps(self._viewer, session.volume.name, place.transforms)
        self._seen, self.filled_share, self._n_saved = {}, 0.0, desk.n_drawn
        self.label = session.task.values[0]
        self.view.set_label(self.label)
        self.show_layers()
        self.told.emit(f"Session started; every step is kept in {started.folder}.")

    def _end_session(self) -> None:
        self._take_strokes()
        self._leave_viewer()
        desk = self._desk
        if desk is not None:  # in turn: what was to be saved before is the desk's
            self._files.do(desk.leave, lambda _: desk.deleteLater())
        self.view = self._started = self._queue = self._desk = self._maps = None
        self._n_tools = 0

    def _leave_viewer(self, is_ending: bool = False) -> None:
        """Take our layers out of the viewer: without a session, what is painted would be lost."""
        view, maps = self.view, self._maps
        for layer in () if view is None else (view.labels, view.points, view.shapes):
            if layer is not None:
                release(layer, self.keys)
        if is_ending:
            return
        if maps is not None:
            maps.close()
        if view is not None:
            view.close()
        self.view = self._maps = None

    def _forget_maps(self) -> None:
        """Take the maps of a student away that is no longer at work."""
        if self._maps is not None:
            self._maps.close()
            self._maps.uncertainty = None

    def _move_prompt(self, number: int, prompt: Any) -> None:
        self._act(lambda session: session.move_prompt(number, prompt))

    def _delete_prompt(self, number: int) -> None:
        self._act(lambda session: session.delete_prompt(number))

    def _desk_emptied(self) -> None:
        self._n_tools = 0
        self._note()
