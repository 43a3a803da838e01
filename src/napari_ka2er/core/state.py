"""What a session's actions make of an empty mask, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.actions import (
    Action,
    Change,
    Edit,
    LabelChange,
    LockChange,
    ObjectChange,
    PromptChange,
    PromptedObject,
    Redo,
    ReviewChange,
    ReviewLoss,
    StatusChange,
    StudentChange,
    Undo,
)
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.history import History, changed_unseen, toggle
from napari_ka2er.core.review import Reviewed, Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.records import Record
    from napari_ka2er.core.task import Label, Task

PAUSE_S = 60.0  # a longer gap between two actions was not work on this volume


@dataclass(slots=True)
class Effects:
    """What an action touched, for those who show it."""

    regions: list[Region] = field(default_factory=list)
    objects: set[int] = field(default_factory=set)
    labels: bool = False
    reviewed: bool = False


class SessionState:
    """The labels, prompts, mask and history that actions lead to.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along (Z, Y, X).
    task : Task
        The labels to begin with.
    """

    def __init__(self, shape: tuple[int, int, int], task: Task) -> None:
        self.task = task
        self.mask: Labels = np.zeros(shape, _dtype_for(max(task.values)))
        self.statuses = dict.fromkeys(task.values, Status.NOT_STARTED)
        self.locked: frozenset[int] = frozenset()
        self.reviewed = Reviewed()
        self.objects: dict[int, PromptedObject] = {}
        self.prompts: dict[int, dict[int, Prompt]] = {}
        self.prompt_times_s: dict[int, float] = {}
        self.student: StudentChange | None = None
        self.history = History()
        self.active_s = 0.0
        self.n_objects = self.n_prompts = 0  # ever made: numbers are not used twice
        self.n_worked = 0  # actions, choices of a student left out
        self._time_s: float | None = None

    def apply(self, record: Record) -> Effects:
        """Make one action; return what it touched."""
        self._keep_time(record.time_s)
        self.n_worked += not isinstance(record.action, StudentChange)
        effects = Effects()
        match record.action:
            case Undo():
                for change in reversed(self.history.undo()):
                    self._change(_inverse(change), effects)
            case Redo():
                for change in self.history.redo():
                    self._change(change, effects)
            case Edit() | PromptChange() | ObjectChange() as change:
                if isinstance(change, PromptChange):
                    self.prompt_times_s[change.number] = record.time_s
                self._change(change, effects)
                effects.labels = self._start(change)
                self.history.push(change)
            case LabelChange() | StatusChange() | LockChange() as setting:
                self._set(setting)
                effects.labels = True
            case ReviewChange() as mark:
                self.reviewed = _marked(self.reviewed, mark, self.mask.shape)
                effects.reviewed = True
            case ReviewLoss(bounds):
                self.reviewed = self.reviewed.without_box(bounds, self.mask.shape)
                effects.reviewed = True
            case StudentChange() as student:
                self.student = student
        return effects

    def review_loss(self, action: Action) -> ReviewLoss | None:
        """Return what an action, not yet made, takes from the reviewed region; None if nothing."""
        box = changed_unseen(action, self.history)
        if box is None or self.reviewed.is_empty():
            return None
        bounds = tuple((part.start, part.stop) for part in box)
        left = self.reviewed.without_box(bounds, self.mask.shape)
        return None if left == self.reviewed else ReviewLoss(bounds)

    def require_unlocked(self, action: Undo | Redo) -> None:
        """Refuse what would change voxels of a locked label, before it is made.

        Raises
        ------
        UserError
            If it would.
        """
        edits = [c for c in self.history.step_of(action) if isinstance(c, Edit)]
        locked = self.locked & {value for edit in edits for value in edit.delta.labels}
        if locked:
            names = ", ".join(self.task.label(value).name for value in sorted(locked))
            got = f"one that changed {names}, which is locked"
            raise UserError("a step without voxels of locked labels", got, "unlock it first")

    def _keep_time(self, time_s: float) -> None:
        if self._time_s is not None:
            self.active_s += min(max(time_s - self._time_s, 0.0), PAUSE_S)
        self._time_s = time_s

    def _change(self, change: Change, effects: Effects) -> None:
        match change:
            case Edit():
                toggle(self.mask, change)
                effects.regions.append(change.delta.region)
            case PromptChange():
                prompts = dict(self.prompts.get(change.object_number, {}))
                prompts.pop(change.number, None)
                if change.after is not None:
                    prompts[change.number] = change.after
                self.prompts[change.object_number] = dict(sorted(prompts.items()))
                self.n_prompts = max(self.n_prompts, change.number)
                effects.objects.add(change.object_number)
            case ObjectChange():
                self.objects.pop(change.object.number, None)
                if change.added:
                    self.objects[change.object.number] = change.object
                self.n_objects = max(self.n_objects, change.object.number)
                effects.objects.add(change.object.number)

    def _start(self, change: Change) -> bool:
        """Mark the labels that an edit touches first as in progress; return whether any is new."""
        touched = change.delta.labels if isinstance(change, Edit) else ()
        new = [value for value in touched if self.statuses.get(value) == Status.NOT_STARTED]
        self.statuses.update(dict.fromkeys(new, Status.IN_PROGRESS))
        return bool(new)

    def _set(self, setting: LabelChange | StatusChange | LockChange) -> None:
        match setting:
            case LabelChange(label):
                self.task = replace(self.task, labels=_with_label(self.task.labels, label))
                self.statuses.setdefault(label.value, Status.NOT_STARTED)
                self.mask = self.mask.astype(_dtype_for(max(self.task.values)), copy=False)
            case StatusChange(value, status):
                self.statuses[value] = Status(status)
            case LockChange(value, locked):
                self.locked = self.locked | {value} if locked else self.locked - {value}


def _inverse(change: Change) -> Change:
    """Return the change that takes this one back; an edit is its own."""
    match change:
        case PromptChange():
            return replace(change, before=change.after, after=change.before)
        case ObjectChange():
            return replace(change, added=not change.added)
        case _:
            return change


def _marked(reviewed: Reviewed, mark: ReviewChange, shape: tuple[int, ...]) -> Reviewed:
    is_taken_back = mark.version > 1 and not mark.reviewed
    if mark.axis is None:
        if is_taken_back:
            return reviewed.without_whole(shape) if mark.version > 2 else Reviewed()
        return replace(reviewed, whole=mark.reviewed)
    if is_taken_back:
        return reviewed.without_slice(mark.axis, mark.index, shape)
    return reviewed.with_slice(mark.axis, mark.index, mark.reviewed)


def _with_label(labels: Iterable[Label], new: Label) -> tuple[Label, ...]:
    by_value = {label.value: label for label in (*labels, new)}
    return tuple(by_value[value] for value in sorted(by_value))


def _dtype_for(highest: int) -> np.dtype[Any]:
    """Return the smallest type that also has room for nnU-Net's ignore label above the highest."""
    return np.dtype(np.min_scalar_type(highest + 1))
