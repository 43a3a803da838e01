"""Which tasks tell left from right, so that their volumes must not be mirrored in training."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.experts import Expert

_SIDES = {"left", "right", "l", "r", "lh", "rh"}


def has_sides(task: Task) -> bool:
    """Return whether a label's name says left or right.

    Words count, not parts of them: ``kidney_left``, ``LeftKidney``, ``r lung`` and ``ctx-lh`` have
    sides; ``bright`` and the vertebra ``L1`` have none.
    """
    return any(_SIDES & _words(label.name) for label in task.labels)


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.split(r"[\W_]+", apart.lower()))


def may_mirror(task: Task, geometry: Geometry, expert: Expert | None) -> bool:
    """Return whether windows of a volume may be swapped left to right.

    A left kidney that is mirrored looks like a right one, but would still be taught as left.

    Parameters
    ----------
    task : Task
        Whose labels the volume has.
    geometry : Geometry
        The volume's lattice.
    expert : Expert or None
        The task's own.  One that was trained without mirroring along the volume's left-right axis
        was so for a reason, and its features and probabilities only hold for that side.
    """
    if has_sides(task):
        return False
    if expert is None:
        return True
    lateral = int(np.argmax(np.abs(geometry.affine[2, :3] / geometry.spacing)))
    own_axis = list(expert.plan.transpose).index(lateral)
    return own_axis in (expert.entry["mirroring"] or ())
