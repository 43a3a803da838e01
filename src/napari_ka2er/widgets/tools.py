"""What the mouse does in the canvas."""

from __future__ import annotations

from enum import StrEnum


class Tool(StrEnum):
    """What the mouse does; each goes with a layer of ours and one of its modes."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    BOX = "box"
    SCRIBBLE = "scribble"
    SCRIBBLE_NEGATIVE = "scribble negative"
    LASSO = "lasso"
    BRUSH = "brush"
    ERASER = "eraser"
    NONE = "none"


NEGATIVE_TOOLS = (Tool.NEGATIVE, Tool.SCRIBBLE_NEGATIVE)
OPPOSITE = {
    Tool.POSITIVE: Tool.NEGATIVE,
    Tool.NEGATIVE: Tool.POSITIVE,
    Tool.SCRIBBLE: Tool.SCRIBBLE_NEGATIVE,
    Tool.SCRIBBLE_NEGATIVE: Tool.SCRIBBLE,
    Tool.BRUSH: Tool.ERASER,
    Tool.ERASER: Tool.BRUSH,
}
LABEL_MODES = {Tool.BRUSH: "paint", Tool.ERASER: "erase", Tool.NONE: "pan_zoom"}
SHAPE_MODES = {
    Tool.BOX: "add_rectangle",
    Tool.SCRIBBLE: "add_path",
    Tool.SCRIBBLE_NEGATIVE: "add_path",
    Tool.LASSO: "add_polygon_lasso",
}
