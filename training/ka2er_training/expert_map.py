"""How much a student trusts each expert, per task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ka2er_training.scoring import CaseResult, System

NULL = "null"


def mean_weights(system: System, results: Iterable[CaseResult]) -> dict[str, dict[str, float]]:
    """Return each expert's mean weight where a task's labels are found, over evaluated cases.

    Parameters
    ----------
    system : System
        The student.
    results : iterable of CaseResult
        What it found; nothing is predicted for this.

    Returns
    -------
    dict of str to dict of str to float
        Per task with cases, per expert, and ``"null"`` for the null expert; they sum to 1.  Empty
        for a student without amalgamation.
    """
    by_task: dict[str, list[tuple[float, ...]]] = {}
    for result in results:
        if result.weights is not None:
            by_task.setdefault(result.case.task.name, []).append(result.weights)
    names = [*system.experts, NULL]
    return {
        task: dict(zip(names, map(float, np.mean(weights, axis=0)), strict=True))
        for task, weights in by_task.items()
    }
