"""The Annotate widget: open a volume, let the student segment it, correct it, export it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from app_model.types import KeyCode
from napari.utils.notifications import show_error
from qtpy.compat import isalive
from qtpy.QtCore import QObject
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_ka2er.widgets.controller import AnnotateController
from napari_ka2er.widgets.edit_panel import EditPanel
from napari_ka2er.widgets.parts import note
from napari_ka2er.widgets.session_view import REDO, UNDO
from napari_ka2er.widgets.start_panel import StartPanel

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
        self.controller = AnnotateController(viewer, parent=self)
        self.start_panel = StartPanel(viewer)
        self.edit_panel = EditPanel(self.controller)
        self.next_step, self.message = note("next_step"), note("message")
        self._lay_out()
        self.start_panel.pressed.connect(self._start)
        self.controller.keys = self._keys()
        self.controller.changed.connect(self.refresh)
        self.controller.told.connect(self._tell)
        self.controller.failed.connect(self._tell_error)
        viewer.layers.events.inserted.connect(self.refresh)
        viewer.layers.events.removed.connect(self.refresh)
        self.destroyed.connect(partial(_stop, self.controller))
        self.refresh()

    def _lay_out(self) -> None:
        self.next_step.setStyleSheet("font-weight: bold")
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(4, 4, 4, 4)
        for part in (self.start_panel, self.edit_panel):
            column.addWidget(part)
        column.addStretch()
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(area)
        layout.addWidget(self.next_step)
        layout.addWidget(self.message)
        self.setMinimumWidth(300)

    def _keys(self) -> dict[Any, Callable[[], object]]:
        controller = self.controller
        return {
            UNDO: controller.undo,
            REDO: controller.redo,
            KeyCode.KeyG: controller.flip_sign,
            KeyCode.KeyN: controller.new_object,
            KeyCode.KeyQ: partial(controller.step_label, -1),
            KeyCode.KeyW: partial(controller.step_label, 1),
            KeyCode.KeyH: controller.hide,
        }

    def refresh(self, event: object = None) -> None:
        """Fit everything to what is possible now."""
        if not isalive(self):  # napari's signals know nothing of Qt's deletions
            return
        self.start_panel.update_start(self.controller.work)
        self.edit_panel.refresh()
        self.next_step.setText(self._advice())

    def _advice(self) -> str:
        """Return what to do next."""
        controller, session = self.controller, self.controller.session
        if controller.work == "starting":
            return "Loading. This takes some seconds."
        if controller.work == "segmenting":
            return "Segmenting. You may look around; points are answered afterwards."
        if session is None:
            if self.start_panel.layer is None:
                return "Open a volume: File ▸ Open, or File ▸ Open Sample ▸ KA2ER."
            obstacle = self.start_panel.obstacle()
            return f"{obstacle.capitalize()}." if obstacle else "Choose a task and press Start."
        if controller.view is None or not controller.view.is_complete:
            return "A layer was removed; nothing is lost. Press Show labels and points again."
        if not session.state.history.n_done:
            return "Press Segment, or click on a structure with + Point."
        if not session.state.reviewed.is_whole(session.volume.shape):
            return "Click where it is wrong, or paint. When all is right, say that you checked it."
        return "Press Export package to hand the correction to training, or Save labels."

    def _start(self) -> None:
        layer, choice = self.start_panel.layer, self.start_panel.choice
        if layer is not None and choice is not None:
            self.controller.start(layer, choice)

    def _tell(self, text: str) -> None:
        self.message.setText(text)

    def _tell_error(self, text: str) -> None:
        self.message.setText(text)
        show_error(text)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Stop what runs."""
        self.controller.close()
        super().closeEvent(event)


def _stop(controller: AnnotateController, _: QObject | None = None) -> None:
    """Stop what runs when the window goes, however it goes."""
    controller.close()
