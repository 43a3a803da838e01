"""The Annotate widget: open a volume, let the student segment it, correct it, export it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.compat import isalive
from qtpy.QtCore import QObject
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
        self.destroyed.connect(partial(_stop, self.controller))
        self.refresh()

    def refresh(self) -> None:
        """Fit everything to what is possible now."""
        if isalive(self):  # napari's signals know nothing of Qt's deletions
            self.sections.refresh()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop what runs."""
        self.controller.close()
        super().closeEvent(event)


def _stop(controller: AnnotateController, _: QObject | None = None) -> None:
    """Stop what runs when the window goes, however it goes."""
    controller.close()
