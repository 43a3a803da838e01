"""A session in a viewer: the layers that show it, the brush, the tools and the keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app_model.types import KeyCode, KeyMod
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ka2er.widgets import layers
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.looking import is_shown
from napari_ka2er.widgets.prompt_layer import PromptEdits, PromptLayer
from napari_ka2er.widgets.prompt_points import PromptPoints
from napari_ka2er.widgets.prompt_shapes import PromptShapes
from napari_ka2er.widgets.tools import LABEL_MODES, NEGATIVE_TOOLS, SHAPE_MODES
from napari_ka2er.widgets.tools import Tool as Tool

UNDO = KeyMod.CtrlCmd | KeyCode.KeyZ
REDO = KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a session is shown: the image layer, and the transforms of our layers."""

    image: Any
    transforms: dict[str, Any]
    is_oblique: bool = False


class SessionView(QObject):
    """Shows a session as layers for labels, points and shapes, and takes what is done to them.

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
    painted(list)
        A stroke of the brush, as napari tells it.
    failed(Exception)
        Why a prompt was refused.
    """

    changed = Signal()
    painted = Signal(object)
    failed = Signal(object)

    def __init__(self, viewer: Any, desk: SessionDesk, place: Place, edits: PromptEdits) -> None:
        super().__init__()
        self._viewer, self._desk, self._place, self._edits = viewer, desk, place, edits
        self._keys: dict[Any, Callable[[], object]] = {}
        self._prompts: dict[str, PromptLayer] = {}  # of the layers that are there
        self.image: Image | None = None  # ours, if the volume is oblique
        self.labels: Labels | None = None
        self.points: Points | None = None
        self.shapes: Shapes | None = None
        self.hidden: frozenset[int] = frozenset()
        self._is_closing = False
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.selection.events.active.connect(self._tell)
        desk.drawn.connect(self._redraw)
        desk.replaced.connect(self._replace)
        desk.prompts_changed.connect(self.show_prompts)
        desk.failed.connect(self.show_prompts)
        desk.labels_changed.connect(self._color)

    # ------------------------------------------------------------ layers

    def show(self) -> None:
        """Add the layers that are not there: at first, and after the user removed them."""
        volume, transforms = self._desk.session.volume, self._place.transforms
        if self._place.is_oblique and self.image is None:
            self.image = layers.straight_image(volume, self._place.image, transforms)
            self._place.image.visible = False
            self._viewer.add_layer(self.image)
        if self.labels is None:
            self._add_labels()
        if self.shapes is None:
            self.shapes = layers.shapes_layer(volume, transforms)
            self._add_prompts("shapes", PromptShapes, self.shapes)
        if self.points is None:
            self.points = layers.points_layer(volume, transforms)
            self._add_prompts("points", PromptPoints, self.points)
        self._bind()
        self.show_prompts()
        self.changed.emit()

    @property
    def is_complete(self) -> bool:
        """Whether all layers are in the viewer."""
        return None not in (self.labels, self.points, self.shapes)

    def close(self) -> None:
        """Take the layers away and stop listening."""
        self._is_closing = True
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.selection.events.active.disconnect(self._tell)
        for prompts in self._prompts.values():
            prompts.close()
        for layer in (self.points, self.shapes, self.labels, self.image):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        if self._place.is_oblique and self._place.image in self._viewer.layers:
            self._place.image.visible = True
        self.image = self.labels = self.points = self.shapes = None
        self._prompts = {}

    def _add_labels(self) -> None:
        session = self._desk.session
        self.labels = layers.labels_layer(
            session.volume, session.task, self._desk.shown, self._place.transforms
        )
        self._color()
        self.labels.events.paint.connect(self._painted)
        self.labels.events.selected_label.connect(self._tell)
        self.labels.events.mode.connect(self._tell)
        self._viewer.add_layer(self.labels)

    def _add_prompts(self, name: str, kind: type[PromptLayer], layer: Any) -> None:
        lattice = self._desk.session.volume.geometry
        self._prompts[name] = kind(layer, lattice, self._edits, self)
        self._prompts[name].failed.connect(self.failed)
        layer.events.mode.connect(self._tell)
        self._viewer.add_layer(layer)

    def _removed(self, event: Any) -> None:
        if self._is_closing:
            return
        for name in ("labels", "points", "shapes", "image"):
            if getattr(self, name) is event.value:
                setattr(self, name, None)
                if name in self._prompts:
                    self._prompts.pop(name).close()
        self.changed.emit()

    # ------------------------------------------------------- tools and keys

    def bind(self, keys: dict[Any, Callable[[], object]]) -> None:
        """Let keys do something while one of our layers is selected."""
        self._keys = keys
        self._bind()

    def _bind(self) -> None:
        for layer in (self.labels, self.points, self.shapes):
            for key, act in self._keys.items():
                if layer is not None:
                    layer.bind_key(key, lambda _, act=act: act() and None, overwrite=True)
        if self.labels is not None and UNDO in self._keys:
            # Whoever asks napari to undo a stroke, by key, menu or code, gets the session's undo:
            # napari's own history knows neither prompts nor results.
            for name, key in (("undo", UNDO), ("redo", REDO)):
                setattr(self.labels, name, self._keys[key])

    @property
    def tool(self) -> Tool | None:
        """What the mouse does, or None for anything that napari offers beside."""
        active = self._viewer.layers.selection.active
        if active is None or active not in (self.points, self.shapes, self.labels):
            return None
        mode = str(active.mode)
        if active == self.labels:
            return next((tool for tool, of in LABEL_MODES.items() if of == mode), None)
        if active == self.points:
            sign = Tool.POSITIVE if self.is_positive("points") else Tool.NEGATIVE
            return sign if mode == "add" else None
        tools = [tool for tool, of in SHAPE_MODES.items() if of == mode]
        if tools and not self.is_positive("shapes"):
            return tools[-1]
        return tools[0] if tools else None

    def is_positive(self, layer: str) -> bool:
        """Whether the next prompt of the layer, "points" or "shapes", belongs to the object."""
        return layer not in self._prompts or self._prompts[layer].is_positive

    def set_tool(self, tool: Tool) -> None:
        """Select the layer and the mode for a tool."""
        if tool in LABEL_MODES:
            self._use(self.labels, LABEL_MODES[tool])
        else:
            name = "shapes" if tool in SHAPE_MODES else "points"
            if name in self._prompts:
                self._prompts[name].set_positive(tool not in NEGATIVE_TOOLS)
            self._use(getattr(self, name), SHAPE_MODES.get(tool, "add"))
        self.changed.emit()

    def _use(self, layer: Any, mode: str) -> None:
        if layer is not None:
            self._viewer.layers.selection.active = layer
            layer.mode = mode

    @property
    def label(self) -> int | None:
        """The label that the brush paints, None without a labels layer."""
        return None if self.labels is None else int(self.labels.selected_label)

    def set_label(self, value: int) -> None:
        """Paint with this label from now on."""
        if self.labels is not None and self.labels.selected_label != value:
            self.labels.selected_label = value

    def set_label_visible(self, value: int, visible: bool) -> None:
        """Show a label, or make it clear."""
        self.hidden = self.hidden - {value} if visible else self.hidden | {value}
        self._color()

    def _tell(self, event: Any = None) -> None:
        self.changed.emit()

    # ------------------------------------------------------ what is shown

    def show_prompts(self, error: object = None) -> None:
        """Make the prompts in the layers those of the session."""
        prompts = [item for thing in self._desk.objects for item in thing.prompts.items()]
        for layer in self._prompts.values():
            layer.show(prompts)

    def _redraw(self, region: tuple[slice, ...]) -> None:
        if self.labels is not None and is_shown(self._viewer.dims, self.labels, region):
            self.labels.refresh(extent=False, highlight=False)

    def _replace(self) -> None:
        if self.labels is not None:
            self.labels.data = self._desk.shown

    def _color(self) -> None:
        if self.labels is not None:
            self.labels.colormap = layers.colormap_of(self._desk.session.task, self.hidden)

    def _painted(self, event: Any) -> None:
        self.painted.emit(list(event.value))
