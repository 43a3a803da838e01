"""The Annotate widget: open a volume, let the student segment it, correct it, export it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_ka2er.widgets.controller import AnnotateController
from napari_ka2er.widgets.keys import bindings
from napari_ka2er.widgets.panels import panels
from napari_ka2er.widgets.preferences import CACHE_VARIABLE, read_preferences
from napari_ka2er.widgets.sections import Sections
from napari_ka2er.widgets.vertex_arrays import disable_vertex_arrays

if TYPE_CHECKING:
    import napari.viewer


class AnnotateWidget(QWidget):
    """Puts the panels below each other, in the order of the work, and says what to do next.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The window it is in.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        preferences = read_preferences()
        # The model's process reads it; whoever set it for napari's own has the last word.
        os.environ.setdefault(CACHE_VARIABLE, str(preferences.cache_gib))
        self.controller = AnnotateController(viewer, parent=self)
        self.controller.keys = bindings(self.controller)
        self.controller.set_autosave(preferences.autosave_seconds)
        self.sections = Sections(self.controller, panels(self.controller, viewer))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.sections)
        self.controller.changed.connect(self.refresh)
        self.controller.failed.connect(show_error)
        viewer.layers.events.removed.connect(disable_vertex_arrays)
        self._in_dock: list[bool] = []  # shared with `_stop`, which comes when this is half gone
        self.destroyed.connect(partial(_stop, self.controller, self._in_dock))
        self.refresh()

    def refresh(self) -> None:
        """Fit everything to what is possible now."""
        if isalive(self):  # napari's signals know nothing of Qt's deletions
            self.sections.refresh()

    def changeEvent(self, event: QEvent) -> None:
        """Note whether this is in a dock: napari takes it out when the dock alone is closed."""
        if event.type() == QEvent.Type.ParentChange:
            self._in_dock[:] = [self.parent() is not None]
        super().changeEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop what runs."""
        self.controller.close()
        super().closeEvent(event)


def _stop(controller: AnnotateController, in_dock: list[bool], _: QObject | None = None) -> None:
    """Stop what runs when the widget goes, however it goes; still in its dock, napari goes too."""
    controller.close(is_ending=any(in_dock))
