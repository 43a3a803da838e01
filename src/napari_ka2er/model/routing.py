"""Which experts are worth running, and which tasks share what was run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.model.fingerprints import intensity_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def knowing_experts(config: StudentConfig, volume: dict[str, Any]) -> list[bool]:
    """Return which experts were trained on volumes whose intensities are of this volume's kind.

    A window of little but air looks alike in CT and MR, and guessed weights waver there between an
    expert of the one and one of the other; the whole volume's intensities do not.

    Parameters
    ----------
    config : StudentConfig
        An expert's kind is that of the task of the same name; without a fingerprint it is unknown.
    volume : dict
        What `napari_ka2er.model.fingerprints.fingerprint` returned.

    Returns
    -------
    list of bool
        Per expert.  All of them where the volume is of no known kind.
    """
    known = {entry.task.name: entry.intensity for entry in config.tasks}
    kinds = [known.get(expert.name) for expert in config.experts]
    knowing = [not kind or intensity_fit(kind, volume)[0] > 0 for kind in kinds]
    return knowing if any(knowing) else [True] * len(knowing)


def choose_experts(
    weights: NDArray[np.floating], threshold: float, knowing: Sequence[bool]
) -> list[bool]:
    """Return which experts are worth running, from the weights expected of them.

    Experts of other kinds of images run as well if their weight is large enough.  To leave them
    out halves the cost of a chest and changed nothing on training volumes (mean Dice .922), but on
    a held-out chest in a wide field of air the lung expert alone took air for lung (.89 for .94).

    Parameters
    ----------
    weights : ndarray, shape (K+1,)
        Mean weight of each expert in a window, and last of the null expert; they sum to 1.
    threshold : float
        Experts of at least this weight run.
    knowing : sequence of bool
        Per expert, whether it knows this kind of volume; see `knowing_experts`.

    Returns
    -------
    list of bool
        Per expert.  The first-ranked one of those that know always runs, unless null outweighs all
        experts together.
    """
    experts, null = weights[:-1], weights[-1]
    chosen = experts >= threshold
    if any(knowing) and null <= experts.sum():
        chosen[np.where(knowing, experts, -1.0).argmax()] = True
    return [bool(c) for c in chosen]
