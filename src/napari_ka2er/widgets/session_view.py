"""A session in a viewer: its layers, the brush, the tools and the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app_model.types import KeyCode, KeyMod
from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.widgets import layers
from napari_ka2er.widgets.desk import SessionDesk
from napari_ka2er.widgets.looking import is_shown
from napari_ka2er.widgets.prompt_layer import PromptEdits
from napari_ka2er.widgets.session_layers import Place, SessionLayers
from napari_ka2er.widgets.strokes import paint_again
from napari_ka2er.widgets.tools import LABEL_MODES, NEGATIVE_TOOLS, SHAPE_MODES
from napari_ka2er.widgets.tools import Tool as Tool

UNDO = KeyMod.CtrlCmd | KeyCode.KeyZ
REDO = KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ


class SessionView(SessionLayers):
    """Shows a session as layers for labels, points and shapes, and takes what is done to them.

    Parameters and signals are those of `SessionLayers`, and:

    Signals
    -------
    painted(list)
        A stroke of the brush, as napari tells it.
    assigned(array)
        Something put another array in place of the labels; the session's comes back in a moment.
    """

    painted = Signal(object)
    assigned = Signal(object)

    def __init__(self, viewer: Any, desk: SessionDesk, place: Place, edits: PromptEdits) -> None:
        super().__init__(viewer, desk, place, edits)
        self._keys: dict[Any, Callable[[], object]] = {}
        self.hidden: frozenset[int] = frozenset()
        self._colors: object = None  # of the labels layer
        self._label = 1  # what the brush paints, also when the layer comes again
        self._own_timer = QTimer(self, singleShot=True, interval=0)
        self._own_timer.timeout.connect(self._replace)
        viewer.layers.selection.events.active.connect(self._tell)
        desk.drawn.connect(self._redraw)
        desk.replaced.connect(self._replace)
        desk.prompts_changed.connect(self.show_prompts)
        desk.failed.connect(self.show_prompts)
        desk.labels_changed.connect(self._color)

    def close(self) -> None:
        """Take the layers away and stop listening."""
        self._own_timer.stop()
        self._viewer.layers.selection.events.active.disconnect(self._tell)
        super().close()

    def _add(self, name: str) -> None:
        super()._add(name)
        layer = getattr(self, name)
        if name == "labels":
            layer.selected_label = self._label
            self._colors = self._wanted_colors(frozenset())  # as it was made
            self._color()
            layer.events.paint.connect(self._painted)
            layer.events.data.connect(self._assigned)
            self._guard(layer)
            layer.events.selected_label.connect(self._tell)
        if name != "image":
            layer.events.mode.connect(self._tell)
        self._bind()
        self.show_prompts()

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
            if not layer.visible and mode != LABEL_MODES[Tool.NONE]:
                layer.visible = True  # first: napari lets nobody paint on what is hidden
            self._viewer.layers.selection.active = layer
            layer.mode = mode

    @property
    def label(self) -> int | None:
        """The label that the brush paints, None without a labels layer."""
        return None if self.labels is None else int(self.labels.selected_label)

    def set_label(self, value: int) -> None:
        """Paint with this label from now on."""
        self._label = value
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
        if self.labels is None:
            return
        # An answer may land while the mouse is down: the stroke is in the session when it is up.
        paint_again(getattr(self.labels, "_staged_history", ()), self.labels.data)
        if is_shown(self._viewer.dims, self.labels, region):
            self.labels.refresh(extent=False, highlight=False)

    def _replace(self) -> None:
        if self.labels is not None and self.labels.data is not self._desk.shown:
            self.labels.data = self._desk.shown

    def _assigned(self, event: Any = None) -> None:
        """Tell of another array in the labels layer; the session knows nothing of what is in it."""
        if self.labels is not None and self.labels.data is not self._desk.shown:
            self.assigned.emit(self.labels.data)
            self._own_timer.start()  # napari is still busy with the layer

    def _guard(self, layer: Any) -> None:
        """Draw all anew when napari gives up a stroke: what it puts back may be out of date."""
        abort, desk = getattr(layer, "_abort_stroke", None), self._desk
        if abort is None:  # napari < 0.9
            return

        def abort_and_redraw() -> None:
            is_begun = bool(getattr(layer, "_staged_history", True))
            abort()
            if is_begun:
                desk.act(lambda session: desk.redraw((slice(None),) * 3))

        layer._abort_stroke = abort_and_redraw

    def _color(self) -> None:
        """Give the labels layer its colours, if they are others: napari makes a new shader."""
        colors = self._wanted_colors(self.hidden)
        if self.labels is not None and colors != self._colors:
            self._colors = colors
            self.labels.colormap = layers.colormap_of(self._desk.session.task, self.hidden)

    def _wanted_colors(self, hidden: frozenset[int]) -> object:
        return {label.value: label.color for label in self._desk.session.task.labels}, hidden

    def _painted(self, event: Any) -> None:
        self.painted.emit(list(event.value))
