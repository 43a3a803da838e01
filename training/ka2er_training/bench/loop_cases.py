"""Which cases the loop starts with, which it is judged on, and which it corrects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ka2er_training.bench.splits import patient_of, split_cases
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ka2er_training.bench.settings import TaskSettings


@dataclass(frozen=True, slots=True)
class LoopCases:
    """Case names of one task, in the order of the patients' hashes; no patient is in two of them.

    Parameters
    ----------
    start : tuple of str
        Labelled from the beginning.
    holdout : tuple of str
        Never trained on.
    new : tuple of str
        Without labels until somebody corrects them.
    """

    start: tuple[str, ...]
    holdout: tuple[str, ...]
    new: tuple[str, ...]


def loop_cases(names: Sequence[str], settings: TaskSettings, n_start: int) -> LoopCases:
    """Return a task's cases.

    Raises
    ------
    UserError
        If there are fewer cases to train on than `n_start`.
    """
    split = split_cases(names, settings)
    if len(split.train) < n_start:
        raise UserError(f"{n_start} cases of {settings.name} to start with", f"{len(split.train)}")
    start = split.train[:n_start]
    known = {patient_of(name, settings) for name in start}
    new = tuple(n for n in split.train[n_start:] if patient_of(n, settings) not in known)
    return LoopCases(start, split.test, new)


def for_round(new: Sequence[str], number: int, size: int) -> tuple[str, ...]:
    """Return the new cases of round 1, 2 …; each case comes once.

    Raises
    ------
    UserError
        If there are not enough.
    """
    chosen = tuple(new[(number - 1) * size : number * size])
    if len(chosen) < size:
        raise UserError(f"{size} new cases in round {number}", f"{len(chosen)}")
    return chosen
