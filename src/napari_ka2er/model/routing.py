"""Which experts are worth running, and which tasks share what was run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.model.config import StudentConfig, TaskEntry


def shared_outputs(config: StudentConfig, entry: TaskEntry) -> list[int]:
    """Return the student's outputs whose tasks live on the same grid as this one."""
    return [
        output
        for other in config.tasks
        if (other.spacing_mm, other.window) == (entry.spacing_mm, entry.window)
        for output in config.outputs(other.task.name)
    ]


def choose_experts(weights: NDArray[np.floating], threshold: float) -> list[bool]:
    """Return which experts are worth running, from the weights expected of them.

    Parameters
    ----------
    weights : ndarray, shape (K+1,)
        Mean weight of each expert in a window, and last of the null expert; they sum to 1.
    threshold : float
        Experts of at least this weight run.

    Returns
    -------
    list of bool
        Per expert.  The first-ranked one always runs, unless null outweighs all experts together.
    """
    experts, null = weights[:-1], weights[-1]
    chosen = experts >= threshold
    if experts.size and null <= experts.sum():
        chosen[experts.argmax()] = True
    return [bool(c) for c in chosen]
