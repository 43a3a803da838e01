"""What the tools need to know of what is shown and of what was painted."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Points

from napari_ka2er.core.actions import Edit
from napari_ka2er.core.editing import Index
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.tools import CopySlice


def painted_slices(session: Any, label: int, axis: int) -> tuple[int, ...]:
    """Return the slices across an axis that the brush changed a label in.

    Raises
    ------
    UserError
        If there are fewer than two.
    """
    found = set()
    for change in session.state.history.newest_first():
        if isinstance(change, Edit) and change.source == "brush" and label in change.delta.labels:
            part = change.delta.region[axis]
            if part.stop - part.start == 1:  # strokes in other planes draw no outline here
                found.add(part.start)
    if len(found) < 2:
        remedy = "paint the label's outline in two slices first"
        raise UserError("two slices that you painted on", f"{len(found)}", remedy)
    return tuple(sorted(found))


def copied_slice(session: Any, label: int, axis: int, index: int, step: int) -> CopySlice:
    """Return the call that copies a label from the slice `step` away to slice `index`.

    Raises
    ------
    UserError
        If there is no such slice.
    """
    source, n = index + step, session.volume.shape[axis]
    if not (0 <= source < n and 0 <= index < n):
        where = "before" if step < 0 else "after"
        raise UserError(f"a slice {where} this one", f"slice {index} of {n}")
    return CopySlice(label, axis, source, index)


def two_points(viewer: Any, view: Any) -> tuple[Index, Index] | tuple[()]:
    """Return the voxels of the two points that are selected in a points layer, if there are two.

    The first of them is what stays.
    """
    for layer in viewer.layers:
        if isinstance(layer, Points) and len(layer.selected_data) == 2:
            rows = sorted(layer.selected_data)
            first, second = (_voxel(layer, row, view.labels) for row in rows)
            return first, second
    return ()


def _voxel(layer: Points, row: int, labels: Any) -> Index:
    at = labels.world_to_data(layer.data_to_world(layer.data[row]))
    z, y, x = (int(i) for i in np.round(np.asarray(at)))  # as napari shows slices
    return z, y, x
