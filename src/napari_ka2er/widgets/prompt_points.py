"""Positive and negative points as a points layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_ka2er.core.prompts import Point, Prompt
from napari_ka2er.widgets.layers import NEGATIVE, POSITIVE
from napari_ka2er.widgets.looking import on_voxels
from napari_ka2er.widgets.prompt_layer import PromptLayer


class PromptPoints(PromptLayer):
    """Shows and takes points; see `PromptLayer`."""

    kinds = (Point,)

    def _prompt_at(self, row: int, positive: bool) -> Prompt:
        index = np.asarray(self.layer.data[row : row + 1], dtype=float)
        is_new = self._rows[row] is None
        (position,) = self._world(on_voxels(index) if is_new else index)
        return Point(position, positive)

    def _fill(self, prompts: Sequence[Prompt]) -> None:
        self.layer.data = np.array([self._index(p)[0] for p in prompts]).reshape(-1, 3)
        if prompts:
            self.layer.face_color = [POSITIVE if p.positive else NEGATIVE for p in prompts]
            self.layer.symbol = ["disc" if p.positive else "x" for p in prompts]

    def _style_next(self) -> None:
        self.layer.selected_data = set()  # else the selected points would change their look
        self.layer.current_face_color = POSITIVE if self._is_positive else NEGATIVE
        self.layer.current_symbol = "disc" if self._is_positive else "x"
