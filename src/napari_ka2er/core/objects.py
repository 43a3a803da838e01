"""From an object's prompts to the labels in the mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.actions import Edit, PromptChange, PromptedObject
from napari_ka2er.core.boxes import overlap, union, within
from napari_ka2er.core.history import contribution
from napari_ka2er.core.prompts import Prompt, positions_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.history import History
    from napari_ka2er.core.state import SessionState
    from napari_ka2er.core.volume import Geometry

    Contribution = tuple[Region, NDArray[np.bool_], Labels]  # what `contribution` returns


@dataclass(frozen=True, slots=True, eq=False)
class PromptRequest:
    """What the mask decoder is asked for, and how to tell whether the answer is still wanted.

    Parameters
    ----------
    object : PromptedObject
        The object.
    prompts : tuple of Prompt
        All its prompts, in the order in which they were given, at least one.
    restarts : bool
        Whether the object's earlier results are to be dropped, because a prompt that made them was
        moved or deleted; otherwise the newest result is the one to improve.
    number : int
        Later requests of the session have higher numbers.
    previous : callable
        Returns the object's mask to start from, ndarray of bool, shape (Z, Y, X).  It is as large
        as the volume: the first call takes a moment, and the request keeps it for the answer.
    """

    object: PromptedObject
    prompts: tuple[Prompt, ...]
    restarts: bool
    number: int
    previous: Callable[[], NDArray[np.bool_]]


def restarts(history: History, number: int) -> bool | None:
    """Return whether an object must be computed anew, or None if its result is up to date.

    True if one of its prompts was moved or deleted since its last result, False if prompts were
    only added.
    """
    anew: bool | None = None
    for change in history.newest_first():
        if isinstance(change, Edit) and change.object_number == number:
            break
        if isinstance(change, PromptChange) and change.object_number == number:
            anew = bool(anew) or change.before is not None
    return anew


def previous_mask(
    mask: Labels, history: History, target: PromptedObject, anew: bool
) -> Callable[[], NDArray[np.bool_]]:
    """Return a function that makes the mask to start from.

    What depends on the history is taken now; comparing the whole volume with one label is left to
    the caller's thread.
    """
    found = contribution(mask, history.newest_first(), target.number)

    def compute() -> NDArray[np.bool_]:
        previous = mask == target.label if target.corrects else np.zeros(mask.shape, np.bool_)
        if found is not None:
            region, own, without = found
            if anew:
                previous[region] = target.corrects & (without == target.label)
            elif not target.corrects:
                previous[region] = own & (mask[region] == target.label)
        return previous

    return cache(compute)


def with_result(
    state: SessionState, request: PromptRequest, region: Region, result: NDArray[np.bool_]
) -> tuple[Region, Labels]:
    """Return the labels after an object's new result, and the box in which they may differ.

    Only what the decoder changed counts, so strokes made since the request stay.

    Parameters
    ----------
    state : SessionState
        The present labels and how they came about.
    request : PromptRequest
        What was asked for.
    region : tuple of slice
        Where the decoder answered.
    result : ndarray of bool
        The object in `region`; outside of it the object stays as it was before.
    """
    target, box = request.object, region
    before = request.previous()[region]
    found = None
    if request.restarts or (before & ~result).any():
        found = contribution(state.mask, state.history.newest_first(), target.number)
    if found is not None and request.restarts:
        box = union(region, found[0])
    labels = state.mask[box].copy()
    if found is not None and request.restarts:
        labels[within(found[0], box)] = found[2]
    inner = labels[within(region, box)]
    lost = before & ~result & (inner == target.label)
    inner[lost] = _underneath(state, target.label, region, found)[lost]
    inner[result & ~before] = target.label
    return box, labels


def _underneath(
    state: SessionState, label: int, region: Region, found: Contribution | None
) -> Labels:
    """Return what is left in `region` where an object loses voxels.

    It is the other label that the object itself took them from, else nothing.  A locked label
    gains none, also not its own again: those become nothing, as a leak that stays would be worse.
    """
    labels = np.zeros_like(state.mask[region])
    shared = None if found is None else overlap(found[0], region)
    if found is not None and shared is not None:
        where = within(shared, found[0])
        own, without = found[1][where], found[2][where]
        is_given_back = own & ~np.isin(without, (label, *state.locked))
        labels[within(shared, region)] = np.where(is_given_back, without, 0)
    return labels


def touches(prompt: Prompt, geometry: Geometry) -> bool:
    """Return whether any voxel lies in the index box around a prompt's positions."""
    index = geometry.to_index(positions_of(prompt))
    low, high = index.min(axis=0), index.max(axis=0)
    return bool(np.all((high >= -0.5) & (low <= np.array(geometry.shape) - 0.5)))
