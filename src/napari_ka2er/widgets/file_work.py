"""What is read from and written to disk for a session, in the background and in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.sessions import SessionSummary
from napari_ka2er.widgets import files, restore
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.layers import source_of
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
    """

    exported = Signal(object)

    def __init__(
        self, viewer: Any, services: Services, sessions: Path, parent: QObject | None = None
    ) -> None:
        super().__init__(viewer, services, parent)
        self._sessions = sessions
        self._files = Worker("files", self)  # in turn: nothing that is being saved is dropped
        self._files.failed.connect(self._fail)
        self._files.emptied.connect(self._files_emptied)
        self._n_saving = 0
        self._exported: tuple[Any, int] | None = None  # the session, and how much was done in it
        self._packed: set[Path] = set()  # the folders of sessions that are in a package
        self._known: dict[Any, list[SessionSummary]] = {}  # layer's id -> what can be restored
        self._n_saved = 0  # how often the mask had been changed when it was saved
        self._is_leaving = False
        self._autosave_timer = QTimer(self)
        self._autosave_timer.timeout.connect(self._autosave)

    @property
    def is_saving(self) -> bool:
        """Whether labels or a package are being written."""
        return self._n_saving > 0

    @property
    def is_exported(self) -> bool:
        """Whether the session was exported, and nothing was done to its mask since."""
        session = self.session
        return session is not None and self._exported == (session, session.state.history.n_done)

    def is_packed(self, folder: Path) -> bool:
        """Return whether a session, by its folder, went into a package in this window."""
        return folder.resolve() in self._packed

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
            self._scan(
                lambda: restore.of_source(self._sessions, source),
                lambda found: self._restorable(key, found),
            )
        return self._known[key]

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
        report, session = self.progressed.emit, self.session
        n_done = 0 if session is None else session.state.history.n_done
        own = [] if self._started is None else [self._started.folder]

        def note() -> None:
            self._exported = session, n_done
            self._packed.update(folder.resolve() for folder in (*own, *more_sessions))
            self.exported.emit(path)

        self._write(
            lambda desk, folder: files.export(path, folder, desk, more_sessions, who, report), note
        )

    def set_autosave(self, seconds: int) -> None:
        """Save the mask beside the session's log every so many seconds; 0: never."""
        self._autosave_timer.stop()
        if seconds > 0:
            self._autosave_timer.start(1000 * seconds)

    def _scan(self, read: Callable[[], T], then: Callable[[T], object]) -> None:
        """Read a volume that nobody asked for: what is wrong with it is told at Start."""

        def quietly() -> tuple[T, ...]:
            try:
                return () if self._is_leaving else (read(),)
            except UserError:
                return ()

        def tell(found: tuple[T, ...]) -> None:
            for one in found:
                then(one)

        self._files.do(quietly, tell)

    def _leave_files(self) -> None:
        """Write what was asked for, and wait for it; what was to be read unasked is dropped."""
        self._is_leaving = True
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
        self._n_saving = 0
        self._note()

    def _restorable(self, key: Any, found: list[SessionSummary]) -> None:
        self._known[key] = found
        self._note()
