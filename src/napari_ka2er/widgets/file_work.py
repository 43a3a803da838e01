"""What is read from and written to disk for a session, in the background and in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er._reader import LayerData, layers_of
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.session_exports import Export, is_exported, packages_in, read_exports
from napari_ka2er.core.sessions import SessionSummary
from napari_ka2er.widgets import files, restore
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.layers import key_of, source_of
from napari_ka2er.widgets.model_work import ModelWork
from napari_ka2er.widgets.runner import Worker
from napari_ka2er.widgets.services import Services

T = TypeVar("T")


class FileWork(ModelWork):
    """Labels, packages, sizes, the autosaved mask and what can be restored; see `SessionBase`.

    Signals
    -------
    exported(Path)
        A package was written to this folder.
    export_progressed(float, str)
        Share done of a package, and what is being done.
    """

    exported = Signal(object)
    export_progressed = Signal(float, str)

    def __init__(
        self, viewer: Any, services: Services, sessions: Path, parent: QObject | None = None
    ) -> None:
        super().__init__(viewer, services, parent)
        self._sessions = sessions
        self._files = Worker("files", self)  # in turn: nothing that is being saved is dropped
        self._files.failed.connect(self._fail)
        self._files.emptied.connect(self._files_emptied)
        self._scans = Worker("scans", self)  # what nobody asked for; nothing is written
        self._scans.failed.connect(self._fail)
        self._n_saving = 0
        self._export_stop: threading.Event | None = None  # of the package that is being written
        self._exports: tuple[Export, ...] = ()  # the packages that the session went into
        self._packed: set[Path] = set()  # the folders of sessions that are in a package
        self._known: dict[Any, restore.Earlier] = {}  # layer's volume and place -> earlier work
        self._n_saved = 0  # how often the mask had been changed when it was saved
        self._is_leaving = threading.Event()
        self._autosave_timer = QTimer(self)
        self._autosave_timer.timeout.connect(self._autosave)

    @property
    def data_folder(self) -> Path:
        """Where the plugin keeps what belongs to no session; the sessions' folder lies in it."""
        return self._sessions.parent

    @property
    def is_saving(self) -> bool:
        """Whether labels or a package are being written."""
        return self._n_saving > 0

    @property
    def is_exported(self) -> bool:
        """Whether a package, of whatever window, has all that was done in the session."""
        session = self.session
        return session is not None and is_exported(self._exports, session.state.n_worked)

    @property
    def is_exporting(self) -> bool:
        """Whether a package is being written."""
        return self._export_stop is not None

    def is_packed(self, folder: Path) -> bool:
        """Return whether a session, by its folder, went into a package in this window."""
        return folder.resolve() in self._packed

    def restorable(self, layer: Any) -> list[SessionSummary]:
        """Return the unfinished sessions of the volume in a layer, as far as known by now.

        Its voxels and the logs are read in the background; `changed` tells when more is known.
        """
        return self.earlier(layer).sessions

    def earlier(self, layer: Any) -> restore.Earlier:
        """Return what is known by now of earlier work on the volume in a layer; see there."""
        key, known = key_of(layer), self._known
        if key not in known:
            known[key] = restore.Earlier()
            try:
                source = source_of(layer)
            except UserError:
                return known[key]

            def take(found: restore.Earlier) -> None:
                known[key] = found  # of no use if all was forgotten meanwhile
                self._note()

            self._scan(lambda: restore.of_source(self._sessions, source, self._go_on), take)
        return known[key]

    def read_layers(self, path: Path, then: Callable[[list[LayerData]], None]) -> None:
        """Read a file or folder in the background into what napari makes layers of."""
        self.told.emit(f"Reading {path.name} …")
        self._scans.do(lambda: layers_of(read_volume(path), path), then)
        self._note()

    def find_packages(self, then: Callable[[list[Export]], object]) -> None:
        """Look in the background for what was exported in any window and is still there."""
        self._scan(lambda: packages_in(self._sessions), then)

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
        who, stop, started = files.Who(reviewer, patient, name), threading.Event(), self._started

        def report(share: float, what: str) -> None:
            if stop.is_set():
                raise CancelledError("the export")
            if not self._is_leaving.is_set():  # while Qt takes the window apart
                self.export_progressed.emit(share, what)

        def note() -> None:
            own = [] if started is None else [started.folder]
            self._packed.update(folder.resolve() for folder in (*own, *more_sessions))
            if started is not None and started is self._started:
                self._exports = read_exports(started.folder)
            self.exported.emit(path)

        self._export_stop = stop if self._desk is not None else None
        self._write(
            lambda desk, folder: files.export(path, folder, desk, more_sessions, who, report), note
        )

    def cancel_export(self) -> None:
        """Stop writing a package, once its present file is written; nothing of it is left."""
        if self._export_stop is not None:
            self._export_stop.set()
            self._note()

    @property
    def is_export_stopping(self) -> bool:
        """Whether the package that is being written was asked to stop."""
        return self._export_stop is not None and self._export_stop.is_set()

    def set_autosave(self, seconds: int) -> None:
        """Save the mask beside the session's log every so many seconds; 0: never."""
        self._autosave_timer.stop()
        if seconds > 0:
            self._autosave_timer.start(1000 * seconds)

    def _scan(self, read: Callable[[], T], then: Callable[[T], object]) -> None:
        """Read a volume that nobody asked for: what is wrong with it is told at Start."""

        def quietly() -> tuple[T, ...]:
            try:
                self._go_on()
                return (read(),)
            except (UserError, CancelledError):
                return ()

        def tell(found: tuple[T, ...]) -> None:
            for one in found:
                then(one)

        self._scans.do(quietly, tell)

    def _go_on(self) -> None:
        """Stop what is read unasked if the window was closed; for the scans' own thread."""
        if self._is_leaving.is_set():
            raise CancelledError("the window was closed")

    def _leave_files(self) -> None:
        """Write what was asked for, and wait for it; what is read unasked is left behind."""
        self._is_leaving.set()
        self._scans.abandon()
        self._files.close()

    def _write(
        self, write: Callable[[SessionDesk, Path], str], then: Callable[[], None] | None = None
    ) -> None:
        def finish(text: str) -> None:
            self.told.emit(text)
            if then is not None:
                then()

        with self._reporting():
            started, desk = self._need(), self._desk
            if desk is not None:
                self._n_saving += 1
                self._files.do(lambda: write(desk, started.folder), finish)
                self._note()

    def _autosave(self) -> None:
        desk, started = self._desk, self._started
        if desk is None or started is None or self._files.is_busy:
            return
        if desk.n_drawn != self._n_saved:
            self._n_saved = desk.n_drawn
            self._files.do(lambda: files.save_labels(started.folder / files.AUTOSAVED, desk))

    def _files_emptied(self) -> None:
        self._n_saving, self._export_stop = 0, None
        self._note()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, CancelledError) and self.is_export_stopping:
            self.told.emit("Export stopped; no package was written.")
        super()._fail(error)

    def _forget_earlier(self) -> None:
        """Look again for earlier work, as there is less of it now."""
        self._known = {}
        self._note()
