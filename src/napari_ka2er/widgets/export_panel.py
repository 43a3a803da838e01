"""The panel to hand the work on: a package for training, labels as a file, volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QListWidget, QListWidgetItem, QProgressBar

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import WRITTEN_SUFFIXES
from napari_ka2er.core.sessions import SessionSummary, summarise_session
from napari_ka2er.widgets.parts import Panel, allow, button, emphasise, line, row, small

_ROWS = 3
_FOLDER, _TASK = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1


class ExportPanel(Panel):
    """Who vouches for what, which sessions go into the package, and where files go."""

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        self._session: Any = None
        controller.exported.connect(self._untick)
        self.reviewer = line("reviewer", "Who vouches for the labels; goes into the package.")
        self.reviewer.setPlaceholderText("reviewer")
        tip = "A pseudonym: all cases of one patient stay on one side of the hold-out."
        self.patient = line("patient", tip, "patient alias")
        tip = "What to call the case in the package; empty: a part of the image's digest."
        self.case = line("case_name", tip, "case name")
        self.others = QListWidget()
        self.others.setObjectName("more_sessions")
        self.others.setToolTip("Other sessions for the same package; untick those to leave out.")
        self.add_session = button("Add a session…", self._add_session, "add_session")
        self.export = button("Export package…", self._export, "export")
        self.save = button("Save labels…", self._save, "save_labels")
        self.volumes = button("Save volumes…", self._write_volumes, "write_volumes")
        self.bar = QProgressBar()
        self.bar.setObjectName("export_progress")
        self.bar.setRange(0, 100)
        self.cancel = small(button("Cancel", controller.cancel_export, "cancel_export"))
        controller.export_progressed.connect(self._progress)
        self.add(row(self.reviewer, self.patient, self.case), self.others)
        self.add(row(self.add_session, self.export), row(self.bar, self.cancel))
        self.add(row(self.save, self.volumes))

    def summary(self) -> str:
        """Return that a package is being written."""
        return "writing the package" if self._controller.is_exporting else ""

    # -------------------------------------------------------------- refresh

    def refresh(self) -> None:
        """See `Panel`."""
        session, none = self._controller.session, self.no_session()
        saving = none or ("a file is being written" if self._controller.is_saving else "")
        is_empty = session is None or session.state.reviewed.is_empty()
        unchecked = saving or ("mark what you checked as reviewed first" if is_empty else "")
        tip = "Write volume and labels as a package for training; what was not reviewed is ignored."
        allow(self.export, tip, unchecked)
        emphasise(self.export, not unchecked and not self._controller.is_exported)
        tip = f"Write the labels in the volume's own geometry: {', '.join(WRITTEN_SUFFIXES)}."
        allow(self.save, tip, saving)
        allow(self.volumes, "Write each label's volume in ml as JSON.", saving)
        tip = "Put another session's case into the same package, by its folder."
        allow(self.add_session, tip, none)
        self.others.setVisible(self.others.count() > 0)
        self._refresh_progress()
        self._remember(session)

    def _refresh_progress(self) -> None:
        controller = self._controller
        for part in (self.bar, self.cancel):
            part.setVisible(controller.is_exporting)
        if not controller.is_exporting:
            self.bar.setValue(0)
            self.bar.setFormat("")
        stopping = "it stops when the present file is written"
        tip = "Stop writing the package; nothing of it is left."
        allow(self.cancel, tip, stopping if controller.is_export_stopping else "")

    def _progress(self, share: float, what: str) -> None:
        self.bar.setValue(round(100 * share))
        self.bar.setFormat(f"{what}  %p %")

    def _remember(self, session: Any) -> None:
        """Offer what was reviewed in this window before, when another session begins."""
        before, self._session = self._session, session
        if session is before:
            return
        if session is not None:  # the next patient is another one
            self.patient.clear()
            self.case.clear()
        is_reviewed = before is not None and not before.state.reviewed.is_empty()
        if is_reviewed and before.folder is not None and before.folder not in self._folders():
            self.add_more(before.folder)
        self._untick()

    def _untick(self, path: object = None) -> None:
        """Leave out what a package of the session's task cannot take, or another one has."""
        for item in self._rows():
            is_other = self._session is not None and item.data(_TASK) != self._session.task.name
            if is_other or self._controller.is_packed(_folder(item)):
                item.setCheckState(Qt.CheckState.Unchecked)

    def _rows(self) -> list[QListWidgetItem]:
        return [self.others.item(n) for n in range(self.others.count())]

    def _folders(self) -> list[Path]:
        return [_folder(item) for item in self._rows()]

    @property
    def more_sessions(self) -> tuple[Path, ...]:
        """The folders of the other sessions that go into the package."""
        ticked = [x for x in self._rows() if x.checkState() == Qt.CheckState.Checked]
        return tuple(_folder(item) for item in ticked)

    def add_more(self, folder: Path) -> None:
        """Put another session into the list; one that is none is told."""
        try:
            summary = summarise_session(folder)
        except UserError as error:
            self._controller.failed.emit(str(error))
            return
        item = QListWidgetItem(introduce(summary))
        item.setData(_FOLDER, str(folder))
        item.setData(_TASK, summary.task)
        is_new = not summary.is_exported
        item.setCheckState(Qt.CheckState.Checked if is_new else Qt.CheckState.Unchecked)
        item.setToolTip(str(folder))
        self.others.addItem(item)
        height = self.others.sizeHintForRow(0)
        self.others.setFixedHeight(min(self.others.count(), _ROWS) * height + 6)
        self.refresh()

    # -------------------------------------------------------------- actions

    def _add_session(self) -> None:
        folder = None if self._session is None else self._session.folder
        start = "" if folder is None else str(folder.parent)
        chosen = QFileDialog.getExistingDirectory(self, "The folder of another session", start)
        if chosen:
            self.add_more(Path(chosen))

    def _export(self) -> None:
        session = self._controller.session
        name = f"Dataset001_{session.task.name}" if session else ""
        options = QFileDialog.Option.DontConfirmOverwrite  # an existing folder is refused anyway
        path, _ = QFileDialog.getSaveFileName(
            self, "A new folder for the package", name, "Folders (*)", options=options
        )
        if path:
            self._controller.export(
                Path(path),
                more_sessions=self.more_sessions,
                reviewer=self.reviewer.text().strip(),
                patient=self.patient.text().strip(),
                name=self.case.text().strip(),
            )

    def _save(self) -> None:
        session = self._controller.session
        name = f"{session.volume.name}_{session.task.name}.nii.gz" if session else ""
        kinds = f"Labels (*{' *'.join(WRITTEN_SUFFIXES)})"
        path, _ = QFileDialog.getSaveFileName(self, "Save labels", name, kinds)
        if path:
            self._controller.save_labels(Path(path))

    def _write_volumes(self) -> None:
        session = self._controller.session
        name = f"{session.volume.name}_volumes.json" if session else ""
        path, _ = QFileDialog.getSaveFileName(self, "Save volumes", name, "JSON (*.json)")
        if path:
            self._controller.write_volumes(Path(path))


def introduce(summary: SessionSummary) -> str:
    """Return what to tell about another session in a few words."""
    packed = ", exported" if summary.is_exported else ""
    return f"{summary.volume_name}, {summary.task}, {summary.n_actions} steps{packed}"


def _folder(item: QListWidgetItem) -> Path:
    return Path(item.data(_FOLDER))
