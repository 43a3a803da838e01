"""The list of a student's tasks, and which of them fit the volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QSizePolicy, QWidget

from napari_ka2er.model.ranking import TaskFit
from napari_ka2er.widgets.parts import allow, button, note, small
from napari_ka2er.widgets.task_ranking import RANKING, verdict

_TIP = "What to segment; the student's tasks."
_TRY_TIP = (
    "Let the student try the tasks that may fit this volume, and say what it found. "
    "Segment all is quick afterwards."
)


class TaskList(QComboBox):
    """The tasks by name, each with whether it fits; the best is chosen until somebody chooses.

    Signals
    -------
    chosen()
        Another task is chosen.
    """

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("task")
        self.setToolTip(_TIP)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(4)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._fits: tuple[TaskFit, ...] = ()
        self._is_by_hand = False
        self.activated.connect(self._by_hand)
        self.currentIndexChanged.connect(lambda index: self.chosen.emit())

    @property
    def name(self) -> str:
        """The chosen task, or nothing."""
        return str(self.currentData() or "")

    def choose(self, name: str) -> None:
        """Choose a task, as somebody does who clicks it."""
        self.setCurrentIndex(self.findData(name))
        self._is_by_hand = True

    def offer(self, names: Sequence[str]) -> None:
        """List other tasks; the one that was chosen stays, if it is among them."""
        before = self.name
        with QSignalBlocker(self):
            self.clear()
            for name in names:
                self.addItem(name, name)
            self.setCurrentIndex(max(self.findData(before), 0))
        self._is_by_hand = self._is_by_hand and self.name == before
        self._fits = ()

    def mark(self, fits: Sequence[TaskFit]) -> None:
        """Say of each task whether it fits, as far as that is known."""
        if tuple(fits) == self._fits:
            return
        self._fits = tuple(fits)
        known = {fit.task: fit for fit in fits}
        for row in range(self.count()):
            name = str(self.itemData(row))
            self.setItemText(row, name + _mark(known.get(name)))
        best = [fit.task for fit in fits if fit.taken]
        if best and not self._is_by_hand and self.findData(best[0]) >= 0:
            self.setCurrentIndex(self.findData(best[0]))

    def forget(self) -> None:
        """Let the best be chosen again, as there is another volume."""
        self._is_by_hand = False

    def _by_hand(self, index: int) -> None:
        self._is_by_hand = True


class TaskFits(QWidget):
    """A line on how the chosen task fits the volume, and the button to let the student try."""

    def __init__(self, controller: Any) -> None:
        super().__init__()
        self._controller = controller
        self._try: Any = None
        self.line = note("task_fits")
        self.ask = small(button("Which task fits?", self._press, "rank_tasks"))
        column = QHBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.line)
        column.addWidget(self.ask)
        controller.progressed.connect(self._progress)

    def refresh(self, task: str, fits: Sequence[TaskFit], ask: Any, obstacle: str) -> None:
        """Show what is known.

        Parameters
        ----------
        task : str
            The chosen one.
        fits : sequence of TaskFit
            What is known.
        ask : callable
            Lets the student try.
        obstacle : str
            Why it cannot, or nothing.
        """
        self._try = ask
        is_trying = self._controller.work == RANKING
        self.ask.setText("Stop" if is_trying else "Which task fits?")
        tip = "Stop trying; what was encoded is kept." if is_trying else _TRY_TIP
        allow(self.ask, tip, "" if is_trying else obstacle)
        if not is_trying:
            self.line.setText(explain(task, fits))
            self.line.setToolTip("\n".join(f"{fit.task}: {fit.reason}." for fit in fits))

    def _press(self) -> None:
        if self._controller.work == RANKING:
            self._controller.cancel()
        elif self._try is not None:
            self._try()

    def _progress(self, share: float, what: str) -> None:
        if self._controller.work == RANKING:
            self.line.setText(f"{what[:1].upper()}{what[1:]}: {share:.0%}")


def _mark(fit: TaskFit | None) -> str:
    if fit is None:
        return ""
    return " – fits" if fit.taken else " – does not fit"


def explain(task: str, fits: Sequence[TaskFit]) -> str:
    """Return a line on how the chosen task fits the volume, or nothing if nothing is known."""
    if not fits:
        return ""
    known = {fit.task: fit for fit in fits}
    if not any(fit.taken for fit in fits) or task not in known:
        return verdict(fits)
    if known[task].taken:
        return f"{task} fits this volume."
    return f"{task} does not fit: {known[task].reason}."
