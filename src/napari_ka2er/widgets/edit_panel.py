"""The lower half of the Annotate widget: segment, correct, review, export."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_ka2er.core.io import WRITTEN_SUFFIXES
from napari_ka2er.widgets.controller import AnnotateController
from napari_ka2er.widgets.parts import allow, box, button, row, swatch
from napari_ka2er.widgets.session_view import Tool

_TOOLS = {
    Tool.POSITIVE: ("+ Point", "Click where the label is missing; the student answers. Key G."),
    Tool.NEGATIVE: ("− Point", "Click where the label is too much; the student answers. Key G."),
    Tool.BRUSH: ("Brush", "Paint the label by hand. Keys [ and ] change the size."),
    Tool.ERASER: ("Eraser", "Rub labels out by hand. Keys [ and ] change the size."),
}


class EditPanel(QWidget):
    """Buttons for what is done to a session; `refresh` fits them to what is possible.

    Parameters
    ----------
    controller : AnnotateController
        Does it.
    """

    def __init__(self, controller: AnnotateController, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self.segment = button("Segment", controller.segment)
        self.cancel = button("Cancel", controller.cancel)
        self.bar = QProgressBar()
        self.label = QComboBox()
        self.tools = {tool: self._tool_button(tool) for tool in _TOOLS}
        self.new_object = button("New object", controller.new_object)
        self.undo = button("Undo", controller.undo)
        self.redo = button("Redo", controller.redo)
        self.show_layers = button("Show labels and points again", self._show_layers)
        self.reviewed = QCheckBox("I checked the whole volume")
        self.save = button("Save labels…", self._save)
        self.export = button("Export package…", self._export)
        self._lay_out()
        self.label.activated.connect(self._choose_label)
        self.reviewed.clicked.connect(controller.review)
        controller.progressed.connect(self._progress)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.bar.setRange(0, 100)
        self.bar.setFormat("%p %")
        tools = list(self.tools.values())
        layout.addWidget(box("4 Segment", row(self.segment, self.cancel), self.bar))
        steps = row(self.new_object, self.undo, self.redo)
        parts = (self.label, row(*tools[:2]), row(*tools[2:]), steps, self.show_layers)
        layout.addWidget(box("5 Correct", *parts))
        layout.addWidget(box("6 Review and export", self.reviewed, row(self.save, self.export)))

    def _tool_button(self, tool: Tool) -> QPushButton:
        made = button(_TOOLS[tool][0], lambda: self._use(tool))
        made.setCheckable(True)
        return made

    # -------------------------------------------------------------- refresh

    def refresh(self) -> None:
        """Enable what is possible now; what is not says why."""
        controller = self._controller
        none = "" if controller.session else "press Start first"
        gone = "" if controller.view and controller.view.is_complete else "the layers were removed"
        busy = "wait for what is running, or cancel it" if controller.is_long else ""
        self._refresh_segment(none or busy)
        self._refresh_tools(none or gone)
        self._refresh_history(none)
        self._refresh_review(none)
        self.show_layers.setVisible(bool(controller.session and gone))

    def _refresh_segment(self, obstacle: str) -> None:
        tip = "Let the student segment all labels; replaces what is there (Undo brings it back)."
        allow(self.segment, tip, obstacle)
        idle = "" if self._controller.work else "nothing is running"
        allow(self.cancel, "Stop what is running; what was computed is kept.", idle)
        if idle:
            self.bar.setValue(0)
            self.bar.setFormat("")

    def _refresh_tools(self, obstacle: str) -> None:
        view = self._controller.view
        for tool, made in self.tools.items():
            allow(made, _TOOLS[tool][1], obstacle)
            made.setChecked(not obstacle and view is not None and view.tool == tool)
        allow(self.label, "The label that points and brush are for. Keys Q and W.", obstacle)
        tip = "Begin another object of this label; what is there stays as it is. Key N."
        allow(self.new_object, tip, obstacle)
        self._refresh_labels()

    def _refresh_labels(self) -> None:
        session = self._controller.session
        labels = session.task.labels if session else ()
        names = [f"{label.name} ({label.value})" for label in labels]
        if names != [self.label.itemText(n) for n in range(self.label.count())]:
            self.label.clear()
            for label, name in zip(labels, names, strict=True):
                self.label.addItem(swatch(label.color), name, label.value)
        self.label.setCurrentIndex(self.label.findData(self._controller.label))

    def _refresh_history(self, none: str) -> None:
        session = self._controller.session
        done = undone = 0
        if session is not None:
            done, undone = session.state.history.n_done, session.state.history.n_undone
        undo = none or ("" if done else "nothing was done yet")
        redo = none or ("" if undone else "nothing was undone")
        allow(self.undo, "Take back the last point, stroke or segmentation. Key Ctrl+Z.", undo)
        allow(self.redo, "Make it again. Key Ctrl+Shift+Z.", redo)

    def _refresh_review(self, none: str) -> None:
        session = self._controller.session
        is_reviewed = session is not None and session.state.reviewed.is_whole(session.volume.shape)
        self.reviewed.setChecked(is_reviewed)
        saving = none or ("a file is being written" if self._controller.is_saving else "")
        unchecked = saving or ("" if is_reviewed else "say first that you checked the volume")
        tip = "Say that the labels are right everywhere: training will trust them."
        allow(self.reviewed, tip, none)
        allow(self.save, "Write the labels as a file, in the volume's own geometry.", saving)
        allow(self.export, "Write volume and labels as a package for training.", unchecked)

    def _progress(self, share: float, what: str) -> None:
        self.bar.setValue(round(100 * share))
        self.bar.setFormat(f"{what}  %p %")

    # -------------------------------------------------------------- actions

    def _use(self, tool: Tool) -> None:
        if self._controller.view is not None:
            self._controller.view.set_tool(tool)

    def _choose_label(self, index: int) -> None:
        self._controller.set_label(int(self.label.itemData(index)))

    def _show_layers(self) -> None:
        self._controller.show_layers()

    def _save(self) -> None:
        session = self._controller.session
        name = f"{session.volume.name}_{session.task.name}.nii.gz" if session else ""
        kinds = f"Labels (*{' *'.join(WRITTEN_SUFFIXES)})"
        path, _ = QFileDialog.getSaveFileName(self, "Save labels", name, kinds)
        if path:
            self._controller.save_labels(Path(path))

    def _export(self) -> None:
        session = self._controller.session
        name = f"Dataset001_{session.task.name}" if session else ""
        options = QFileDialog.Option.DontConfirmOverwrite  # an existing folder is refused anyway
        path, _ = QFileDialog.getSaveFileName(
            self, "A new folder for the package", name, "Folders (*)", options=options
        )
        if path:
            self._controller.export(Path(path))
