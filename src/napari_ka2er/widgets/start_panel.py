"""The upper half of the Annotate widget: which volume, which student, which task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.compat import isalive
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QFileDialog, QLineEdit, QVBoxLayout, QWidget

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import StudentCard, read_student_card
from napari_ka2er.core.volume import REVERSE
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.layers import Source, source_of
from napari_ka2er.widgets.parts import allow, box, button, note, row

_MODES = {
    "sparse": "Only the experts that matter in a place are run: nearly as good as full, and fast.",
    "full": "Every expert is run everywhere: slowest.",
    "distilled": "No expert is run: fastest; needs no nnU-Net.",
}


class StartPanel(QWidget):
    """Lets people choose a volume, a student, a task and a mode.

    Signals
    -------
    pressed()
        Start was pressed.
    """

    pressed = Signal()

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._images: list[Image] = []
        self.card: StudentCard | None = None
        self.volume, self.volume_note = QComboBox(), note("volume_note")
        self.student, self.student_note = QLineEdit(), note("student_note")
        self.task, self.mode = QComboBox(), QComboBox()
        self.start = button("Start", self.pressed.emit)
        self._lay_out()
        self.volume.setToolTip("The image layer to segment. It is read, never changed.")
        self.student.setToolTip("The student's folder, with student.json in it.")
        self.volume.currentIndexChanged.connect(self._describe_volume)
        self.student.editingFinished.connect(self._read_student)
        self.mode.currentTextChanged.connect(
            lambda mode: self.mode.setToolTip(_MODES.get(mode, ""))
        )
        for event in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, event).connect(self._list_images)
        self._list_images()
        self.set_student(sample_folder() / "student")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        choose = button("Choose…", self._choose_student)
        choose.setToolTip("Look for a student's folder.")
        for combo in (self.volume, self.task, self.mode):
            combo.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            combo.setMinimumContentsLength(8)
        layout.addWidget(box("1 Volume", self.volume, self.volume_note))
        layout.addWidget(box("2 Student", row(self.student, choose), self.student_note))
        layout.addWidget(box("3 Task and mode", row(self.task, self.mode, self.start)))

    def _explain_mode(self, mode: str) -> None:
        self.mode.setToolTip(_MODES.get(mode, ""))

    # --------------------------------------------------------------- choice

    @property
    def layer(self) -> Image | None:
        """The chosen image layer."""
        index = self.volume.currentIndex()
        return self._images[index] if 0 <= index < len(self._images) else None

    @property
    def source(self) -> Source | None:
        """What is known of the chosen volume, or None if it cannot be used."""
        try:
            return None if self.layer is None else source_of(self.layer)
        except UserError:
            return None

    @property
    def choice(self) -> Choice | None:
        """The chosen student, task and mode, or None if there is no student."""
        if self.card is None:
            return None
        return Choice(self.card.folder, self.task.currentText(), self.mode.currentText())

    def obstacle(self) -> str:
        """Return why Start cannot be pressed, or nothing."""
        if self.layer is None:
            return "open a volume first"
        if self.source is None:
            return "this layer is no 3D image"
        return "" if self.card else "choose a student's folder"

    def update_start(self, work: str) -> None:
        """Enable what can be used while `work` is under way."""
        busy = "wait for what is running, or cancel it" if work else ""
        tip = "Load the student and begin a session on this volume."
        allow(self.start, tip, busy or self.obstacle())

    # --------------------------------------------------------------- volume

    def _list_images(self, event: Any = None) -> None:
        if not isalive(self):  # napari's signals know nothing of Qt's deletions
            return
        before = self.layer
        self._images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        self.volume.blockSignals(True)
        self.volume.clear()
        for layer in self._images:
            self.volume.addItem(layer.name)
            layer.events.name.connect(self._rename)  # connecting again does nothing
        places = [row for row, layer in enumerate(self._images) if layer == before]
        self.volume.setCurrentIndex(places[0] if places else len(self._images) - 1)
        self.volume.blockSignals(False)
        self._describe_volume()

    def _rename(self, event: Any = None) -> None:
        for index, layer in enumerate(self._images):
            self.volume.setItemText(index, layer.name)

    def _describe_volume(self, index: int = 0) -> None:
        text = "No image is open."
        try:
            if self.layer is not None:
                text = describe(source_of(self.layer))
        except UserError as error:
            text = str(error)
        self.volume_note.setText(text)
        self.update_start("")

    # -------------------------------------------------------------- student

    def set_student(self, folder: Path) -> None:
        """Choose the student in a folder; what is wrong with it is told below its name."""
        self.student.setText(str(folder))
        self._read_student()

    def _choose_student(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A student's folder", self.student.text())
        if chosen:
            self.set_student(Path(chosen))

    def _read_student(self) -> None:
        try:
            self.card = read_student_card(Path(self.student.text()).expanduser())
            self.student_note.setText(introduce(self.card))
        except UserError as error:
            self.card = None
            self.student_note.setText(str(error))
        self.task.clear()
        self.mode.clear()
        if self.card is not None:
            self.task.addItems([task.name for task in self.card.tasks])
            self.mode.addItems(["distilled"] if self.card.missing else list(_MODES))
        self.update_start("")


def describe(source: Source) -> str:
    """Return a volume's size, spacing and orientation in words."""
    from nibabel.orientations import aff2axcodes  # not at start: it imports much

    shape = " × ".join(str(n) for n in source.data.shape)
    spacing = " × ".join(f"{s:.3g}" for s in np.linalg.norm(source.affine[:3, :3], axis=0))
    axes = "".join(aff2axcodes(REVERSE @ source.affine @ REVERSE))[::-1]
    return f"{shape} voxels of {spacing} mm (Z × Y × X), axes {axes}"


def introduce(card: StudentCard) -> str:
    """Return a student's version, tasks and experts in words."""
    version = f"version {card.version}, " if card.version else ""
    tasks = ", ".join(task.name for task in card.tasks)
    n_here = len(card.experts) - len(card.missing)
    text = f"{version}{n_here} of {len(card.experts)} experts; tasks: {tasks}"
    return text + ("; only distilled mode, as experts are missing" if card.missing else "")
