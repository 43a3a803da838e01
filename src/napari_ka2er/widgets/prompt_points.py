"""The points layer and a session's point prompts, kept alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Points
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Point, Position
from napari_ka2er.core.session import Session
from napari_ka2er.widgets.layers import NEGATIVE, POSITIVE

AddPoint = Callable[[Point], int]  # returns the prompt's number


class PromptPoints(QObject):
    """Takes what the user does to the points layer into a session, and shows the session's points.

    The session decides: after each change the layer is drawn from it again, a moment later, since
    napari is still busy with the layer while it tells of a change.

    Parameters
    ----------
    session : Session
        Whose prompts they are.
    layer : Points
        In the volume's voxels.
    add : callable
        Called with a new point; returns its number, or raises `UserError` to refuse it.

    Signals
    -------
    failed(Exception)
        Why a point was refused.
    """

    failed = Signal(object)

    def __init__(
        self, session: Session, layer: Points, add: AddPoint, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._layer, self._add = session, layer, add
        self._rows: list[int | None] = []  # the layer's rows as numbers of prompts
        self._is_drawing = False
        self._is_positive = True
        self._timer = QTimer(self, singleShot=True, interval=0)
        self._timer.timeout.connect(self.draw)
        layer.events.data.connect(self._take)
        session.prompts_changed.connect(self._changed)
        self.set_positive(True)
        self.draw()

    def close(self) -> None:
        """Stop listening."""
        self._timer.stop()
        self._layer.events.data.disconnect(self._take)
        self._session.prompts_changed.disconnect(self._changed)

    @property
    def is_positive(self) -> bool:
        """Whether the next point belongs to the object."""
        return self._is_positive

    def set_positive(self, is_positive: bool) -> None:
        """Let the next points belong to the object, or not."""
        self._is_positive = is_positive
        self._layer.selected_data = set()  # else the selected points would change their look
        self._layer.current_face_color = POSITIVE if is_positive else NEGATIVE
        self._layer.current_symbol = "disc" if is_positive else "x"

    def draw(self) -> None:
        """Show the session's points."""
        points = self._points()
        index = self._session.volume.geometry.to_index
        data = np.array([index(p.position_mm) for p in points.values()]).reshape(-1, 3)
        if self._rows == list(points) and np.allclose(self._layer.data, data, atol=1e-6):
            return
        self._is_drawing = True
        try:
            self._layer.selected_data = set()
            self._layer.data = data
            if len(data):
                signs = [point.positive for point in points.values()]
                self._layer.face_color = [POSITIVE if sign else NEGATIVE for sign in signs]
                self._layer.symbol = ["disc" if sign else "x" for sign in signs]
        finally:
            self._is_drawing = False
        self._rows = list(points)
        self.set_positive(self._is_positive)

    def _points(self) -> dict[int, Point]:
        """Return all points of the session by their numbers."""
        objects = sorted(self._session.state.objects)
        prompts = [item for number in objects for item in self._session.prompts(number).items()]
        return {number: prompt for number, prompt in prompts if isinstance(prompt, Point)}

    def _changed(self, object_number: int) -> None:
        self._timer.start()

    def _take(self, event: Any) -> None:
        """Take a change of the layer; napari tells of it before and after, only after counts."""
        if self._is_drawing:
            return
        what = str(getattr(event.action, "value", event.action))
        try:
            if what == "added":
                self._take_added()
            elif what == "removed":
                self._take_removed([int(row) for row in event.data_indices])
            elif what == "changed":
                self._take_moved()
        except UserError as error:
            self.failed.emit(error)
        if what in ("added", "removed", "changed"):
            self._timer.start()

    def _take_added(self) -> None:
        for row in range(len(self._rows), len(self._layer.data)):
            self._rows.append(None)  # stays so if the point is refused, and is drawn away
            self._rows[row] = self._add(Point(self._world(row), self._is_positive))

    def _take_removed(self, rows: list[int]) -> None:
        gone = [self._rows[row] for row in rows if row < len(self._rows)]
        self._rows = [number for row, number in enumerate(self._rows) if row not in set(rows)]
        for number in gone:
            if number is not None:
                self._session.delete_prompt(number)

    def _take_moved(self) -> None:
        known = self._points()
        for row, number in enumerate(self._rows):
            if number is None or row >= len(self._layer.data):
                continue
            before = known[number]
            moved = Point(self._world(row), before.positive)
            if not np.allclose(moved.position_mm, before.position_mm, atol=1e-6):
                self._session.move_prompt(number, moved)

    def _world(self, row: int) -> Position:
        z, y, x = self._session.volume.geometry.to_world(self._layer.data[row])
        return float(z), float(y), float(x)
