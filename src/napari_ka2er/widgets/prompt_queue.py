"""Which object a point belongs to, and which objects' prompts are still to be answered."""

from __future__ import annotations

from collections.abc import Callable

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.objects import PromptRequest
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.session import Session


class PromptQueue:
    """A session's objects whose prompts changed, the newest first to be answered.

    Parameters
    ----------
    session : Session
        Whose objects they are.
    wake : callable
        Called when there is something new to answer.
    """

    def __init__(self, session: Session, wake: Callable[[], None]) -> None:
        self._session, self._wake = session, wake
        self._waiting: dict[int, None] = {}  # numbers of objects, newest last
        self._objects: dict[int, int] = {}  # label -> object that its next point belongs to
        session.prompts_changed.connect(self._changed)

    def close(self) -> None:
        """Stop listening."""
        self._session.prompts_changed.disconnect(self._changed)

    def add_point(self, label: int, point: Point) -> int:
        """Give the label's present object a point; return the point's number.

        Raises
        ------
        UserError
            If the point lies outside the volume.
        """
        if not self._session.volume.geometry.contains(point.position_mm):
            raise UserError("a point inside the volume", "one outside", "it was ignored")
        number = self._objects.get(label)
        if number is None or number not in self._session.state.objects:  # none yet, or undone
            number = self._session.add_object(label)
        self._objects[label] = number
        return self._session.add_prompt(number, point)

    def new_object(self, label: int) -> None:
        """Let the label's next point begin an object beside what is there."""
        self._objects[label] = self._session.add_object(label, corrects=False)

    def next_request(self) -> PromptRequest | None:
        """Return what to ask the student next, or None; those up to date are forgotten."""
        while self._waiting:
            number = next(reversed(self._waiting))
            known = number in self._session.state.objects
            request = self._session.request(number) if known else None
            if request is not None:
                return request
            del self._waiting[number]
        return None

    def answered(self, number: int) -> None:
        """Take an object from the queue."""
        self._waiting.pop(number, None)

    def clear(self) -> None:
        """Answer nothing of what waits."""
        self._waiting.clear()

    def _changed(self, number: int) -> None:
        self._waiting.pop(number, None)
        self._waiting[number] = None
        self._wake()
