"""Labels of a volume that can be edited: every command is logged, then made, then announced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_ka2er.core.actions import (
    Action,
    Edit,
    LabelChange,
    LockChange,
    Redo,
    ReviewChange,
    StatusChange,
    StudentChange,
    Undo,
)
from napari_ka2er.core.boxes import explicit
from napari_ka2er.core.edits import difference
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.history import Steps, with_drawn
from napari_ka2er.core.prepared import PreparedEdit
from napari_ka2er.core.records import Record
from napari_ka2er.core.review import Status
from napari_ka2er.core.state import Effects, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.log import SessionLog
    from napari_ka2er.core.task import Label, Task
    from napari_ka2er.core.volume import Volume


class EditableLabels:
    """A volume, its labels, its mask, and all that was done so far; `Session` adds the prompts.

    Everything is changed by the methods below and by nothing else.  Each is one action: on disk
    first, if there is a log, then in memory, then announced.  Call them from one thread; `prepare`
    may run in another.

    Parameters
    ----------
    volume : Volume
        What is segmented; only its geometry is used.
    task : Task
        The labels to begin with.
    log : SessionLog, optional
        Where actions are committed; those in it are made again first.
    clock : callable, optional
        Returns the time in seconds since 1970.

    Signals
    -------
    changed(region)
        Labels changed in this box, (Z, Y, X) slices.
    prompts_changed(object_number)
        Prompts of this object changed, or the object came or went.
    labels_changed()
        Names, colors, statuses or locks changed; the mask may be another, wider array.
    reviewed_changed()
        The reviewed region changed.
    """

    changed = Signal(tuple)
    prompts_changed = Signal(int)
    labels_changed = Signal()
    reviewed_changed = Signal()

    def __init__(
        self,
        volume: Volume,
        task: Task,
        log: SessionLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.volume = volume
        self._log = log
        self._clock = clock
        self._state = SessionState(volume.shape, task)
        self._revision = 0
        for record in log.records() if log else ():
            self._state.apply(record)

    @property
    def state(self) -> SessionState:
        """Statuses, locks, reviewed region, objects, prompts and history; to read only."""
        return self._state

    @property
    def task(self) -> Task:
        """The labels, with those added in this session."""
        return self._state.task

    @property
    def mask(self) -> Labels:
        """The present labels, shape (Z, Y, X); a read-only view."""
        view = self._state.mask.view()
        view.setflags(write=False)
        return view

    @property
    def folder(self) -> Path | None:
        """Where its actions are committed; None if they are not."""
        return None if self._log is None else self._log.folder

    @property
    def seconds(self) -> float:
        """Time spent, pauses of more than a minute counted as one minute."""
        return self._state.active_s

    def set_label(self, label: Label) -> None:
        """Add a label, or give the one with its value another name or color."""
        if label.name in [known.name for known in self.task.labels if known.value != label.value]:
            raise UserError("a name that no other label has", repr(label.name))
        self._commit(LabelChange(label))

    def set_status(self, label: int, status: Status) -> None:
        """Say how far the work on a label is."""
        self._commit(StatusChange(self.task.label(label).value, Status(status).value))

    def set_locked(self, label: int, locked: bool = True) -> None:
        """Keep a label from losing and gaining voxels, or allow it again."""
        self._commit(LockChange(self.task.label(label).value, locked))

    def set_student(self, version: str, mode: str) -> None:
        """Say which student makes the results from here on."""
        self._commit(StudentChange(version, mode))

    def review_slice(self, axis: int, index: int, reviewed: bool = True) -> None:
        """Vouch for the labels of a slice across axis 0, 1 or 2 (Z, Y, X), or no longer.

        A slice taken back from a volume that is wholly reviewed leaves all of it but that slice.
        """
        if axis not in (0, 1, 2) or not 0 <= index < self.volume.shape[axis]:
            raise UserError(f"a slice of a volume of {self.volume.shape}", f"{index} across {axis}")
        self._commit(ReviewChange(axis, index, reviewed, version=2))

    def review_volume(self, reviewed: bool = True) -> None:
        """Vouch for the labels of the whole volume, or no longer; slices marked before it stay."""
        self._commit(ReviewChange(None, 0, reviewed, version=3))

    def prepare(
        self, region: tuple[slice, ...], values: NDArray[Any], since: Steps | None = None
    ) -> PreparedEdit:
        """Compare and pack the labels wanted in a region, but change nothing yet.

        For results as large as the volume: prepare them in a worker and `commit` them here.  With
        `since`, the steps that were done when the work began, what was drawn after them stays.

        Raises
        ------
        UserError
            If the shapes differ, or a changed voxel would get a value that is no label.
        """
        revision, state = self._revision, self._state
        box = explicit(region, self.volume.shape)
        shape = state.mask[box].shape
        if values.shape != shape or values.dtype.kind not in "biu":
            raise UserError(f"integer labels of shape {shape}", f"{values.dtype} {values.shape}")
        drawn = () if since is None else state.history.drawn_since(since)
        wanted = with_drawn(values, box, state.mask, drawn)
        delta = difference(state.mask[box], wanted, tuple(sorted(state.locked)), box)
        unknown = set(delta.labels) - {0, *self.task.values}
        if unknown:
            raise UserError(f"labels of task {self.task.name}: {self.task.values}", f"{unknown}")
        return PreparedEdit(revision, box, values, delta, since)

    def commit(self, edit: PreparedEdit, source: str, detail: dict[str, Any] | None = None) -> bool:
        """Make a prepared edit; return whether anything changed.

        If the mask has changed since, the edit is prepared again: the labels of its region are as
        wanted in any case, but for what was drawn since the steps it was prepared with.
        """
        if edit.revision != self._revision:
            edit = self.prepare(edit.region, edit.values, edit.since)
        if edit.delta.n_voxels:
            self._commit(Edit(edit.delta, source, detail=detail or {}))
        return edit.delta.n_voxels > 0

    def write(
        self,
        region: tuple[slice, ...],
        values: NDArray[Any],
        source: str,
        detail: dict[str, Any] | None = None,
    ) -> bool:
        """Prepare an edit and commit it; return whether anything changed.

        `source` is ``"automatic"``, ``"brush"`` or ``"tool"``.
        """
        return self.commit(self.prepare(region, values), source, detail)

    def undo(self) -> bool:
        """Take back the last step; return whether there was one.

        Raises `UserError` if a locked label would lose or gain a voxel.
        """
        return self._repeat(Undo())

    def redo(self) -> bool:
        """Make the last undone step again; return whether there was one.  Raises like `undo`."""
        return self._repeat(Redo())

    def close(self) -> None:
        """Let others open the session."""
        if self._log is not None:
            self._log.close()

    def _repeat(self, action: Undo | Redo) -> bool:
        if not self._state.history.step_of(action):
            return False
        self._state.require_unlocked(action)
        self._commit(action)
        return True

    def _commit(self, action: Action) -> None:
        loss = self._state.review_loss(action)
        if loss is not None:  # first: a crash in between must not leave a mark on what is unseen
            self._make(loss)
        self._make(action)

    def _make(self, action: Action) -> None:
        record = Record(self._clock(), action)
        if self._log is not None:
            record = self._log.append(record)
        effects = self._state.apply(record)
        self._revision += 1
        self._announce(effects)

    def _announce(self, effects: Effects) -> None:
        for owner in sorted(effects.objects):
            self.prompts_changed.emit(owner)
        for region in effects.regions:
            self.changed.emit(region)
        if effects.labels:
            self.labels_changed.emit()
        if effects.reviewed:
            self.reviewed_changed.emit()
