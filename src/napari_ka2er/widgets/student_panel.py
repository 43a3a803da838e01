"""The panel to choose a student, its mode and its device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import StudentCard, read_student_card, student_in
from napari_ka2er.widgets.last_student import (
    last_student,
    remember_student,
    sample_student,
    stood_for,
)
from napari_ka2er.widgets.parts import Panel, allow, button, caption, combo, line, note, row, small
from napari_ka2er.widgets.preferences import DEVICES, MODES, read_preferences
from napari_ka2er.widgets.services import Choice

_MODES = {
    "sparse": "Only the experts that matter in a place are run: nearly as good as full, and fast.",
    "full": "Every expert is run everywhere: slowest.",
    "distilled": "No expert is run: fastest; needs no nnU-Net.",
}


class StudentPanel(Panel):
    """Lets people choose a student's folder, or a workspace, which stands for its current student.

    What was chosen last is chosen at first.

    Signals
    -------
    chosen()
        Another student, or none, is chosen.
    """

    chosen = Signal()

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        self.card: StudentCard | None = None
        self._preferences = read_preferences()
        tip = "A student's folder, or a workspace: then its current student is taken."
        self.folder, self.description = line("student", tip), note("student_description")
        self.choose = small(button("Choose…", self._choose, "choose_student"))
        self.choose.setToolTip("Look for a student's folder, or a workspace's.")
        self.sample = small(button("Sample", self.take_sample, "sample_student"))
        self.sample.setToolTip("Take the small student that comes with the plugin.")
        self.mode = combo("mode", "", MODES)
        tip = "Where the student runs; auto takes a GPU if there is one."
        self.device = combo("device", tip, DEVICES)
        self.device.setCurrentText(self._preferences.device)
        self.add(row(self.folder, self.choose, self.sample), self.description)
        self.differs = note("student_differs")
        self.use = button("Use in this session", self._use, "use_chosen_student")
        self.add(row(caption("Mode"), self.mode, caption("Device"), self.device))
        self.add(self.differs, self.use)
        self.folder.editingFinished.connect(self._read)
        self.mode.currentTextChanged.connect(self._explain_mode)
        for signal in (self.mode.currentTextChanged, self.device.currentTextChanged, self.chosen):
            signal.connect(lambda *_: self.refresh())
        controller.student_changed.connect(self._follow)
        self.set_student(last_student(controller.data_folder))

    def refresh(self) -> None:
        """Say where a session goes on with something else than what is chosen here."""
        choice, card = self._controller.choice, self.card
        differs = card is not None and choice is not None and not self._is_used(choice)
        if differs:
            version = self._controller.student_card.version or choice.student.name
            used = f"{version}, {choice.mode}, on {choice.device}"
            self.differs.setText(f"In this session {used}; the choice above is for the next Start.")
        tip = "Let what is chosen here answer from now on; nothing of the session is lost."
        allow(self.use, tip, self.busy())
        for part in (self.differs, self.use):
            part.setVisible(differs)

    def _is_used(self, choice: Choice) -> bool:
        chosen = self.card.folder if self.card is not None else None
        mode, device = self.mode.currentText(), self.device.currentText()
        return (choice.student, choice.mode, choice.device) == (chosen, mode, device)

    def _use(self) -> None:
        if self.card is not None:
            mode, device = self.mode.currentText(), self.device.currentText()
            self._controller.use_student(self.card.folder, mode, device)

    def obstacle(self) -> str:
        """Return why no session can begin with this student, or nothing."""
        return "" if self.card is not None else "choose a student's folder"

    def summary(self) -> str:
        """Return the student's version and mode."""
        if self.card is None:
            return ""
        return f"{self.card.version or self.card.folder.name}, {self.mode.currentText()}"

    def take_sample(self) -> None:
        """Choose the student that comes with the plugin."""
        self.set_student(sample_student())

    def set_student(self, folder: Path) -> None:
        """Choose the student in a folder; what is wrong with it is told below its name."""
        self.folder.setText(str(folder))
        self._read()

    def _follow(self, choice: Choice) -> None:
        """Choose the student that the session goes on with: the next one begins with it, too."""
        self.set_student(stood_for(choice.student))
        self.mode.setCurrentText(choice.mode)  # one that is not offered changes nothing

    def _choose(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "A student's folder", self.folder.text())
        if chosen:
            self.set_student(Path(chosen))

    def _read(self) -> None:
        before = self.card
        try:
            folder = student_in(Path(self.folder.text()).expanduser())
            self.card = read_student_card(folder)
            self.description.setText(introduce(self.card))
            chosen = Path(self.folder.text()).expanduser()
            remember_student(self._controller.data_folder, chosen)
        except UserError as error:
            self.card = None
            self.description.setText(str(error))
        if self.card != before:
            self._offer_modes()
            self.chosen.emit()

    def _offer_modes(self) -> None:
        modes = [] if self.card is None else ["distilled"] if self.card.missing else list(MODES)
        self.mode.clear()
        self.mode.addItems(modes)
        if self._preferences.mode in modes:
            self.mode.setCurrentText(self._preferences.mode)

    def _explain_mode(self, mode: str) -> None:
        lines = [f"{name}: {text}" for name, text in _MODES.items() if name != mode]
        self.mode.setToolTip("\n".join([_MODES.get(mode, ""), "", *lines]))


def introduce(card: StudentCard) -> str:
    """Return a student's version, experts, tasks and what it reached on the hold-out in words."""
    n_here = len(card.experts) - len(card.missing)
    modes = ("distilled",) if card.missing else ("sparse", "full", "distilled")
    mode = next((m for m in modes if m in card.dice), "")
    scores = card.dice.get(mode, {})
    tasks = ", ".join(task.name + _score(scores.get(task.name)) for task in card.tasks)
    measured = f" (Dice on the hold-out, {mode})" if scores else ""
    version = f"Version {card.version}" if card.version else "No version"
    text = f"{version}, {n_here} of {len(card.experts)} experts. Tasks{measured}: {tasks}."
    return text + (" Experts are missing: distilled mode only." if card.missing else "")


def _score(dice: float | None) -> str:
    return "" if dice is None else f" {dice:.2f}"
