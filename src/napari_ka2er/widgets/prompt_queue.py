"""Which object a prompt belongs to, and which objects' prompts are still to be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.objects import PromptRequest
from napari_ka2er.core.prompts import Prompt
from napari_ka2er.core.session import Session

if TYPE_CHECKING:
    from napari_ka2er.model.answers import PromptResult

_ANEW: tuple[int | None, bool] = (None, True)  # no object yet; the first one corrects what is there


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the student made of an object's prompts."""

    request: PromptRequest
    result: PromptResult


class PromptQueue:
    """A session's objects whose prompts changed, the newest first to be answered.

    Its methods are for the thread of the session (see `SessionDesk`); its properties for any.

    Parameters
    ----------
    session : Session
        Whose objects they are.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: dict[int, None] = {}  # numbers of objects, newest last
        # label -> object that its next prompt belongs to, and whether that, or the one that takes
        # its place once it is undone, corrects what is there
        self._objects: dict[int, tuple[int | None, bool]] = {}
        self.asked = 0  # the object whose answer is under way
        session.prompts_changed.connect(self._changed)

    @property
    def is_waiting(self) -> bool:
        """Whether anything is to be answered."""
        return bool(self._waiting)

    def current(self, label: int) -> int | None:
        """Return the object that a label's next prompt belongs to, or None for a new one."""
        number, _ = self._objects.get(label, _ANEW)
        return number if number in self._session.state.objects else None

    def add_prompt(self, label: int, prompt: Prompt) -> int:
        """Give the label's present object a prompt; return the prompt's number.

        Raises
        ------
        UserError
            If the prompt lies outside the volume.
        """
        number = self.current(label)
        if number is None:  # none yet, or accepted, or undone
            _, corrects = self._objects.get(label, _ANEW)
            number = self._session.add_object(label, corrects)
            self._objects[label] = number, corrects
        return self._session.add_prompt(number, prompt)

    def new_object(self, label: int) -> None:
        """Let the label's next prompt begin an object beside what is there."""
        self._objects[label] = None, False

    def accept(self, label: int) -> None:
        """Let the label's next prompt begin an object that corrects what is there."""
        self._objects.pop(label, None)

    def select(self, number: int) -> int:
        """Let the next prompt of its label belong to this object; return the label."""
        chosen = self._session.state.objects[number]
        self._objects[chosen.label] = number, chosen.corrects
        return chosen.label

    def next_request(self) -> PromptRequest | None:
        """Return what to ask the student next, or None; those up to date are forgotten.

        The mask to start from is made now, while nothing changes it.
        """
        while self._waiting:
            number = next(reversed(self._waiting))
            known = number in self._session.state.objects
            request = self._session.request(number) if known else None
            if request is not None:
                self.asked = number
                request.previous()
                return request
            self._waiting.pop(number, None)
        return None

    def take(self, answer: Answer) -> bool:
        """Write an answer into the mask if it is still wanted; return whether it was."""
        request, result = answer.request, answer.result
        detail: dict[str, Any] = {"predicted_dice": float(result.predicted_dice)}
        if not self._session.apply_result(request, result.box, result.mask, detail):
            return False
        self._waiting.pop(request.object.number, None)
        return True

    def give_up(self) -> None:
        """Take the object from the queue that was asked for; else it would fail again and again."""
        self._waiting.pop(self.asked, None)

    def clear(self) -> None:
        """Answer nothing of what waits."""
        self._waiting.clear()

    def _changed(self, number: int) -> None:
        self._waiting.pop(number, None)
        self._waiting[number] = None
