"""How a mask came about: what a package tells about each case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.actions import Edit
from napari_ka2er.core.history import toggle
from napari_ka2er.core.prompts import prompt_to_json

if TYPE_CHECKING:
    from napari_ka2er.core.session import Session
    from napari_ka2er.core.state import SessionState


def provenance(session: Session) -> dict[str, Any]:
    """Return how a session's mask came about, as plain data.

    Student and mode, all prompts of each object with their times (seconds since 1970), the voxels
    each label gained and lost since the student's last automatic result, the reviewed region, the
    statuses and the seconds spent.
    """
    state = session.state
    student = state.student and {"version": state.student.version, "mode": state.student.mode}
    names = {label.value: label.name for label in state.task.labels}
    return {
        "student": student,
        "objects": [_object(state, number) for number in sorted(state.objects)],
        "changed_voxels": changed_voxels(state),
        "reviewed": state.reviewed.to_json(),
        "statuses": {names[value]: str(status) for value, status in state.statuses.items()},
        "seconds": round(session.seconds, 3),
    }


def changed_voxels(state: SessionState) -> dict[str, dict[str, int]] | None:
    """Return how many voxels each label gained and lost since the last automatic result.

    Counted against the empty mask if there was none; None if the history no longer reaches back.
    """
    start = state.mask.copy()
    for change in state.history.newest_first():
        if isinstance(change, Edit):
            if change.source == "automatic":
                break
            toggle(start, change)
    else:
        if not state.history.is_complete:
            return None
    counts = {}
    for label in state.task.labels:
        was, is_now = start == label.value, state.mask == label.value
        gained, lost = np.count_nonzero(is_now & ~was), np.count_nonzero(was & ~is_now)
        counts[label.name] = {"gained": int(gained), "lost": int(lost)}
    return counts


def _object(state: SessionState, number: int) -> dict[str, Any]:
    prompts = state.prompts.get(number, {})
    return {
        "number": number,
        "label": state.task.label(state.objects[number].label).name,
        "corrects": state.objects[number].corrects,
        "prompts": [
            {"number": n, "time_s": state.prompt_times_s[n], **prompt_to_json(prompt)}
            for n, prompt in prompts.items()
        ],
    }
