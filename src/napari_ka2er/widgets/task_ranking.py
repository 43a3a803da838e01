"""Which of a student's tasks fit a volume: guessed at once, tried when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.fingerprints import fingerprint
from napari_ka2er.model.ranking import TaskFit, guess
from napari_ka2er.widgets.file_work import FileWork
from napari_ka2er.widgets.layers import MOST_VOXELS, Source, key_of, source_of
from napari_ka2er.widgets.services import Choice, Services

if TYPE_CHECKING:
    from napari_ka2er.core.student_card import StudentCard
    from napari_ka2er.widgets.runner import IsCancelled, Job, Report

RANKING = "ranking"


@dataclass(frozen=True, slots=True)
class Ranked:
    """How well tasks fit, best first, after the student tried them."""

    key: tuple[Any, ...]
    fits: tuple[TaskFit, ...]


class TaskRanking(FileWork):
    """Tells which tasks fit a volume; see `SessionBase`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fits: dict[tuple[Any, ...], tuple[TaskFit, ...]] = {}

    @property
    def is_long(self) -> bool:
        """Whether something runs that a click must wait for."""
        return super().is_long or self._work == RANKING

    def task_fits(self, layer: Any, card: StudentCard) -> Sequence[TaskFit]:
        """Return how well a student's tasks fit the volume in a layer, as far as known by now.

        First by intensities and field of view, read in the background, of which `changed` tells;
        then by what the student found, if it was asked with `rank_tasks`.
        """
        key = _key(layer, card.folder)
        if key not in self._fits:
            self._fits[key] = ()
            try:
                source = source_of(layer)
            except UserError:
                return ()
            if prod(source.data.shape) <= MOST_VOXELS:
                self._scan(lambda: guessed(source, card), lambda found: self._guessed(key, found))
        return self._fits[key]

    def rank_tasks(self, layer: Any, choice: Choice) -> None:
        """Let the student try the tasks that may fit the volume in a layer, and say what it found.

        The volume stays encoded: segmenting a task that was tried is quick afterwards.
        """
        with self._reporting():
            source, key = source_of(layer), _key(layer, choice.student)
            self._submit(RANKING, trying(source, choice, self._services, key))

    def _guessed(self, key: tuple[Any, ...], found: tuple[TaskFit, ...]) -> None:
        self._fits[key] = self._fits.get(key) or found  # what was tried is worth more
        self._note()

    def _take(self, result: object) -> None:
        if isinstance(result, Ranked):
            self._fits[result.key] = result.fits
            self.told.emit(verdict(result.fits))
        super()._take(result)


def guessed(source: Source, card: StudentCard) -> tuple[TaskFit, ...]:
    """Return how well tasks fit a volume by their fingerprints; reads its voxels."""
    if not any(card.fingerprints.values()):
        return ()
    return tuple(guess(card.fingerprints, fingerprint(source.read())))


def trying(source: Source, choice: Choice, services: Services, key: tuple[Any, ...]) -> Job:
    """Return the job that lets the student try the tasks."""

    def job(report: Report, is_cancelled: IsCancelled) -> Ranked:
        report(0.0, "loading the student")
        services.begin(choice)  # loads while the volume is read
        service = services.ready(choice, source.read(), lambda share, what: None, is_cancelled)
        return Ranked(key, tuple(service.rank_tasks(report, is_cancelled)))

    return job


def verdict(fits: Sequence[TaskFit]) -> str:
    """Return in a line which tasks fit."""
    taken = [fit.task for fit in fits if fit.taken]
    if not taken:
        return (
            "No task of this student fits this volume; a result would be wrong. "
            "Choose another student, or Start and prompt."
        )
    return f"{' and '.join(taken)} fit{'s' * (len(taken) == 1)} this volume."


def _key(layer: Any, student: Any) -> tuple[Any, ...]:
    return key_of(layer), student
