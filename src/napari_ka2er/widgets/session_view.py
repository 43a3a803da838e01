"""A session in a viewer: the layers that show it, the brush, the tools and the keys."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from app_model.types import KeyCode, KeyMod
from napari.layers import Labels, Points
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.boxes import is_empty
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.session import Session
from napari_ka2er.widgets import layers
from napari_ka2er.widgets.prompt_points import AddPoint, PromptPoints

UNDO = KeyMod.CtrlCmd | KeyCode.KeyZ
REDO = KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ


class Tool(StrEnum):
    """What the mouse does in the canvas."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    BRUSH = "brush"
    ERASER = "eraser"


class SessionView(QObject):
    """Shows a session as a labels layer and a points layer, and takes what is done to them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Where.
    session : Session
        What.
    place : mapping
        Transforms of the image layer.
    add_point : callable
        See `PromptPoints`.

    Signals
    -------
    changed()
        The tool, the label to paint with, or which layers there are has changed.
    failed(Exception)
        Why a stroke or a point was refused.
    """

    changed = Signal()
    failed = Signal(object)

    def __init__(
        self, viewer: Any, session: Session, place: dict[str, Any], add_point: AddPoint
    ) -> None:
        super().__init__()
        self._viewer, self._session, self._place = viewer, session, place
        self._add_point = add_point
        self._keys: dict[Any, Callable[[], None]] = {}
        self.labels: Labels | None = None
        self.points: Points | None = None
        self._prompts: PromptPoints | None = None
        self._is_closing = False
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.selection.events.active.connect(self._tell)
        session.changed.connect(self._redraw)

    # ------------------------------------------------------------ layers

    def show(self) -> None:
        """Add the layers that are not there: at first, and after the user removed them."""
        if self.labels is None:
            self.labels = layers.labels_layer(self._session, self._place)
            self.labels.events.paint.connect(self._painted)
            self.labels.events.selected_label.connect(self._tell)
            self.labels.events.mode.connect(self._tell)
            self._viewer.add_layer(self.labels)
        if self.points is None:
            self.points = layers.points_layer(self._session, self._place)
            self._prompts = PromptPoints(self._session, self.points, self._add_point, self)
            self._prompts.failed.connect(self.failed)
            self.points.events.mode.connect(self._tell)
            self._viewer.add_layer(self.points)
        self._bind()
        self.changed.emit()

    @property
    def is_complete(self) -> bool:
        """Whether both layers are in the viewer."""
        return self.labels is not None and self.points is not None

    def close(self) -> None:
        """Take the layers away and stop listening."""
        self._is_closing = True
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.selection.events.active.disconnect(self._tell)
        self._session.changed.disconnect(self._redraw)
        for layer in (self.points, self.labels):
            if layer is not None:
                self._viewer.layers.remove(layer)
        if self._prompts is not None:
            self._prompts.close()
        self.labels = self.points = self._prompts = None

    def _removed(self, event: Any) -> None:
        if self._is_closing:
            return
        if event.value is self.labels:
            self.labels = None
        elif event.value is self.points:
            self.points = None
            if self._prompts is not None:
                self._prompts.close()
            self._prompts = None
        self.changed.emit()

    # ------------------------------------------------------- tools and keys

    def bind(self, keys: dict[Any, Callable[[], None]]) -> None:
        """Let keys do something while one of our layers is selected."""
        self._keys = keys
        self._bind()

    def _bind(self) -> None:
        for layer in (self.labels, self.points):
            for key, act in self._keys.items():
                if layer is not None:
                    layer.bind_key(key, lambda _, act=act: act(), overwrite=True)

    @property
    def tool(self) -> Tool | None:
        """What the mouse does, or None for anything that napari offers beside."""
        active = self._viewer.layers.selection.active
        if self.points is not None and active == self.points and self.points.mode == "add":
            return Tool.POSITIVE if self.is_positive else Tool.NEGATIVE
        if self.labels is not None and active == self.labels:
            modes = {"paint": Tool.BRUSH, "erase": Tool.ERASER}
            return modes.get(str(self.labels.mode))
        return None

    @property
    def is_positive(self) -> bool:
        """Whether the next point belongs to the object."""
        return self._prompts is None or self._prompts.is_positive

    def set_tool(self, tool: Tool) -> None:
        """Select the layer and the mode for a tool."""
        if tool in (Tool.POSITIVE, Tool.NEGATIVE):
            if self.points is not None and self._prompts is not None:
                self._prompts.set_positive(tool == Tool.POSITIVE)
                self._viewer.layers.selection.active = self.points
                self.points.mode = "add"
        elif self.labels is not None:
            self._viewer.layers.selection.active = self.labels
            self.labels.mode = "paint" if tool == Tool.BRUSH else "erase"
        self.changed.emit()

    @property
    def label(self) -> int | None:
        """The label that the brush paints, None without a labels layer."""
        return None if self.labels is None else int(self.labels.selected_label)

    def set_label(self, value: int) -> None:
        """Paint with this label from now on."""
        if self.labels is not None:
            self.labels.selected_label = value

    def _tell(self, event: Any = None) -> None:
        self.changed.emit()

    # --------------------------------------------------------------- mask

    def _redraw(self, region: tuple[slice, ...]) -> None:
        """Show what changed; written past napari's own history, since ours takes it back."""
        if self.labels is None:
            return
        shown, mask = np.asarray(self.labels.data[region]), self._session.mask[region]
        if not np.array_equal(shown, mask):
            self.labels.data[region] = mask
            self.labels.refresh()

    def _painted(self, event: Any) -> None:
        """Take a stroke of napari's brush, bucket or polygon into the session."""
        if self.labels is None:
            return
        box = layers.painted_box(event.value, self._session.volume.shape)
        if is_empty(box):
            return
        try:
            self._session.write(box, np.array(self.labels.data[box]), "brush")
        except UserError as error:
            self.failed.emit(error)
        self._redraw(box)  # what was refused, or locked, goes back
