"""What the brush may paint over."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QDoubleSpinBox, QVBoxLayout, QWidget

from napari_ka2er.widgets.parts import allow, check, combo, number, row

_ANYTHING = "over all"
_TIP = "Paint only where the image's intensity lies in this range."


class BrushLimits(QWidget):
    """Fields for the intensities and the label that the brush may change."""

    def __init__(self, controller: Any) -> None:
        super().__init__()
        self._controller = controller
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

    def _tick(self, is_checked: bool) -> None:
        """Begin with all intensities of the middle slice, to be narrowed."""
        session = self._controller.session
        if is_checked and session is not None and self.low.value() == self.high.value():
            image = session.volume.channels[0]
            middle = image[len(image) // 2]
            self.low.setValue(float(middle.min()))
            self.high.setValue(float(middle.max()))
        self._tell()

    def _tell(self, *_: object) -> None:
        self._controller.set_brush_limits(self.intensity_range, self.only_over)
