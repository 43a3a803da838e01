"""Boxes, scribbles and lassos as a shapes layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Box, Lasso, Prompt, Scribble
from napari_ka2er.widgets.layers import NEGATIVE, POSITIVE
from napari_ka2er.widgets.looking import on_voxels
from napari_ka2er.widgets.prompt_layer import PromptLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PromptShapes(PromptLayer):
    """Shows and takes rectangles (boxes), paths (scribbles) and polygons (lassos)."""

    kinds = (Box, Scribble, Lasso)

    def _prompt_at(self, row: int, positive: bool) -> Prompt:
        vertices = np.asarray(self.layer.data[row], dtype=float)
        if self._rows[row] is None:  # new
            vertices = on_voxels(vertices)
        match str(self.layer.shape_type[row]):
            case "rectangle":
                low, high = self._world(self._corners(row, vertices))
                return Box(low, high, positive)
            case "path" | "line":
                return Scribble(self._world(vertices), positive)
            case "polygon":
                return Lasso(self._world(vertices), positive)
            case other:
                raise UserError("a rectangle, path or polygon", f"an {other}", "it was ignored")

    def _corners(self, row: int, vertices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a box's lowest and highest corner; one that is deeper than its outline stays so.

        An outline lies in one slice, the middle of the box.
        """
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        number = self._rows[row] if row < len(self._rows) else None
        before = None if number is None else self._wanted.get(number)
        if isinstance(before, Box):
            ends = self._index(before)
            half = np.abs(ends[1] - ends[0]) / 2
            axis = int(half.argmin())
            low[axis] -= half[axis]
            high[axis] += half[axis]
        return np.stack([low, high])

    def _fill(self, prompts: Sequence[Prompt]) -> None:
        self.layer.data = [self._shape(prompt) for prompt in prompts]
        if prompts:
            self.layer.edge_color = [POSITIVE if p.positive else NEGATIVE for p in prompts]
            self.layer.face_color = "transparent"

    def _shape(self, prompt: Prompt) -> tuple[Any, str]:
        index = self._index(prompt)
        match prompt:
            case Box():
                return _outline(index), "rectangle"
            case Scribble():
                return index, "path"
            case _:
                return index, "polygon"

    def _style_next(self) -> None:
        self.layer.selected_data = set()
        self.layer.current_edge_color = POSITIVE if self._is_positive else NEGATIVE
        self.layer.current_face_color = "transparent"


def _outline(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a box as a rectangle across its thinnest axis, half way through."""
    low, high = ends.min(axis=0), ends.max(axis=0)
    axis = int((high - low).argmin())
    first, second = (a for a in range(3) if a != axis)
    corners = np.tile(low, (4, 1))
    corners[:, axis] = (low[axis] + high[axis]) / 2
    corners[1:3, first] = high[first]
    corners[2:4, second] = high[second]
    return corners
