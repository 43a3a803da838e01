"""A session at work in a thread of its own, and the copy of its mask that is on the screen.

Writing to disk, packing boxes and copying large regions would stop the window.  So the session is
changed in one worker thread, action after action; the window only hands in what to do and is told
what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.prompts import Prompt
from napari_ka2er.core.session import Session
from napari_ka2er.widgets.runner import Worker

if TYPE_CHECKING:
    from napari_ka2er.core.edits import Labels

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """An object as the window knows it: its number, its label and its prompts by number."""

    number: int
    label: int
    corrects: bool = True
    prompts: Mapping[int, Prompt] = field(default_factory=dict)


class SessionDesk(Worker):
    """Changes a session, one action after the other.

    Parameters
    ----------
    session : Session
        From now on nobody else may change it; its mask is to be read here only, with `ask`.
    shown : ndarray of unsigned int, shape (Z, Y, X)
        A copy of its mask, which is kept alike and may be painted on.

    Signals
    -------
    drawn(region)
        `shown` changed in this box.
    replaced()
        `shown` is another, wider array.
    prompts_changed(), labels_changed(), reviewed_changed()
        Likewise of the session; `objects` is up to date then.
    """

    drawn = Signal(object)
    replaced = Signal()
    prompts_changed = Signal()
    labels_changed = Signal()
    reviewed_changed = Signal()

    def __init__(self, session: Session, shown: Labels, parent: QObject | None = None) -> None:
        super().__init__("session", parent)
        self.session = session
        self.shown = shown
        self.objects: tuple[ObjectSummary, ...] = ()
        self.n_drawn = 0  # how often `shown` changed
        self._is_on_screen = False  # whether what is written was painted there before
        self._note_objects()
        session.changed.connect(self._draw)
        session.prompts_changed.connect(self._prompts_changed)
        session.labels_changed.connect(self._labels_changed)
        session.reviewed_changed.connect(self._reviewed_changed)

    def act(self, act: Callable[[Session], T], then: Callable[[T], None] | None = None) -> None:
        """Let something be done to the session; see `Worker.do`."""
        self.do(lambda: act(self.session), then)

    def redraw(self, region: tuple[slice, ...]) -> None:
        """Make a box of `shown` as the mask is; for the worker's own thread."""
        self._draw(region)

    @contextmanager
    def painting(self, region: tuple[slice, ...], painted: Labels) -> Iterator[None]:
        """Let something be written that the screen shows already; for the worker's own thread.

        What was refused is put back at the end, and nothing else: the next stroke may be on the
        screen by then, and in the session a moment later.

        Parameters
        ----------
        region : tuple of slice
            Where it was painted.
        painted : ndarray of unsigned int, shape (Z, Y, X)
            The labels of the region, once it is written as it was painted.
        """
        before = np.array(self.session.mask[region])
        self._is_on_screen = True
        try:
            yield
        finally:
            self._is_on_screen = False
            self._put_back(region, before, painted)

    def leave(self) -> None:
        """Stop listening, do what waits, and let others open the session."""
        session = self.session
        self.close(last=session.close)
        session.changed.disconnect(self._draw)
        session.prompts_changed.disconnect(self._prompts_changed)
        session.labels_changed.disconnect(self._labels_changed)
        session.reviewed_changed.disconnect(self._reviewed_changed)

    # ------------------------------------------- in the worker's thread

    def _draw(self, region: tuple[slice, ...]) -> None:
        mask = self.session.mask
        self.n_drawn += 1
        if mask.dtype == self.shown.dtype and not self._is_on_screen:
            np.copyto(self.shown[region], mask[region])
            self._tell(self.drawn, region)

    def _put_back(self, region: tuple[slice, ...], before: Labels, painted: Labels) -> None:
        """Draw where a stroke was refused, or drawn over before it was written."""
        mask, shown = self.session.mask[region], self.shown[region]
        is_old = (shown == before) | (mask != painted)
        is_old &= shown != mask
        if mask.dtype == shown.dtype and is_old.any():
            np.copyto(shown, mask, where=is_old)
            self._tell(self.drawn, region)

    def _labels_changed(self) -> None:
        mask = self.session.mask
        if mask.dtype != self.shown.dtype:
            self.shown = np.array(mask)
            self._tell(self.replaced)
        self._tell(self.labels_changed)

    def _prompts_changed(self, number: int) -> None:
        self._note_objects()
        self._tell(self.prompts_changed)

    def _reviewed_changed(self) -> None:
        self._tell(self.reviewed_changed)

    def _note_objects(self) -> None:
        session = self.session
        self.objects = tuple(
            ObjectSummary(
                number, thing.label, thing.corrects, MappingProxyType(session.prompts(number))
            )
            for number, thing in sorted(session.state.objects.items())
        )

    def _tell(self, signal: object, *values: object) -> None:
        if not self._is_closed:  # the Qt object may be gone
            signal.emit(*values)  # type: ignore[attr-defined]
