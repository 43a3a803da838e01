"""Which tasks to carry out on a volume: those that were named, or all that fit it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from napari_ka2er.model.fingerprints import fingerprint
from napari_ka2er.model.ranking import TAKEN_FROM, TaskFit, prior_fit, taken_or_refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ka2er.model.predictor import Predictor

logger = logging.getLogger(__name__)


def fits_of(
    predictor: Predictor,
    name: str,
    tasks: Sequence[str],
    progress: Callable[[float, str], None] | None,
) -> tuple[list[TaskFit], int]:
    """Return the tasks to carry out, and why; and how many windows were encoded to find them.

    Parameters
    ----------
    predictor : Predictor
        With the volume, called `name`.
    name : str
        For warnings.
    tasks : sequence of str
        Those that somebody named; empty lets the student try all that may fit.
    progress : callable, optional
        Called with the share that is done and what is being done.

    Raises
    ------
    UserError
        If none is named and none fits.
    """
    if tasks:
        return _named(predictor, name, tasks), 0
    n_windows = 0

    def count(share: float, what: str) -> None:
        nonlocal n_windows
        n_windows += share < 1  # told before each window, and once when all are encoded
        if progress is not None:
            progress(share, what)

    fits = predictor.rank_tasks(progress=count)
    return taken_or_refuse(fits, predictor.volume.name), n_windows


def _named(predictor: Predictor, name: str, tasks: Sequence[str]) -> list[TaskFit]:
    """Return tasks that somebody named, with a warning of each that the volume is not like."""
    seen = fingerprint(predictor.volume)
    fits = []
    for task in tasks:
        score, reason = prior_fit(predictor.entry(task), seen)
        why = "named" if score >= TAKEN_FROM else f"named, but {reason}"
        if score < TAKEN_FROM:
            logger.warning("%s: %s was %s", name, task, why)
        fits.append(TaskFit(task, score, why, taken=True))
    return fits
