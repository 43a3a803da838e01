"""The panel that makes the student better by what was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QPlainTextEdit, QProgressBar

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.session_exports import Export
from napari_ka2er.widgets.package_list import PackageList
from napari_ka2er.widgets.parts import (
    Panel,
    allow,
    button,
    emphasise,
    line,
    lines_high,
    note,
    row,
    small,
)
from napari_ka2er.widgets.retraining import PROMOTED, Retraining, RoundStatus

_EVERY_MS = 1000
_LOG_LINES = 6
_NO_WORKSPACE = "choose a workspace first; ka2er init makes one"
_NO_PACKAGE = "add a package first"
_NONE_TICKED = "tick a package first"
_EARLIER = "Tick what was exported before and is to be learned from, and press Retrain."
_CHOOSE_WORKSPACE = "Choose the workspace that is to learn from it, and press Retrain."
_CHOOSE = "Choose a workspace, add what Export package… has made, and press Retrain."


class TrainPanel(Panel):
    """Chooses a workspace and packages, starts a round, shows how far it is and what came of it.

    The round runs in a process of its own: closing the window does not end it, and a window that
    is opened later shows it again.
    """

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        self._retraining: Retraining | None = None
        self._status = RoundStatus()
        self._refusal = ""  # why what was chosen is no workspace
        self._exports: list[Export] = []  # of any window, newest first
        tip = "The workspace whose student is to become better; ka2er init makes one."
        self.folder = line("workspace", tip, "workspace")
        self.choose = small(button("Choose…", self._choose, "choose_workspace"))
        self.choose.setToolTip("Look for a workspace's folder.")
        self.packages = PackageList()
        self.add_package = button("Add package…", self._add_package, "add_package")
        self.remove_package = button("Remove", self._remove_package, "remove_package")
        self.start = button("Retrain", self._start, "retrain")
        self.stop = button("Stop", self._stop, "stop_retraining")
        self.bar, self.told = QProgressBar(), note("round_told")
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setFixedHeight(lines_high(self.log, _LOG_LINES))
        self.log.setToolTip("What the round says.")
        self.use = button("Use the new student", self._use, "use_student")
        self.report = button("Report", self._show_report, "show_report")
        self._lay_out()
        self._timer = QTimer(self, interval=_EVERY_MS)
        self._timer.timeout.connect(self._look)
        self.packages.itemChanged.connect(lambda _: self._look())
        controller.find_packages(self._offer)

    def _lay_out(self) -> None:
        self.bar.setRange(0, 100)
        self.bar.hide()
        self.log.hide()
        self.told.setText(_CHOOSE)
        self._controller.exported.connect(self.take_package)
        self.folder.editingFinished.connect(lambda: self.set_workspace(Path(self.folder.text())))
        self.add(row(self.folder, self.choose), self.packages)
        self.add(row(self.add_package, self.remove_package), row(self.start, self.stop))
        self.add(self.bar, self.told, self.log, row(self.use, self.report))

    # -------------------------------------------------------------- refresh

    def refresh(self) -> None:
        """Enable what is possible now; what is not says why."""
        none = "" if self._retraining is not None else _NO_WORKSPACE
        status = self._status
        running = "a round is at work" if status.is_running else ""
        missing = _NONE_TICKED if self.packages.count() else _NO_PACKAGE
        packages = "" if self.packages.ticked or status.is_broken else missing
        self.start.setText("Go on" if status.is_broken else "Retrain")
        tip = "Retrain the experts of what was corrected, and the student; the gate decides."
        again = "Go on with the round that was broken off."
        allow(self.start, again if status.is_broken else tip, none or running or packages)
        idle = "" if status.is_running else "nothing is running"
        allow(self.stop, "Stop where it can go on later; pressed twice, at once.", idle)
        allow(self.add_package, "A folder that Export package… has made.", running)
        unchosen = "" if self.packages.currentRow() >= 0 else "choose one in the list"
        allow(self.remove_package, "Take the chosen package out of the list.", unchosen)
        emphasise(self.choose, bool(none))
        emphasise(self.add_package, packages == _NO_PACKAGE and not none and not running)
        emphasise(self.start, not (none or running or packages))
        self._refresh_outcome()

    def _refresh_outcome(self) -> None:
        result = self._status.result or {}
        better = "" if result.get("status") == PROMOTED else "no round has made a new student"
        tip = "Go on in this session with the new student; nothing of the session is lost."
        allow(self.use, tip, self.no_session() or better)
        emphasise(self.use, not (self.no_session() or better))
        report = "" if result.get("report") else "there is none yet"
        allow(
            self.report, "Show the round's page: what was trained and why it was decided.", report
        )

    def summary(self) -> str:
        """Return how far the round is, or what came of it."""
        if self._status.is_running:
            return f"{self._status.share:.0%}"
        return str((self._status.result or {}).get("status", ""))

    # -------------------------------------------------------------- actions

    def set_workspace(self, folder: Path) -> None:
        """Choose a workspace; a round that is at work there is shown."""
        self._retraining, self._refusal = None, ""
        self.folder.setText(str(folder))
        try:
            self._retraining = Retraining(folder.expanduser().absolute())
            self._timer.start()
        except UserError as error:
            self._timer.stop()
            self._status = RoundStatus()
            self._refusal = str(error)
        self._offer(self._exports)

    def take_package(self, folder: Path) -> None:
        """Add a package to the next round's list."""
        self.packages.take(folder)
        self._look()

    def _offer(self, exports: list[Export]) -> None:
        """Offer what was exported in any window, but for what the workspace has had already."""
        if isalive(self):
            self._exports = exports
            self._list_packages()
            self._look()

    def _list_packages(self) -> None:
        retraining = self._retraining
        has_taken = (lambda _: False) if retraining is None else retraining.has_taken
        self.packages.offer(self._exports, has_taken)

    def _choose(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A workspace", self.folder.text())
        if chosen:
            self.set_workspace(Path(chosen))

    def _add_package(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A package")
        if chosen:
            self.take_package(Path(chosen))

    def _remove_package(self) -> None:
        self.packages.takeItem(self.packages.currentRow())
        self._look()

    def _start(self) -> None:
        retraining = self._retraining
        if retraining is None:
            return
        try:
            retraining.start(self.packages.ticked, resume=self._status.is_broken)
        except UserError as error:
            self._controller.failed.emit(str(error))
        self._look()

    def _stop(self) -> None:
        try:
            if self._retraining is not None:
                self._retraining.stop()
        except UserError as error:
            self._controller.failed.emit(str(error))
        self._look()

    def _use(self) -> None:
        version = (self._status.result or {}).get("version")
        if self._retraining is not None and version:
            self._controller.use_student(self._retraining.student(str(version)))

    def _show_report(self) -> None:
        path = (self._status.result or {}).get("report")
        if path:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))

    # ----------------------------------------------------------------- look

    def _look(self) -> None:
        """See how far the round is."""
        if self._retraining is not None:
            before, self._status = self._status, self._retraining.status()
            if before.is_running and not self._status.is_running:
                self._ended()
            self._show()
        else:
            self.told.setText(self._refusal or self._hint())
        self.refresh()

    def _ended(self) -> None:
        """Say what came of a round; its packages are not for the next one."""
        result = self._status.result
        if result is not None:
            self._list_packages()  # what the round took leaves the list, and nothing else
            self._controller.told.emit(f"Round {result.get('round')}: {outcome(self._status)}")
        elif self._status.error:
            self._controller.failed.emit(self._status.error)

    def _show(self) -> None:
        status = self._status
        self.bar.setValue(round(100 * status.share))
        self.bar.setVisible(status.is_running)
        self.told.setText(outcome(status) or self._hint())
        text = "\n".join(status.lines)
        if text != self.log.toPlainText():
            self.log.setPlainText(text)
            self.log.verticalScrollBar().setValue(self.log.verticalScrollBar().maximum())
        self.log.setVisible(bool(text))

    def _hint(self) -> str:
        n = len(self.packages.ticked)
        if not self.packages.count():
            return _CHOOSE
        if not n:
            return _EARLIER
        if self._retraining is None:
            return _CHOOSE_WORKSPACE
        return f"Retrain learns from {n} package{'s' * (n > 1)}; the gate decides what stays."


def outcome(status: RoundStatus) -> str:
    """Return where a round is, or what came of it, in words."""
    if status.is_running:
        return status.what
    if status.result is not None:
        version = status.result.get("version")
        which = f" {version}" if version else ""
        return f"{status.result.get('status')}{which}: {status.result.get('reason')}."
    if status.is_broken:
        why = f": {status.error}" if status.error else ""
        return f"A round was broken off{why}. Go on takes it up where it was."
    return status.error
