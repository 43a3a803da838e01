"""How wide the brush is in mm, whatever plane is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_ka2er.widgets.looking import painted_axes
from napari_ka2er.widgets.parts import allow, caption, fit_scale, number

_WIDTH_MM = 5.0
_TIP = "How wide the brush is. Keys [ and ] change its size."


class BrushWidth(QWidget):
    """A field for the brush's width; the brush of our labels layer is kept that wide.

    napari counts a brush's size in the finest spacing of the plane that is painted in, so what is
    1 there is another length in another plane.

    Parameters
    ----------
    controller : AnnotateController
        Whose view has the labels layer.
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Whose dims say which plane is shown.
    """

    def __init__(self, controller: Any, viewer: Any) -> None:
        super().__init__()
        self._controller, self._viewer = controller, viewer
        self._layer: Any = None
        self._session: Any = None
        self._is_fitting = False
        self.mm = number("brush_mm", _TIP, _WIDTH_MM, "mm")
        self.mm.valueChanged.connect(self.fit)
        column = QHBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(caption("width"))
        column.addWidget(self.mm)
        for event in (viewer.dims.events.order, viewer.dims.events.ndisplay):
            event.connect(self.fit)

    def refresh(self, obstacle: str) -> None:
        """Care for the labels layer there is, and say how wide it paints."""
        view = self._controller.view
        layer = None if view is None else view.labels
        self._fit_scale()
        if layer is not self._layer:
            self._layer = layer
            self._listen()
            self.fit()
        painted = "" if layer is None else f" It paints {self._painted_mm():.3g} mm here."
        allow(self.mm, _TIP + painted, obstacle)

    def _fit_scale(self) -> None:
        """Let the field take widths of the session's volume, which may be a microscope's."""
        session = self._controller.session
        if session is not None and session is not self._session:
            volume = session.volume
            extent = float(np.median(volume.geometry.extent_mm))
            fit_scale(self.mm, min(volume.spacing), extent / 2, min(_WIDTH_MM, extent / 15))
        self._session = session

    def fit(self, event: Any = None) -> None:
        """Make the brush as wide as the field says, as nearly as napari can."""
        if not isalive(self) or self._layer is None:  # napari's signals know nothing of deletions
            return
        self._is_fitting = True
        try:
            self._layer.brush_size = brush_size(self.mm.value(), self._unit_mm())
        finally:
            self._is_fitting = False

    def _listen(self) -> None:
        if self._layer is not None:
            self._layer.events.brush_size.connect(self._take)
            self._layer.events.n_edit_dimensions.connect(self.fit)

    def _take(self, event: Any = None) -> None:
        """Show the width that a key or napari's own slider chose."""
        if not isalive(self) or self._layer is None or self._is_fitting:
            return
        with QSignalBlocker(self.mm):
            self.mm.setValue(self._painted_mm())

    def _painted_mm(self) -> float:
        return (2 * (int(self._layer.brush_size) // 2) + 1) * self._unit_mm()

    def _unit_mm(self) -> float:
        """Return how much 1 of the brush's size is, in the plane that is painted in."""
        session = self._controller.session
        if session is None:
            return 1.0
        axes = painted_axes(self._viewer.dims, self._layer)
        return float(min(session.volume.spacing[axis] for axis in axes))


def brush_size(width_mm: float, unit_mm: float) -> int:
    """Return the size of a brush that paints a disc of about this width.

    napari paints discs with a voxel in their middle: 2n and 2n + 1 are the same, 2n + 1 wide.
    """
    return 2 * max(0, round((width_mm / unit_mm - 1) / 2)) + 1
