"""The panel to correct labels by hand and with tools."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtWidgets import QPushButton

from napari_ka2er.core import tools
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.tools import ToolCall
from napari_ka2er.widgets.brush_limits import BrushLimits
from napari_ka2er.widgets.brush_width import BrushWidth
from napari_ka2er.widgets.parts import (
    BUSY,
    Panel,
    allow,
    button,
    combo,
    fit_scale,
    number,
    row,
    toggle,
)
from napari_ka2er.widgets.slice_tools import copied_slice, painted_slices, two_points
from napari_ka2er.widgets.tools import Tool

_TIPS = {
    "fill-between": "Fill this label between the slices of the shown axis that have it.",
    "fill-painted": "Redraw this label between the slices that you painted on, from those alone.",
    "keep-largest": "Remove all islands of this label but the largest.",
    "remove-small": "Remove the islands of this label that are smaller than this.",
    "fill-holes": "Fill what this label encloses, in 3D.",
    "fill-holes-2d": "Fill what this label encloses in each slice of the shown axis.",
    "smooth": "Smooth the surface of this label over this distance.",
    "grow": "Add what lies within this distance; within the intensities above, if they are set.",
    "shrink": "Take away what lies within this distance of the border.",
    "copy-before": "Give this slice the label as it is in the slice before.",
    "copy-after": "Give this slice the label as it is in the slice after.",
    "split": "Give the smaller part of this label, an island or what lies behind a neck, to the "
    "label beside. Select two points to say what stays and what goes.",
    "merge": "Give all of the label beside to this one.",
}


class ToolPanel(Panel):
    """Brush, eraser and the tools, for the label that is worked on."""

    def __init__(self, controller: Any, viewer: Any) -> None:
        super().__init__(controller)
        self._viewer = viewer
        self._fitted: Any = None  # the session that the distance is of the scale of
        self.brush = toggle("Brush", partial(controller.set_tool, Tool.BRUSH), "brush")
        self.eraser = toggle("Eraser", partial(controller.set_tool, Tool.ERASER), "eraser")
        self.brush_width = BrushWidth(controller, viewer)
        self.limits = BrushLimits(controller)
        self.distance = number("distance_mm", "How far smooth, grow and shrink reach.", 2.0, "mm")
        self.smallest = number("smallest_ml", "Smaller islands go.", 0.1, "ml", decimals=3)
        self.other = combo("other_label", "The other label, for split and merge.")
        self.tools = {name: self._button(*entry) for name, entry in self._entries().items()}
        self._lay_out()

    def _entries(self) -> dict[str, tuple[str, str, Callable[[], ToolCall]]]:
        """Return name -> title, object name and how to make the call."""
        c = self._controller
        mm, ml, axis = self.distance.value, self.smallest.value, self._axis
        made: dict[str, tuple[str, Callable[[], ToolCall]]] = {
            "fill-between": ("Fill gaps", lambda: tools.FillBetween(c.label, axis())),
            "fill-painted": ("Fill between painted", self._between_painted),
            "keep-largest": ("Keep largest", lambda: tools.KeepLargest(c.label)),
            "remove-small": ("Remove below", lambda: tools.RemoveSmall(c.label, ml())),
            "fill-holes": ("Fill holes in 3D", lambda: tools.FillHoles(c.label)),
            "fill-holes-2d": ("Fill holes in slices", lambda: tools.FillHoles(c.label, axis())),
            "smooth": ("Smooth", lambda: tools.Smooth(c.label, mm())),
            "grow": ("Grow", lambda: tools.Grow(c.label, mm(), self.limits.intensity_range)),
            "shrink": ("Shrink", lambda: tools.Shrink(c.label, mm())),
            "copy-before": ("Copy slice before", partial(self._copied, -1)),
            "copy-after": ("Copy slice after", partial(self._copied, 1)),
            "split": ("Split to", self._split),
            "merge": ("Merge with", lambda: tools.Merge(c.label, self._other_label())),
        }
        return {name: (title, name, make) for name, (title, make) in made.items()}

    def _button(self, title: str, name: str, make: Callable[[], ToolCall]) -> QPushButton:
        return button(title, lambda: self._run(make), name)

    def _lay_out(self) -> None:
        made = self.tools
        self.add(row(self.brush, self.eraser, self.brush_width), self.limits)
        self.add(row(made["fill-between"], made["fill-painted"]))
        self.add(row(made["copy-before"], made["copy-after"]))
        self.add(row(made["smooth"], made["grow"], made["shrink"], self.distance))
        self.add(row(made["keep-largest"], made["remove-small"], self.smallest))
        self.add(row(made["fill-holes"], made["fill-holes-2d"]))
        self.add(row(made["split"], made["merge"], self.other))

    # -------------------------------------------------------------- refresh

    def refresh(self) -> None:
        """See `Panel`."""
        controller, obstacle = self._controller, self.no_layers()
        used = None if controller.view is None else controller.view.tool
        keys = " Keys [ and ] change its size."
        for made, tool, what in (
            (self.brush, Tool.BRUSH, "Paint the label by hand."),
            (self.eraser, Tool.ERASER, "Rub labels out by hand."),
        ):
            allow(made, what + keys, obstacle)
            made.setChecked(not obstacle and used == tool)
        self.brush_width.refresh(obstacle)
        self.limits.refresh(obstacle)
        self._fit_distance()
        self._refresh_other()
        self._refresh_tools(obstacle)

    def _refresh_tools(self, obstacle: str) -> None:
        running = BUSY if self._controller.is_long or self._controller.work == "tool" else ""
        for name, made in self.tools.items():
            lone = name in ("split", "merge") and not self.other.count()
            allow(made, _TIPS[name], obstacle or running or ("add another label" if lone else ""))

    def _fit_distance(self) -> None:
        """Let the distance be of the scale of the session's volume, which may be a microscope's."""
        session = self._controller.session
        if session is not None and session is not self._fitted:
            step, extent = min(session.volume.spacing), max(session.volume.geometry.extent_mm)
            fit_scale(self.distance, step, extent, 2 * step)
        self._fitted = session

    def _refresh_other(self) -> None:
        session, label = self._controller.session, self._controller.label
        labels = () if session is None else session.task.labels
        others = [(x.name, x.value) for x in labels if x.value != label]
        if others != [(self.other.itemText(n), self.other.itemData(n)) for n in self._rows()]:
            self.other.clear()
            for name, value in others:
                self.other.addItem(name, value)
        self.other.setEnabled(bool(others))

    def _rows(self) -> range:
        return range(self.other.count())

    # ---------------------------------------------------------------- tools

    def _run(self, make: Callable[[], ToolCall]) -> None:
        try:
            self._controller.run_tool(make())
        except UserError as error:
            self._controller.failed.emit(str(error))

    def _axis(self) -> int:
        return int(self._controller.shown_slice()[0])

    def _between_painted(self) -> ToolCall:
        label, axis = self._controller.label, self._axis()
        keys = painted_slices(self._controller.session, label, axis)
        return tools.FillBetween(label, axis, keys)

    def _copied(self, step: int) -> ToolCall:
        axis, index = self._controller.shown_slice()
        return copied_slice(self._controller.session, self._controller.label, axis, index, step)

    def _other_label(self) -> int:
        return int(self.other.currentData())

    def _split(self) -> ToolCall:
        ends = two_points(self._viewer, self._controller.view)
        return tools.Split(self._controller.label, self._other_label(), *ends)
