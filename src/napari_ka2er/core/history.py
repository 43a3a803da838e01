"""Steps that can be taken back, and what an object's prompts contributed to the mask."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.actions import Action, Change, Edit, Redo, Undo
from napari_ka2er.core.boxes import is_empty, union, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.edits import Labels

MINIMUM_STEPS = 50
Step = list[Change]
Steps = tuple[Step, ...]


class History:
    """Steps done and undone.

    Parameters
    ----------
    limit_bytes : int
        Memory for packed boxes.  Beyond it the oldest steps can no longer be taken back, but never
        less than the last 50.  Boxes that lie in a session's log take none.
    """

    def __init__(self, limit_bytes: int = 1 << 28) -> None:
        self._limit_bytes = limit_bytes
        self._done: list[Step] = []
        self._undone: list[Step] = []
        self._held_bytes = 0  # counted along: a walk through all steps at each push is too slow
        self.is_complete = True

    @property
    def n_done(self) -> int:
        """Number of steps that can be taken back."""
        return len(self._done)

    @property
    def n_undone(self) -> int:
        """Number of steps that can be made again."""
        return len(self._undone)

    @property
    def last(self) -> Change | None:
        """The newest change, or None at the start."""
        return self._done[-1][-1] if self._done else None

    @property
    def held_bytes(self) -> int:
        """Memory that packed boxes take."""
        return self._held_bytes

    @property
    def steps(self) -> Steps:
        """The steps that are done, oldest first."""
        return tuple(self._done)

    def drawn_since(self, steps: Steps) -> list[Edit]:
        """Return what a person drew, or a tool, in the steps that are not among these."""
        known = set(map(id, steps))
        since = [change for step in self.steps if id(step) not in known for change in step]
        return [c for c in since if isinstance(c, Edit) and c.source in ("brush", "tool")]

    def step_of(self, action: Undo | Redo) -> Step:
        """Return the step that is taken back or made again next; empty if there is none."""
        steps = self._done if isinstance(action, Undo) else self._undone
        return steps[-1] if steps else []

    def push(self, change: Change) -> None:
        """Add a change, as a step of its own or to the last one, and forget what was undone."""
        self._held_bytes += _held_bytes([change]) - sum(map(_held_bytes, self._undone))
        self._undone.clear()
        if change.joins and self._done:
            self._done[-1].append(change)
        else:
            self._done.append([change])
        while len(self._done) > MINIMUM_STEPS and self._held_bytes > self._limit_bytes:
            self._held_bytes -= _held_bytes(self._done.pop(0))
            self.is_complete = False

    def undo(self) -> Step:
        """Move the last step to those undone and return it; there must be one."""
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self) -> Step:
        """Move the last undone step back and return it; there must be one."""
        self._done.append(self._undone.pop())
        return self._done[-1]

    def newest_first(self) -> Iterator[Change]:
        """Yield the changes that are done, the newest first."""
        return (change for step in reversed(self._done) for change in reversed(step))


def _held_bytes(step: Step) -> int:
    return sum(change.delta.packed.held_bytes for change in step if isinstance(change, Edit))


def changed_unseen(action: Action, history: History) -> Region | None:
    """Return the box in which an action, not yet made, changes labels unseen; None if nowhere.

    Whoever paints or calls a tool sees what it does.  What the model finds, what another program
    put in place of the labels, and what undo and redo bring back, may lie in any slice.
    """
    match action:
        case Edit():
            step: Step = [] if _is_seen(action) else [action]
        case Undo() | Redo():
            step = history.step_of(action)
        case _:
            return None
    boxes = [change.delta.region for change in step if isinstance(change, Edit)]
    boxes = [box for box in boxes if not is_empty(box)]
    return reduce(union, boxes) if boxes else None


def _is_seen(edit: Edit) -> bool:
    # One label of the student, or another program's array: both are kept as tools.
    is_unseen = edit.detail.get("tool") in ("segment", "assign")
    return edit.source in ("brush", "tool") and not is_unseen


def toggle(mask: Labels, edit: Edit) -> None:
    """Make an edit, or take it back, in place."""
    for region, values in edit.delta.slabs():
        part = mask[region]
        np.bitwise_xor(part, values.astype(mask.dtype, copy=False), out=part)


def with_drawn(
    values: NDArray[Any], region: Region, mask: Labels, edits: Sequence[Edit]
) -> NDArray[Any]:
    """Return the labels wanted in a region, but the present ones where edits changed them.

    Parameters
    ----------
    values : ndarray of int or bool, shape (Z, Y, X)
        What is wanted in `region`; returned as it is without edits.
    region : tuple of slice
        Where.
    mask : ndarray of unsigned int, shape (Z, Y, X)
        The present labels of the whole map.
    edits : sequence of Edit
        What is to be kept.
    """
    if not edits:
        return values
    kept = values.astype(np.promote_types(values.dtype, mask.dtype))
    for edit in edits:
        for where, changed in edit.delta.slabs(region):
            part = within(where, region)
            kept[part] = np.where(changed, mask[where], kept[part])
    return kept


def contribution(
    mask: Labels, newest_first: Iterable[Change], object_number: int
) -> tuple[Region, NDArray[np.bool_], Labels] | None:
    """Return what an object's prompts last wrote, and what is there without it.

    Voxels that something else has written since, such as the brush, are not the object's any more.

    Parameters
    ----------
    mask : ndarray of unsigned int, shape (Z, Y, X)
        The present labels.
    newest_first : iterable of Change
        The history.

    Returns
    -------
    region : tuple of slice
        The box around all its edits.
    own : ndarray of bool
        The voxels in the box that the object wrote last.
    without : ndarray of unsigned int
        The labels in the box before it did.
    """
    edits = [change for change in newest_first if isinstance(change, Edit)]
    own_edits = [n for n, edit in enumerate(edits) if edit.object_number == object_number]
    if not own_edits:
        return None
    box = reduce(union, (edits[n].delta.region for n in own_edits))
    without = mask[box].copy()
    closed, own = (np.zeros(without.shape, np.bool_) for _ in range(2))
    for edit in edits[: own_edits[-1] + 1]:  # what is older was there before the object
        for region, values in edit.delta.slabs(box):
            part = within(region, box)
            changed = (values != 0) & ~closed[part]
            if edit.object_number == object_number:
                without[part] ^= np.where(changed, values, 0).astype(mask.dtype)
                own[part] |= changed
            else:
                closed[part] |= changed
    return box, own, without
