"""Prompts and their objects, undo and redo, the tools and the brush."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.objects import touches
from napari_ka2er.core.prompts import Point, Prompt, positions_of
from napari_ka2er.core.session import Session
from napari_ka2er.widgets.desk import ObjectSummary, SessionDesk
from napari_ka2er.widgets.label_edits import LabelEdits
from napari_ka2er.widgets.prompt_queue import PromptQueue
from napari_ka2er.widgets.strokes import Assigned, Limits, assigned, painted, why_nothing, written

if TYPE_CHECKING:
    from napari_ka2er.core.tools import ToolCall

T = TypeVar("T")
_CHOOSE = "choose a label in the table (keys 1–9)"
_OWN = "the layer keeps the session's labels"
_SAME = "The labels layer got another array of the same labels; it keeps the session's own."


class SessionEdits(LabelEdits):
    """What changes the mask at once, or nearly so; see `SessionBase`."""

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(viewer, parent)
        self._limits = Limits()
        self._n_tools = 0  # tools that run or wait
        self._strokes: list[tuple[list[Any], Limits, SessionDesk]] = []
        self._stroke_timer = QTimer(self, singleShot=True, interval=0)
        self._stroke_timer.timeout.connect(self._take_strokes)

    # ------------------------------------------------- prompts and objects

    def add_prompt(self, prompt: Prompt) -> None:
        """Give the chosen label's present object a prompt, which will be answered.

        Raises
        ------
        UserError
            If there is no session, the prompt lies outside the volume, or the volume is shown in
            3D, where a click has no depth.
        """
        started, label, queue = self._need(), self.label, self._queue
        lattice = started.session.volume.geometry
        if isinstance(prompt, Point):
            is_inside = lattice.contains(prompt.position_mm)
        else:
            is_inside = touches(prompt, lattice)
        kind = type(prompt).__name__.lower()
        if not is_inside:
            where = ", ".join(f"{p:.1f}" for p in positions_of(prompt)[0])
            got = f"a {kind} at ({where}) mm outside of it"
            raise UserError("a prompt inside the volume", got, "it was ignored")
        if self._viewer.dims.ndisplay == 3:
            raise UserError(f"a {kind} on a slice", "3D display", "go to 2D display: Ctrl+Y")
        if queue is not None:
            self._reveal(label)
            self._act(lambda _: queue.add_prompt(label, prompt))

    def objects(self) -> list[ObjectSummary]:
        """Return the objects that have prompts, oldest first."""
        return [] if self._desk is None else [o for o in self._desk.objects if o.prompts]

    @property
    def current_object(self) -> int | None:
        """The object that the next prompt belongs to; None if it begins a new one."""
        return None if self._queue is None else self._queue.current(self.label)

    def new_object(self) -> None:
        """Let the next prompt begin another object beside what is there already."""
        self._on_queue(
            lambda queue, label: queue.new_object(label),
            "The next prompt begins a new object; what is there stays as it is.",
        )

    def accept(self) -> None:
        """End the present object: the next prompt begins a new one."""
        self._on_queue(
            lambda queue, label: queue.accept(label), "Accepted. The next prompt begins anew."
        )

    def select_object(self, number: int) -> None:
        """Go back to an object: its label is chosen, and the next prompt belongs to it."""
        known = {thing.number: thing for thing in self.objects()}
        with self._reporting():
            if number not in known:
                raise UserError(f"one of objects {sorted(known)}", f"{number}")
            self.set_label(known[number].label)
            self._on_queue(lambda queue, _: queue.select(number), f"Object {number} goes on.")

    def delete_object(self, number: int) -> None:
        """Take an object away, with its prompts and what they made."""
        self._act(lambda session: session.delete_object(number))

    def _on_queue(self, act: Callable[[PromptQueue, int], object], text: str) -> None:
        with self._reporting():
            self._need()
            queue, label = self._queue, self.label
            if queue is not None:
                self._act(lambda _: act(queue, label), lambda _: self.told.emit(text))

    # ------------------------------------------------------------- history

    def undo(self) -> None:
        """Take back the last step, whatever made it."""
        self._act(
            lambda session: session.undo(),
            lambda done: None if done else self.told.emit("Nothing to undo."),
        )

    def redo(self) -> None:
        """Make the last undone step again."""
        self._act(
            lambda session: session.redo(),
            lambda done: None if done else self.told.emit("Nothing to redo."),
        )

    # ---------------------------------------------------- tools and brush

    def run_tool(self, call: ToolCall) -> None:
        """Let a tool change the mask, as one step."""

        def act(session: Session) -> bool:
            image = session.volume.channels[0]
            box, wanted = call.apply(session.mask, image, session.volume.geometry)
            return session.commit(session.prepare(box, wanted), "tool", call.to_json())

        with self._reporting():
            self._need()
            self._n_tools += 1
            self._act(act, self._tool_done)

    def _tool_done(self, is_changed: bool) -> None:
        self.told.emit("Done." if is_changed else "Done: nothing had to be changed.")

    def set_brush_limits(
        self, intensity_range: tuple[float, float] | None = None, only_over: int | None = None
    ) -> None:
        """Let the brush change only voxels of an intensity range, or of one label (0: none)."""
        self._limits = Limits(intensity_range, only_over)
        self._note()

    def _paint(self, atoms: list[Any]) -> None:
        """Take a stroke of the brush into the session, a moment later and before anything else.

        Outside of a drag, napari tells of a stroke before it writes it into the layer: what is
        refused would be put back too early, and come again.
        """
        if self._desk is not None:
            self._strokes.append((atoms, self._limits, self._desk))
            self._stroke_timer.start()
            self._reveal(*written(atoms))
            self._note()

    def _assigned(self, data: Any) -> None:
        """Take what something else put in place of the labels into the session, as one step."""
        desk = self._desk
        if desk is None:
            return
        with self._reporting(), _advising(_OWN):
            change = assigned(data, desk.shown)
            self._act(partial(_write_assigned, change), self.told.emit)

    def _act(self, act: Callable[[Session], T], then: Callable[[T], object] | None = None) -> None:
        self._take_strokes()  # in the order in which they were made
        super()._act(act, then)

    def _take_strokes(self) -> None:
        strokes, self._strokes = self._strokes, []
        for atoms, limits, desk in strokes:
            if desk is self._desk:
                super()._act(partial(_write_stroke, atoms, limits, desk), self._stroke_taken)

    def _stroke_taken(self, why_nothing: str) -> None:
        if why_nothing:
            self.told.emit(f"Nothing was painted: {why_nothing}.")


def _write_stroke(atoms: list[Any], limits: Limits, desk: SessionDesk, session: Session) -> str:
    """Write what a stroke may change; return why that is nothing.  For the session's thread."""
    stroke = painted(atoms, session.mask)
    if stroke is None:
        return ""
    box, wanted = stroke
    present = np.array(session.mask[box])
    with _advising(_CHOOSE), desk.painting(box, wanted):
        allowed = limits.apply(box, wanted, present, session.volume)
        is_changed = session.write(box, allowed, "brush")
    return "" if is_changed else why_nothing(present, wanted, allowed, limits, session.state)


def _write_assigned(change: Assigned, session: Session) -> str:
    """Write what another array changed; return what to tell of it.  For the session's thread."""
    present, wanted = np.array(session.mask[change.box]), change.onto(session.mask)
    with _advising(_OWN):
        is_changed = session.write(change.box, wanted, "tool", {"tool": "assign"})
    if is_changed:
        return "The labels layer got other labels: they are one step, which Undo takes back."
    why = why_nothing(present, wanted, wanted, Limits(), session.state)
    return f"The labels layer got other labels, but {why}." if why else _SAME


@contextmanager
def _advising(remedy: str) -> Iterator[None]:
    """Say what to do about what is refused, if that is not said yet."""
    try:
        yield
    except UserError as error:
        raise UserError(error.wanted, error.got, error.remedy or remedy) from error
