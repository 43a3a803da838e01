"""Small pieces that the panels are built from.  All colours but the swatches' are the theme's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

START_FIRST = "press Start first"
LAYERS_GONE = "our layers were removed; press Show layers again"
BUSY = "wait for what is running, or cancel it"
_MOST_DECIMALS = 12
# napari puts a button on each side of a number: too wide for us, and the wheel and keys do as well.
_NO_BUTTONS = (
    "QAbstractSpinBox { padding: 1px 4px; min-width: 0px; }"
    "QAbstractSpinBox::up-button, QAbstractSpinBox::down-button,"
    "QAbstractSpinBox::up-arrow, QAbstractSpinBox::down-arrow { width: 0px; height: 0px; }"
)


class Panel(QWidget):
    """One step of the work; the panels stand below each other in the order of the steps.

    Parameters
    ----------
    controller : AnnotateController
        Does what the buttons say.
    """

    def __init__(self, controller: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._controller = controller
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(8, 1, 2, 3)
        self._column.setSpacing(2)

    def refresh(self) -> None:
        """Enable what is possible now; what is not says why.  Called often: it must be quick."""

    def summary(self) -> str:
        """Return a few words for the panel's title when it is folded, or nothing."""
        return ""

    def add(self, *parts: QWidget | QHBoxLayout) -> None:
        """Add parts below what is there."""
        for part in parts:
            if isinstance(part, QWidget):
                self._column.addWidget(part)
            else:
                self._column.addLayout(part)

    def no_session(self) -> str:
        """Return why nothing can be done to a session, or nothing."""
        return "" if self._controller.session is not None else START_FIRST

    def no_layers(self) -> str:
        """Return why nothing can be done to our layers, or nothing."""
        view = self._controller.view
        gone = "" if view is not None and view.is_complete else LAYERS_GONE
        return self.no_session() or gone

    def busy(self) -> str:
        """Return why no long work can begin now, or nothing."""
        return BUSY if self._controller.is_long else ""


def button(text: str, act: Callable[[], object], name: str) -> QPushButton:
    """Return a button with an object name; `act` gets no arguments."""
    made = QPushButton(text)
    made.setObjectName(name)
    made.clicked.connect(lambda: act())
    made.setSizePolicy(QSizePolicy.Policy.MinimumExpanding, QSizePolicy.Policy.Fixed)
    return made


def small(made: QPushButton) -> QPushButton:
    """Return a button that takes no more width than its text."""
    made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    return made


def toggle(text: str, act: Callable[[], object], name: str) -> QPushButton:
    """Return a button that stays pressed; `refresh` of its panel says whether it is."""
    made = button(text, act, name)
    made.setCheckable(True)
    return made


def check(text: str, act: Callable[[bool], object], name: str) -> QCheckBox:
    """Return a check box; `act` gets whether the user checked it."""
    made = QCheckBox(text)
    made.setObjectName(name)
    made.clicked.connect(act)
    return made


def combo(name: str, tip: str, items: Iterable[str] = ()) -> QComboBox:
    """Return a list to choose from that takes no more width than there is."""
    made = QComboBox()
    made.setObjectName(name)
    made.setToolTip(tip)
    made.addItems(list(items))
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(4)
    made.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return made


def number(name: str, tip: str, value: float, unit: str, decimals: int = 1) -> QDoubleSpinBox:
    """Return a field for a positive number with a unit."""
    made = QDoubleSpinBox()
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setDecimals(decimals)
    made.setRange(10.0**-decimals, 1e4)
    made.setValue(value)
    made.setSuffix(f" {unit}")
    made.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    made.setStyleSheet(_NO_BUTTONS)
    made.setFixedWidth(66)
    return made


def decimals_of(step: float) -> int:
    """Return how many decimals a field needs for steps of this size: 1 for 0.1, 4 for 0.0005."""
    return min(_MOST_DECIMALS, max(1, math.ceil(-math.log10(step)))) if step > 0 else 1


def fit_scale(made: QDoubleSpinBox, step: float, largest: float, start: float) -> None:
    """Let a field take numbers of a volume's scale.

    Parameters
    ----------
    made : QDoubleSpinBox
        From `number`.
    step : float
        What is worth typing, such as the width of a voxel.
    largest : float
        What is shown stays, unless it is above this: then it is of another scale.
    start : float
        What is shown instead.
    """
    decimals = decimals_of(step)
    made.setDecimals(decimals)
    made.setMinimum(10.0**-decimals)
    if made.value() > largest:
        made.setValue(start)


def line(name: str, tip: str, placeholder: str = "") -> QLineEdit:
    """Return a line of text to type."""
    made = QLineEdit()
    made.setObjectName(name)
    made.setToolTip(tip)
    made.setPlaceholderText(placeholder)
    return made


def note(name: str) -> QLabel:
    """Return a label for a line or two of text that may be long."""
    made = QLabel()
    made.setObjectName(name)
    made.setWordWrap(True)
    made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    # As wide as there is room for, so that a long path does not widen the window.
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return made


def lines_high(made: QPlainTextEdit, n: int) -> int:
    """Return the height in pixels at which so many lines are seen, and none is cut."""
    around = made.document().documentMargin() + made.frameWidth()
    return math.ceil(n * made.fontMetrics().lineSpacing() + 2 * around)


def caption(text: str) -> QLabel:
    """Return a short word in front of something."""
    made = QLabel(text)
    made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
    return made


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    made = QHBoxLayout()
    made.setContentsMargins(0, 0, 0, 0)
    made.setSpacing(3)
    for widget in widgets:
        made.addWidget(widget)
    return made


def swatch(color: str) -> QIcon:
    """Return an icon of one colour."""
    pixmap = QPixmap(14, 14)
    pixmap.fill(QColor(color))
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # else Qt tints it in a selected row
    return icon


def allow(widget: QWidget, tip: str, obstacle: str = "") -> None:
    """Enable a widget unless there is an obstacle; the tool tip says what it does, or why not."""
    widget.setEnabled(not obstacle)
    widget.setToolTip(f"{tip}\n\nNot now: {obstacle}." if obstacle else tip)


def emphasise(widget: QAbstractButton, is_next: bool) -> None:
    """Show in bold what to press next."""
    font = widget.font()
    if font.bold() != is_next:
        font.setBold(is_next)
        widget.setFont(font)
