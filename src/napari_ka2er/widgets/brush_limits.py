"""What the brush may paint over."""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtWidgets import QDoubleSpinBox, QVBoxLayout, QWidget

from napari_ka2er.widgets.parts import allow, check, combo, decimals_of, number, row

_ANYTHING = "over all"
_TIP = "Paint only where the image's intensity lies in this range."


class BrushLimits(QWidget):
    """Fields for the intensities and the label that the brush may change."""

    def __init__(self, controller: Any) -> None:
        super().__init__()
        self._controller = controller
        self._bounded: Any = None  # the session that the bounds were begun for
        self.by_intensity = check("Intensity", self._tick, "limit_intensity")
        self.low, self.high = self._bound("lowest"), self._bound("highest")
        self.over = combo("only_over", "The only label that the brush may change.", [_ANYTHING])
        self.over.currentIndexChanged.connect(self._tell)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        parts = (self.by_intensity, self.low, self.high, self.over)
        column.addLayout(row(*parts))

    def _bound(self, name: str) -> QDoubleSpinBox:
        made = number(f"{name}_intensity", f"The {name} intensity to paint over.", 0.0, "")
        made.setRange(-1e9, 1e9)
        made.setValue(0.0)
        made.setFixedWidth(62)
        made.valueChanged.connect(self._tell)
        return made

    @property
    def intensity_range(self) -> tuple[float, float] | None:
        """The intensities that may change, or None for all."""
        if not self.by_intensity.isChecked():
            return None
        return self.low.value(), self.high.value()

    @property
    def only_over(self) -> int | None:
        """The label that may change, or None for all."""
        value = self.over.currentData()
        return None if value is None else int(value)

    def refresh(self, obstacle: str) -> None:
        """Offer the labels there are."""
        allow(self.by_intensity, _TIP, obstacle)
        unset = obstacle or ("" if self.by_intensity.isChecked() else "tick Intensity first")
        for bound in (self.low, self.high):
            allow(bound, _TIP, unset)
        allow(self.over, "The only label that the brush may change.", obstacle)
        session = self._controller.session
        labels = () if session is None else session.task.labels
        if self.by_intensity.isChecked():
            self._begin_bounds()  # those of another volume would stop the brush everywhere
        values = [("background", 0), *((label.name, label.value) for label in labels)]
        wanted = [(_ANYTHING, None), *((f"over {name}", value) for name, value in values)]
        present = [(self.over.itemText(n), self.over.itemData(n)) for n in range(self.over.count())]
        if wanted != present:
            self._offer(wanted)

    def _offer(self, choices: list[tuple[str, int | None]]) -> None:
        before = self.only_over
        self.over.blockSignals(True)
        self.over.clear()
        for name, value in choices:
            self.over.addItem(name, value)
        self.over.setCurrentIndex(max(0, self.over.findData(before)))
        self.over.blockSignals(False)
        if self.only_over != before:  # a label that is no more would stop the brush everywhere
            self._tell()

    def _tick(self, is_checked: bool) -> None:
        if is_checked:
            self._begin_bounds()
        self._tell()

    def _begin_bounds(self) -> None:
        """Begin with all intensities of the session's middle slice, to be narrowed."""
        session = self._controller.session
        if session is not None and session is not self._bounded:
            self._bounded = session
            image = session.volume.channels[0]
            middle = image[len(image) // 2]
            self._set_bounds(float(middle.min()), float(middle.max()))

    def _set_bounds(self, low: float, high: float) -> None:
        """Show intensities to a thousandth of their range, which they stay within."""
        decimals = decimals_of((high - low) / 1000)
        for bound in (self.low, self.high):
            bound.setDecimals(decimals)
        self.low.setValue(math.floor(low * 10**decimals) / 10**decimals)
        self.high.setValue(math.ceil(high * 10**decimals) / 10**decimals)

    def _tell(self, *_: object) -> None:
        self._controller.set_brush_limits(self.intensity_range, self.only_over)
