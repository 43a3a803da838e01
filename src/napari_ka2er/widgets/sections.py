"""The panels below each other, folded or not, with what to do next above them."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_ka2er.widgets.advice import Stage, advise
from napari_ka2er.widgets.keys import KeysHelp
from napari_ka2er.widgets.label_panel import LabelPanel
from napari_ka2er.widgets.parts import START_FIRST, Panel, allow, button, note, row

# Which panels are open when a stage of the work is reached; the user may fold any at any time.
_OPEN = {
    Stage.VOLUME: ("Volume",),
    Stage.START: ("Volume", "Student", "Task and labels"),
    Stage.SEGMENT: ("Task and labels", "Segment", "Prompt"),
    Stage.CORRECT: ("Task and labels", "Prompt", "Correct"),
    Stage.EXPORT: ("Task and labels", "Review", "Export"),
}
_WIDTH = 350  # pixels: what the widest row needs
# A pixel less than napari's on each side, so that correcting needs no scrolling at 1280 x 800.
_FLAT = "QPushButton { padding: 3px; }"


class Section(QWidget):
    """A panel under a title that folds it.

    superqt's QCollapsible paints its arrows in one colour, which vanishes in napari's dark theme,
    and gives its content a fixed height, which cuts text that wraps.
    """

    def __init__(self, number: int, title: str, panel: Panel) -> None:
        super().__init__()
        self._number, self._title, self.panel = number, title, panel
        self.is_open = False
        self.head = QPushButton()
        self.head.setObjectName(f"fold {title}")
        self.head.setFlat(True)
        self.head.setStyleSheet("text-align: left; padding: 2px;")
        self.head.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.head.clicked.connect(lambda: self.open(not self.is_open))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        column.addWidget(self.head)
        column.addWidget(panel)
        self.open(False)

    def open(self, is_open: bool) -> None:
        """Show the panel, or fold it."""
        self.is_open = is_open
        self.panel.setVisible(is_open)
        self.panel.updateGeometry()  # what was hidden in it meanwhile takes no room
        self._name()

    def refresh(self) -> None:
        """Fit the panel and the title to what is possible now."""
        self.panel.refresh()
        self._name()

    def _name(self) -> None:
        summary = self.panel.summary()
        arrow, rest = ("▾", "") if self.is_open else ("▸", f":  {summary}" if summary else "")
        self.head.setText(f"{arrow}  {self._number}  {self._title}{rest}")
        self.head.setToolTip(f"{'Fold' if self.is_open else 'Open'} the part “{self._title}”.")


class Sections(QWidget):
    """All panels, in the order of the work.

    Parameters
    ----------
    controller : AnnotateController
        Whose state decides what comes next.
    panels : list of (str, Panel)
        Titles and panels.
    """

    def __init__(self, controller: Any, panels: list[tuple[str, Panel]]) -> None:
        super().__init__()
        self.setStyleSheet(_FLAT)
        self._controller = controller
        numbered = enumerate(panels, start=1)
        self.parts = {title: Section(n, title, panel) for n, (title, panel) in numbered}
        self.next_step, self.message = note("next_step"), note("message")
        self.undo = button("Undo", controller.undo, "undo")
        self.redo = button("Redo", controller.redo, "redo")
        self.keys = button("Keys", self._show_keys, "keys")
        self._stage: Stage | None = None
        self._lay_out()
        labels = self.panel("Task and labels")
        if isinstance(labels, LabelPanel):
            labels.chosen.connect(self.refresh)
        controller.told.connect(self.message.setText)
        controller.failed.connect(self.message.setText)

    def _lay_out(self) -> None:
        font = self.next_step.font()
        font.setBold(True)
        self.next_step.setFont(font)
        # Two lines at any time, so that nothing below moves when the advice changes.
        self.next_step.setMinimumHeight(2 * self.next_step.fontMetrics().lineSpacing() + 2)
        self.next_step.setAlignment(Qt.AlignmentFlag.AlignVCenter)
        self.keys.setToolTip("Show what the keys do.")
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(2, 0, 2, 2)
        column.setSpacing(1)
        for part in self.parts.values():
            column.addWidget(part)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 2, 2)
        layout.setSpacing(3)
        layout.addWidget(self.next_step)
        buttons = row(self.undo, self.redo, self.keys)
        buttons.setContentsMargins(3, 0, 3, 0)  # as far from the edges as the titles below
        layout.addLayout(buttons)
        layout.addWidget(area)
        layout.addWidget(self.message)
        self.setMinimumWidth(_WIDTH)
        # Else napari puts an empty space below us, which takes half of the dock.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)

    def panel(self, title: str) -> Panel:
        """Return a panel by its title."""
        return self.parts[title].panel

    def refresh(self) -> None:
        """Fit everything to what is possible now; open what comes next when a stage is reached."""
        for part in self.parts.values():
            part.refresh()
        self._refresh_history()
        advice = advise(self._controller, self.panel("Task and labels"))
        self.next_step.setText(advice.text)
        if advice.stage != self._stage:
            self._stage = advice.stage
            for title, part in self.parts.items():
                part.open(title in _OPEN[advice.stage])

    def _refresh_history(self) -> None:
        session, none = self._controller.session, ""
        done = undone = 0
        if session is None:
            none = START_FIRST
        else:
            done, undone = session.state.history.n_done, session.state.history.n_undone
        undo = none or ("" if done else "nothing was done yet")
        redo = none or ("" if undone else "nothing was undone")
        tip = "Take back the last prompt, stroke, tool or segmentation. Key Ctrl+Z."
        allow(self.undo, tip, undo)
        allow(self.redo, "Make it again. Key Ctrl+Shift+Z.", redo)

    def _show_keys(self) -> None:
        KeysHelp(self).show()
