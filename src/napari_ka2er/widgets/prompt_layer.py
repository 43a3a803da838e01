"""A layer of ours and the prompts of a session, kept alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Position, Prompt, positions_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_ka2er.core.volume import Geometry

Kind = TypeVar("Kind", bound=Prompt)
PAUSE_MS = 50  # how soon to look again whether a shape that is being drawn is done


@dataclass(frozen=True, slots=True)
class PromptEdits:
    """What a layer may ask for; each may raise `UserError` to refuse it."""

    add: Callable[[Prompt], object]
    move: Callable[[int, Prompt], object]
    delete: Callable[[int], object]


class PromptLayer(QObject):
    """Takes what the user does to a layer into a session, and shows the session's prompts.

    The session decides: after each change the layer is drawn from it again, a moment later, since
    napari is still busy with the layer while it tells of a change.

    Parameters
    ----------
    layer : Points or Shapes
        In the volume's voxels.
    lattice : Geometry
        The volume's.
    edits : PromptEdits
        Called for what the user did.

    Signals
    -------
    failed(Exception)
        Why something was refused.
    """

    failed = Signal(object)
    kinds: tuple[type[Prompt], ...] = ()

    def __init__(
        self, layer: Any, lattice: Geometry, edits: PromptEdits, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.layer, self.lattice, self._edits = layer, lattice, edits
        self._rows: list[int | None] = []  # the layer's rows as numbers of prompts
        self._wanted: dict[int, Prompt] = {}
        self._is_drawing = False
        self._is_positive = True
        self._timer = QTimer(self, singleShot=True)
        self._timer.timeout.connect(self._draw)
        layer.events.data.connect(self._take)
        layer.events.features.connect(self._pasted)

    def close(self) -> None:
        """Stop listening."""
        self._timer.stop()
        self.layer.events.data.disconnect(self._take)
        self.layer.events.features.disconnect(self._pasted)

    @property
    def is_positive(self) -> bool:
        """Whether the next prompt belongs to the object."""
        return self._is_positive

    def set_positive(self, is_positive: bool) -> None:
        """Let the next prompts belong to the object, or not."""
        self._is_positive = is_positive
        self._style_next()

    def show(self, prompts: Iterable[tuple[int, Prompt]]) -> None:
        """Show these prompts, by their numbers, a moment later."""
        self._wanted = {n: prompt for n, prompt in prompts if isinstance(prompt, self.kinds)}
        self._timer.start(0)

    # ----------------------------------------------------- of each layer

    def _prompt_at(self, row: int, positive: bool) -> Prompt:
        """Return the prompt that a row of the layer is; raises `UserError` if it is none."""
        raise NotImplementedError

    def _fill(self, prompts: Sequence[Prompt]) -> None:
        """Make these prompts the layer's rows."""
        raise NotImplementedError

    def _style_next(self) -> None:
        """Give what is drawn next the look of its sign."""
        raise NotImplementedError

    # --------------------------------------------------------------- draw

    def _draw(self) -> None:
        if self._has_new():
            if getattr(self.layer, "_is_creating", False):  # one is being drawn at this moment
                self._timer.start(PAUSE_MS)
            else:
                self._take_added()
            return
        if self._is_as_wanted():
            return
        self._is_drawing = True
        try:
            self.layer.selected_data = set()
            self._fill(list(self._wanted.values()))
        finally:
            self._is_drawing = False
        self._rows = list(self._wanted)
        self._style_next()

    def _has_new(self) -> bool:
        return len(self.layer.data) > len(self._rows)

    def _pasted(self, event: Any = None) -> None:
        """Look soon whether there is more than napari has told of: it tells of nothing pasted."""
        if self._has_new() and not self._is_drawing:
            self._timer.start(0)

    def _is_as_wanted(self) -> bool:
        if self._rows != list(self._wanted):
            return False
        pairs = zip(range(len(self._rows)), self._wanted.values(), strict=True)
        try:
            return all(is_same(self._prompt_at(row, p.positive), p) for row, p in pairs)
        except UserError:
            return False

    # --------------------------------------------------------------- take

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
            self._timer.start(0)

    def _take_added(self) -> None:
        new = range(len(self._rows), len(self.layer.data))
        self._rows += [None] * len(new)  # until the session has them, or to be drawn away
        for row in new:
            try:
                self._edits.add(self._prompt_at(row, self._is_positive))
            except UserError as error:  # of one; the others are taken
                self.failed.emit(error)
                self._timer.start(0)

    def _take_removed(self, rows: list[int]) -> None:
        gone = [self._rows[row] for row in rows if row < len(self._rows)]
        self._rows = [number for row, number in enumerate(self._rows) if row not in set(rows)]
        for number in gone:
            if number is not None:
                self._edits.delete(number)

    def _take_moved(self) -> None:
        for row, number in enumerate(self._rows):
            before = self._wanted.get(-1 if number is None else number)
            if number is None or before is None or row >= len(self.layer.data):
                continue
            moved = self._prompt_at(row, before.positive)
            if not is_same(moved, before):
                self._wanted[number] = moved  # napari may tell of one move twice
                self._edits.move(number, moved)

    def _world(self, index: ArrayLike) -> tuple[Position, ...]:
        """Return world positions of voxels, shape (N, 3)."""
        return tuple(
            (float(z), float(y), float(x))
            for z, y, x in self.lattice.to_world(index).reshape(-1, 3)
        )

    def _index(self, prompt: Prompt) -> NDArray[np.float64]:
        """Return a prompt's positions in voxels, shape (N, 3)."""
        return self.lattice.to_index(positions_of(prompt))


def is_same(first: Prompt, second: Prompt) -> bool:
    """Return whether two prompts are alike but for rounding."""
    a, b = np.array(positions_of(first)), np.array(positions_of(second))
    return (
        type(first) is type(second)
        and first.positive == second.positive
        and a.shape == b.shape
        and bool(np.allclose(a, b, atol=1e-4))
    )
