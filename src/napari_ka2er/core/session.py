"""One user's work on one volume: objects and their prompts on top of the labels they make."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.actions import Edit, ObjectChange, PromptChange, PromptedObject
from napari_ka2er.core.boxes import explicit
from napari_ka2er.core.editable import EditableLabels
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.history import contribution
from napari_ka2er.core.objects import (
    PromptRequest,
    previous_mask,
    restarts,
    touches,
    with_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.core.log import SessionLog
    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.state import Effects
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume


class Session(EditableLabels):
    """A volume, its labels and mask, and the objects that prompts are given for.

    Parameters and signals are those of `EditableLabels`.  The way of a prompt: `add_object` once,
    `add_prompt`, `request`; the predictor answers in its own time; `apply_result` writes the answer
    unless something newer has made it void.  A prompt and its result are one step of the history.
    """

    def __init__(
        self,
        volume: Volume,
        task: Task,
        log: SessionLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(volume, task, log, clock)
        self._n_requests = 0
        self._wanted: dict[int, int] = {}  # object -> number of its newest request

    @property
    def n_set_aside(self) -> int:
        """Number of steps that were lost to damage of its log, when that was opened."""
        return 0 if self._log is None else self._log.n_set_aside

    def prompts(self, object_number: int) -> dict[int, Prompt]:
        """Return an object's prompts by their numbers, in the order in which they were given."""
        return dict(self._state.prompts.get(object_number, {}))

    def add_object(self, label: int, corrects: bool = True) -> int:
        """Begin an object; return its number.  `PromptedObject` tells what `corrects` means."""
        number = self._state.n_objects + 1
        value = self.task.label(label).value
        self._commit(ObjectChange(PromptedObject(number, value, corrects)))
        return number

    def add_prompt(self, object_number: int, prompt: Prompt) -> int:
        """Give an object a prompt; return the prompt's number.

        Raises
        ------
        UserError
            If there is no such object, or the prompt lies outside the volume.
        """
        target = self._object(object_number)
        self._check_inside(prompt)
        number = self._state.n_prompts + 1
        joins = self._state.history.last == ObjectChange(target)
        self._commit(PromptChange(object_number, number, None, prompt, joins))
        return number

    def move_prompt(self, number: int, prompt: Prompt) -> None:
        """Replace a prompt, by one of any kind."""
        owner, before = self._prompt(number)
        self._check_inside(prompt)
        self._commit(PromptChange(owner, number, before, prompt))

    def delete_prompt(self, number: int) -> None:
        """Take a prompt away; with the object's last prompt its results go, too."""
        owner, before = self._prompt(number)
        self._commit(PromptChange(owner, number, before, None))
        found = contribution(self._state.mask, self._state.history.newest_first(), owner)
        if found is not None and not self.prompts(owner):
            delta = self.prepare(found[0], found[2]).delta
            self._commit(Edit(delta, "prompt", owner, joins=True))

    def delete_object(self, number: int) -> None:
        """Take an object away with its prompts and results, as one step."""
        target = self._object(number)
        found = contribution(self._state.mask, self._state.history.newest_first(), number)
        joins = False
        for key, prompt in self.prompts(number).items():
            self._commit(PromptChange(number, key, prompt, None, joins))
            joins = True
        if found is not None:
            delta = self.prepare(found[0], found[2]).delta
            self._commit(Edit(delta, "prompt", number, joins))
            joins = True
        self._commit(ObjectChange(target, added=False, joins=joins))

    def request(self, object_number: int) -> PromptRequest | None:
        """Return what to ask the mask decoder for, or None if the object's mask is up to date.

        Earlier requests for the same object are void from now on.
        """
        target = self._object(object_number)
        prompts = tuple(self.prompts(object_number).values())
        anew = restarts(self._state.history, object_number)
        if anew is None or not prompts:
            return None
        self._n_requests += 1
        self._wanted[object_number] = self._n_requests
        previous = previous_mask(self._state.mask, self._state.history, target, anew)
        return PromptRequest(target, prompts, anew, self._n_requests, previous)

    def apply_result(
        self,
        request: PromptRequest,
        region: tuple[slice, ...],
        result: NDArray[np.bool_],
        detail: dict[str, Any] | None = None,
    ) -> bool:
        """Write the decoder's answer into the mask if it is still wanted; return whether it was.

        Parameters
        ----------
        request : PromptRequest
            What was asked for.
        region : tuple of slice
            Where the decoder answered; outside of it the object stays as it was before.
        result : ndarray of bool
            The object in `region`.
        detail : mapping, optional
            Plain data to keep with the edit, such as the predicted Dice.
        """
        owner, state = request.object.number, self._state
        if self._wanted.get(owner) != request.number:
            return False
        del self._wanted[owner]
        box, labels = with_result(state, request, explicit(region, self.volume.shape), result)
        last = state.history.last
        joins = isinstance(last, PromptChange) and last.object_number == owner
        delta = self.prepare(box, labels).delta
        self._commit(Edit(delta, "prompt", owner, joins, detail or {}))
        return True

    def _check_inside(self, prompt: Prompt) -> None:
        if not touches(prompt, self.volume.geometry):
            raise UserError(f"a prompt in volume {self.volume.name}", f"{prompt}", "it was ignored")

    def _object(self, number: int) -> PromptedObject:
        try:
            return self._state.objects[number]
        except KeyError as error:
            raise UserError(f"one of objects {sorted(self._state.objects)}", f"{number}") from error

    def _prompt(self, number: int) -> tuple[int, Prompt]:
        for owner, prompts in self._state.prompts.items():
            if number in prompts:
                return owner, prompts[number]
        raise UserError("the number of a prompt", f"{number}")

    def _announce(self, effects: Effects) -> None:
        for owner in effects.objects:
            self._wanted.pop(owner, None)
        super()._announce(effects)
