"""The table of a task's labels."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QHeaderView, QTableWidget
from qtpy.QtWidgets import QTableWidgetItem as Item

from napari_ka2er.core.review import Status
from napari_ka2er.core.task import Label
from napari_ka2er.widgets.parts import swatch

COLOR, NAME, VISIBLE, LOCKED, STATUS, SIZE = range(6)
_TITLES = ("", "Label", "Show", "Lock", "Status", "ml")
_TIPS = (
    "Colour; double click to change it. The number is the key that chooses the label.",
    "Name; double click to change it.",
    "Whether the label is shown.",
    "Whether it is kept from changing, whatever is done to other labels.",
    "How far the work is; double click for the next: not started, in progress, done, flagged.",
    "Volume in millilitres.",
)
_ROWS = 5  # as many as are seen at once


class LabelTable(QTableWidget):
    """One row per label: colour and key, name, shown, locked, status, volume.

    Signals
    -------
    chosen(int)
        The label to work on.
    edited(Label)
        A label with another name or colour.
    shown(int, bool), locked(int, bool)
        A label was to be shown or locked, or not.
    status(int, Status)
        A label was to get a status.
    """

    chosen = Signal(int)
    edited = Signal(object)
    shown = Signal(int, bool)
    locked = Signal(int, bool)
    status = Signal(int, object)

    def __init__(self) -> None:
        super().__init__(0, len(_TITLES))
        self._labels: tuple[Label, ...] = ()
        self._locks: frozenset[int] = frozenset()
        self._statuses: dict[int, Status] = {}
        self._filled_hidden: set[int] = set()
        self._is_stale = False  # whether it may show what the session does not have
        self.hidden: set[int] = set()
        for column, tip in enumerate(_TIPS):
            head = Item(_TITLES[column])
            head.setToolTip(tip)
            self.setHorizontalHeaderItem(column, head)
        self._lay_out()
        self.currentCellChanged.connect(self._choose)
        self.itemChanged.connect(self._take)
        self.cellDoubleClicked.connect(self._double_clicked)

    def _lay_out(self) -> None:
        self.verticalHeader().hide()
        self.setShowGrid(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)

    def show_labels(
        self, labels: tuple[Label, ...], statuses: dict[int, Status], locks: frozenset[int]
    ) -> None:
        """Fill the table, if anything differs from what it shows."""
        shown = (self._labels, self._statuses, self._locks, self._filled_hidden)
        if (labels, statuses, locks, self.hidden) == shown and not self._is_stale:
            return
        self._is_stale = False
        self._labels, self._statuses, self._locks = labels, dict(statuses), locks
        self._filled_hidden = set(self.hidden)
        with QSignalBlocker(self):
            if self.rowCount() != len(labels):
                self.setRowCount(len(labels))
            for row, label in enumerate(labels):
                self._fill(row, label)
        self._fit_height()

    def _fill(self, row: int, label: Label) -> None:
        key = str(row + 1) if row < 9 else ""
        size = self.item(row, SIZE)
        cells = (
            Item(swatch(label.color), key),
            Item(label.name),
            _checkable(label.value not in self.hidden),
            _checkable(label.value in self._locks),
            Item(str(self._statuses.get(label.value, Status.NOT_STARTED).value)),
            Item("" if size is None else size.text()),
        )
        for column, item in enumerate(cells):
            if column != NAME:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            item.setToolTip(f"{label.name} (value {label.value})\n{_TIPS[column]}")
            self.setItem(row, column, item)

    def _fit_height(self) -> None:
        rows = min(max(self.rowCount(), 1), _ROWS)
        height = self.horizontalHeader().sizeHint().height() + 4
        self.setFixedHeight(height + rows * (self.rowHeight(0) if self.rowCount() else 24))

    def show_chosen(self, value: int) -> None:
        """Mark the row of the label that is worked on."""
        values = [label.value for label in self._labels]
        if value in values and values.index(value) != self.currentRow():
            with QSignalBlocker(self):
                self.selectRow(values.index(value))

    def show_sizes(self, sizes_ml: dict[int, float]) -> None:
        """Fill in the volumes that are known."""
        with QSignalBlocker(self):
            for row, label in enumerate(self._labels):
                size = sizes_ml.get(label.value)
                item = self.item(row, SIZE)
                if item is not None:
                    item.setText("" if size is None else _short(size))

    # ---------------------------------------------------------- the user's

    def _choose(self, row: int, column: int, *before: int) -> None:
        if 0 <= row < len(self._labels):
            self.chosen.emit(self._labels[row].value)

    def _take(self, item: Item) -> None:
        label = self._labels[item.row()]
        is_checked = item.checkState() == Qt.CheckState.Checked
        match item.column():
            case 1:
                self._rename(item, label, item.text().strip())
            case 2:
                (self.hidden.discard if is_checked else self.hidden.add)(label.value)
                self.shown.emit(label.value, is_checked)
            case 3:
                self.locked.emit(label.value, is_checked)
                self.forget()

    def _rename(self, item: Item, label: Label, name: str) -> None:
        if name and name != label.name:
            self.edited.emit(Label(label.value, name, label.color))
            self.forget()
        else:
            with QSignalBlocker(self):
                item.setText(label.name)

    def _double_clicked(self, row: int, column: int) -> None:
        label = self._labels[row]
        if column == COLOR:
            color = QColorDialog.getColor(QColor(label.color), self, f"Colour of {label.name}")
            if color.isValid():
                self.edited.emit(Label(label.value, label.name, color.name().upper()))
        elif column == STATUS:
            order = list(Status)
            now = self._statuses.get(label.value, Status.NOT_STARTED)
            self.status.emit(label.value, order[(order.index(now) + 1) % len(order)])

    def forget(self) -> None:
        """Fill everything anew next time: what the user did may have been refused."""
        self._is_stale = True


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def _checkable(is_checked: bool) -> Any:
    item = Item()
    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
    item.setCheckState(Qt.CheckState.Checked if is_checked else Qt.CheckState.Unchecked)
    return item
