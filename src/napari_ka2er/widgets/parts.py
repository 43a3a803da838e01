"""Small pieces that the panels are built from."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)


def button(text: str, act: Callable[[], object]) -> QPushButton:
    """Return a button; `act` gets no arguments."""
    made = QPushButton(text)
    made.clicked.connect(lambda: act())
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


def row(*widgets: QWidget) -> QHBoxLayout:
    """Return widgets side by side."""
    made = QHBoxLayout()
    made.setSpacing(4)
    for widget in widgets:
        made.addWidget(widget)
    return made


def box(title: str, *parts: QWidget | QHBoxLayout) -> QGroupBox:
    """Return a titled group with its parts below each other."""
    made = QGroupBox(title)
    layout = QVBoxLayout(made)
    layout.setContentsMargins(6, 4, 6, 6)
    layout.setSpacing(4)
    for part in parts:
        if isinstance(part, QWidget):
            layout.addWidget(part)
        else:
            layout.addLayout(part)
    return made


def swatch(color: str) -> QIcon:
    """Return an icon of one colour."""
    pixmap = QPixmap(14, 14)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)


def allow(widget: QWidget, tip: str, obstacle: str = "") -> None:
    """Enable a widget unless there is an obstacle; the tool tip says what it does, or why not."""
    widget.setEnabled(not obstacle)
    widget.setToolTip(f"{tip}\n\nNot now: {obstacle}" if obstacle else tip)
