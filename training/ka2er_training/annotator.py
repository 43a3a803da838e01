"""An annotator who corrects a student's mask through a session, as the widget's user does.

It sees the truth, but touches nothing except by the session's own commands: it clicks, looks at the
answer, takes it back if it is worse, paints what is left slice by slice, and marks what it checked.
What every deed costs is stated in `Effort` and told to the session's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ka2er_training.effort import Budget, Effort, Work, WorkClock
from ka2er_training.simulated_users import DeepestErrorUser, largest_component
from ka2er_training.strokes import stroke_through
from napari_ka2er.core.metrics import dice
from napari_ka2er.core.prompts import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ka2er_training.simulated_users import User
    from napari_ka2er.core.objects import PromptRequest
    from napari_ka2er.core.session import Session

    Mask = NDArray[np.bool_]


class Answer(Protocol):
    """What a predictor's `prompt` returns, as far as a session needs it."""

    @property
    def box(self) -> tuple[slice, ...]:
        """Where the mask may have changed."""

    @property
    def mask(self) -> Mask:
        """The mask in the box."""

    @property
    def predicted_dice(self) -> float:
        """How good the student thinks it is."""


class Annotator:
    """Corrects one case.

    Parameters
    ----------
    session : Session
        The session, begun with `clock`; the student's automatic result is in it already, if any.
    truth : ndarray of int, shape (Z, Y, X)
        The labels as they should be.
    clock : WorkClock
        The session's clock.
    budget, effort : Budget, Effort, optional
        What may be spent, and what things cost.
    """

    def __init__(
        self,
        session: Session,
        truth: NDArray[Any],
        clock: WorkClock,
        budget: Budget | None = None,
        effort: Effort | None = None,
    ) -> None:
        self._session = session
        self._truth = truth
        self._clock = clock
        self._budget = budget or Budget()
        self._effort = effort or Effort()
        self._start_s = clock.now_s
        self._objects: dict[int, int] = {}
        self._users: dict[int, User] = {}
        self.work = Work()
        self._note()

    def click(self, answer: Callable[[PromptRequest], Answer]) -> None:
        """Click the largest errors until the labels are good, the budget is spent or nothing helps.

        Parameters
        ----------
        answer : callable
            Answers a request, for example by `Predictor.prompt`.
        """
        given_up: set[int] = set()
        while self.work.n_clicks < self._budget.n_clicks:
            errors = {v: self._error_of(v) for v in self._session.task.values if v not in given_up}
            value = max(errors, key=lambda v: errors[v], default=0)
            if not value or not errors[value]:
                return
            if not self._click(value, answer):
                given_up.add(value)

    def paint(self, axis: int, slices: Sequence[int]) -> None:
        """Correct slices across an axis with the brush and mark those that became right.

        A slice that is still wrong when the budget is spent is not marked.
        """
        for index in slices:
            self._clock.spend(self._effort.slice_s)
            if self._paint(axis, index):
                self._session.review_slice(axis, index)
                self._note()

    def _click(self, value: int, answer: Callable[[PromptRequest], Answer]) -> bool:
        """Click an error of a label; return whether there was anything to click."""
        session = self._session
        mask, truth = session.mask == value, self._truth == value
        user = self._users.setdefault(value, DeepestErrorUser(session.volume.spacing))
        click = user(mask, truth)
        if click is None:
            return False
        if value not in self._objects:
            self._objects[value] = session.add_object(value)
        z, y, x = (float(c) for c in session.volume.geometry.to_world(click.voxel))
        n_wrong = np.count_nonzero(mask != truth)
        self._clock.spend(self._effort.click_s)
        session.add_prompt(self._objects[value], Point((z, y, x), click.positive))
        request = session.request(self._objects[value])
        if request is None:
            raise RuntimeError("a new prompt asks for an answer")
        found = answer(request)
        detail = {"predicted_dice": float(found.predicted_dice)}
        session.apply_result(request, found.box, found.mask, detail)
        self.work.n_clicks += 1
        if np.count_nonzero((session.mask == value) != truth) > n_wrong:
            self._take_back(value)
        self._note()
        return True

    def _take_back(self, value: int) -> None:
        self._clock.spend(self._effort.undo_s)
        self._session.undo()
        self.work.n_undone += 1
        if self._objects[value] not in self._session.state.objects:
            del self._objects[value]  # it began with this click

    def _paint(self, axis: int, index: int) -> bool:
        """Paint one slice; return whether it is right in the end."""
        geometry = self._session.volume.geometry
        while self._is_wrong(axis, index):
            if self.work.n_strokes >= self._budget.n_strokes:
                return False
            piece, value = self._largest_error(axis, index)
            region, covered, length_mm = stroke_through(piece, geometry, axis, index)
            self._clock.spend(self._effort.stroke_s + length_mm / self._effort.mm_per_s)
            labels = np.where(covered, value, self._session.mask[region])
            self._session.write(region, labels, "brush")
            self.work.n_strokes += 1
            self._note()
        return True

    def _is_wrong(self, axis: int, index: int) -> bool:
        mask, truth = (np.take(a, index, axis) for a in (self._session.mask, self._truth))
        n_label = np.count_nonzero((mask != 0) | (truth != 0))
        return bool(np.count_nonzero(mask != truth) > self._budget.content_share * n_label)

    def _largest_error(self, axis: int, index: int) -> tuple[Mask, int]:
        """Return the largest piece of a slice that should have another label, and which."""
        mask, truth = (np.take(a, index, axis) for a in (self._session.mask, self._truth))
        wanted = [int(v) for v in np.unique(truth[mask != truth])]
        pieces = [(largest_component((mask != truth) & (truth == v)), v) for v in wanted]
        return max(pieces, key=lambda piece: np.count_nonzero(piece[0]))

    def _error_of(self, value: int) -> int:
        """Return the size of a label's largest error; 0 if it is good enough."""
        mask, truth = self._session.mask == value, self._truth == value
        if not dice(truth, mask) < self._budget.content_dice:
            return 0
        return int(np.count_nonzero(largest_component(mask != truth)))

    def _note(self) -> None:
        mask = self._session.mask
        labels = self._session.task.labels
        scores = {x.name: dice(self._truth == x.value, mask == x.value) for x in labels}
        self.work.course.append((self._clock.now_s - self._start_s, scores))
