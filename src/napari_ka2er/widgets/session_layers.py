"""The layers that show a session in a viewer: added one by one, missed when they are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.widgets import layers
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.prompt_layer import PromptEdits, PromptLayer
from napari_ka2er.widgets.prompt_points import PromptPoints
from napari_ka2er.widgets.prompt_shapes import PromptShapes

NAMES = ("image", "labels", "shapes", "points")  # in the order in which they lie on each other
_PROMPTS: dict[str, type[PromptLayer]] = {"shapes": PromptShapes, "points": PromptPoints}


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a session is shown: the image layer, and the transforms of our layers."""

    image: Any
    transforms: dict[str, Any]
    is_oblique: bool = False


class SessionLayers(QObject):
    """Layers for a session's labels, points and shapes, and its image if that is oblique.

    Parameters
    ----------
    viewer : napari.viewer.Viewer or napari.components.ViewerModel
        Where.
    desk : SessionDesk
        What.
    place : Place
        On which image.
    edits : PromptEdits
        What prompts may ask for.

    Signals
    -------
    changed()
        The tool, the label to paint with, or which layers there are has changed.
    shown()
        All layers are there.
    failed(Exception)
        Why a prompt was refused.
    """

    changed = Signal()
    shown = Signal()
    failed = Signal(object)

    def __init__(self, viewer: Any, desk: SessionDesk, place: Place, edits: PromptEdits) -> None:
        super().__init__()
        self._viewer, self._desk, self._place, self._edits = viewer, desk, place, edits
        self._prompts: dict[str, PromptLayer] = {}  # of the layers that are there
        self.image: Image | None = None  # ours, if the volume is oblique
        self.labels: Labels | None = None
        self.points: Points | None = None
        self.shapes: Shapes | None = None
        self._is_closing = False
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self._show_next)
        viewer.layers.events.removed.connect(self._removed)

    def show(self) -> None:
        """Add the layers that are not there: at first, and after the user removed them.

        One in a turn of the event loop: napari takes a while for the controls of each.
        """
        self._timer.start()

    @property
    def is_showing(self) -> bool:
        """Whether layers are still being added."""
        return self._timer.isActive()

    @property
    def is_complete(self) -> bool:
        """Whether all layers are in the viewer, or will be in a moment."""
        return self.is_showing or not self._missing()

    def close(self) -> None:
        """Take the layers away and stop listening."""
        self._is_closing = True
        self._timer.stop()
        self._viewer.layers.events.removed.disconnect(self._removed)
        for prompts in self._prompts.values():
            prompts.close()
        for name in NAMES:
            layer = getattr(self, name)
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
            setattr(self, name, None)
        if self._place.is_oblique and self._place.image in self._viewer.layers:
            self._place.image.visible = True
        self._prompts = {}

    def _missing(self) -> list[str]:
        wanted = NAMES if self._place.is_oblique else NAMES[1:]
        return [name for name in wanted if getattr(self, name) is None]

    def _show_next(self) -> None:
        missing = self._missing()
        if missing:
            self._add(missing[0])
            self._timer.start()
        else:
            self.shown.emit()
        self.changed.emit()

    def _add(self, name: str) -> None:
        volume, transforms = self._desk.session.volume, self._place.transforms
        match name:
            case "image":
                layer = self.image = layers.straight_image(volume, self._place.image, transforms)
                self._place.image.visible = False
            case "labels":
                layer = self.labels = self._new_labels()
            case "shapes":
                layer = self.shapes = layers.shapes_layer(volume, transforms)
            case _:
                layer = self.points = layers.points_layer(volume, transforms)
        if name in _PROMPTS:
            prompts = _PROMPTS[name](layer, volume.geometry, self._edits, self)
            prompts.failed.connect(self.failed)
            self._prompts[name] = prompts
        self._viewer.add_layer(layer)

    def _new_labels(self) -> Labels:
        session, place = self._desk.session, self._place
        return layers.labels_layer(
            session.volume, session.task, self._desk.shown, place.transforms, place.is_oblique
        )

    def _removed(self, event: Any) -> None:
        if self._is_closing:
            return
        for name in NAMES:
            if getattr(self, name) is event.value:
                setattr(self, name, None)
                if name in self._prompts:
                    self._prompts.pop(name).close()
        self.changed.emit()
