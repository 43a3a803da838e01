"""Strokes of napari's brush, bucket and polygon, as labels wanted in a box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.boxes import Region, explicit, is_empty, union, within
from napari_ka2er.core.brush import limit
from napari_ka2er.core.edits import box_of
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.state import SessionState
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume


@dataclass(frozen=True, slots=True)
class Limits:
    """What a brush may change.

    Parameters
    ----------
    intensity_range : tuple of float, optional
        Lowest and highest intensity of the image that may change, both included.
    only_over : int, optional
        The only label (0: background) that may be painted over.
    """

    intensity_range: tuple[float, float] | None = None
    only_over: int | None = None

    def __bool__(self) -> bool:
        return self.intensity_range is not None or self.only_over is not None

    def apply(self, box: Region, wanted: Labels, present: Labels, volume: Volume) -> NDArray[Any]:
        """Return the labels wanted in a box, as they are where they may not change."""
        if not self:
            return wanted
        image = volume.channels[0][box]
        return limit(
            wanted,
            present,
            image=image,
            intensity_range=self.intensity_range,
            only_over=self.only_over,
        )

    def describe(self, task: Task) -> str:
        """Return in a few words what the brush may change."""
        parts = []
        if self.intensity_range is not None:
            low, high = self.intensity_range
            parts.append(f"intensities {low:g} to {high:g}")
        if self.only_over is not None:
            is_label = self.only_over in task.values
            parts.append(task.label(self.only_over).name if is_label else "the background")
        return " and ".join(parts)


def why_nothing(
    present: Labels, wanted: Labels, allowed: NDArray[Any], limits: Limits, state: SessionState
) -> str:
    """Return why a stroke changed nothing, or nothing if it wanted nothing else.

    Parameters
    ----------
    present, wanted, allowed : ndarray of unsigned int, shape (Z, Y, X)
        The labels in its box before it, as it painted them, and within the limits.
    limits : Limits
        What the brush may change.
    state : SessionState
        Which labels are locked.
    """
    changed = wanted != present
    if not changed.any():
        return ""
    if np.array_equal(allowed, present):
        return f"the brush is limited to {limits.describe(state.task)}"
    touched = set(np.unique(present[changed])) | set(np.unique(wanted[changed]))
    names = [state.task.label(value).name for value in sorted(state.locked & touched)]
    return f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} locked"


def written(atoms: Iterable[Any]) -> set[int]:
    """Return the values that a stroke painted; see `painted`."""
    values = (atom.new_value if hasattr(atom, "new_value") else atom[2] for atom in atoms)
    return {int(value) for part in values for value in np.unique(part)}


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """Labels that something else than a brush put in place of those on the screen.

    Parameters
    ----------
    box : tuple of slice
        Where they differ; empty if they do not.
    values : ndarray of int or bool, shape (Z, Y, X)
        The labels there.
    differs : ndarray of bool, shape (Z, Y, X)
        Which of them differ.
    """

    box: Region
    values: NDArray[Any]
    differs: NDArray[np.bool_]

    def onto(self, mask: Labels) -> NDArray[Any]:
        """Return the labels wanted in the box of a mask."""
        wanted = mask[self.box].astype(np.promote_types(mask.dtype, self.values.dtype))
        wanted[self.differs] = self.values[self.differs]
        return wanted


def assigned(data: Any, shown: Labels) -> Assigned:
    """Return what an array changes that took the place of the labels on the screen.

    Raises
    ------
    UserError
        If it is of another shape.
    """
    values = np.asarray(data)
    if values.shape != shown.shape:
        raise UserError(f"labels of shape {shown.shape}", f"{values.shape}")
    differs = values != shown
    box = box_of(differs.view(np.uint8), 1)
    return Assigned(box, np.array(values[box]), differs[box])


def painted(atoms: Iterable[Any], mask: Labels) -> tuple[Region, NDArray[Any]] | None:
    """Return the box of a stroke and the labels wanted there, or None if there are none.

    Only the voxels of the stroke itself differ from `mask`: what else changed on the screen while
    the mouse was down stays out.

    Parameters
    ----------
    atoms : iterable
        The value of napari's event `paint`: boxes with masks since 0.8, lists of voxels before.
    mask : ndarray of unsigned int, shape (Z, Y, X)
        The labels that the stroke was made on.
    """
    pieces = [_piece(atom, mask.shape) for atom in atoms]
    boxes = [box for box, _, _ in pieces if not is_empty(box)]
    if not boxes:
        return None
    total = reduce(union, boxes)
    values = [np.max(value, initial=0) for _, _, value in pieces]
    wide = np.promote_types(mask.dtype, np.min_scalar_type(int(max(values))))
    wanted = mask[total].astype(wide)
    for box, covered, value in pieces:
        if not is_empty(box):
            wanted[within(box, total)][covered] = value
    return total, wanted


def paint_again(atoms: Iterable[Any], shown: Labels) -> None:
    """Put a stroke that is under way back over what was drawn on it meanwhile.

    Parameters
    ----------
    atoms : iterable
        What napari has kept of the stroke; see `painted`.
    shown : ndarray of unsigned int, shape (Z, Y, X)
        The labels on the screen; changed in place.
    """
    for box, covered, value in (_piece(atom, shown.shape) for atom in atoms):
        if not is_empty(box):
            shown[box][covered] = value


def _piece(atom: Any, shape: tuple[int, ...]) -> tuple[Region, Any, Any]:
    """Return a box, an index into it, and the value or values that go there."""
    z, y, x = shape
    if hasattr(atom, "slice_key"):
        keys = tuple(k if isinstance(k, slice) else slice(k, k + 1) for k in atom.slice_key)
        return (
            explicit(keys, (z, y, x)),
            atom.mask if atom.mask is not None else ...,
            atom.new_value,
        )
    axes = np.broadcast_arrays(*(np.atleast_1d(axis) for axis in atom[0]))
    if not axes[0].size:
        return (slice(0, 0),) * 3, ..., 0
    starts = [int(axis.min()) for axis in axes]
    stops = [int(axis.max()) + 1 for axis in axes]
    boxes = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
    inner = tuple(axis - start for axis, start in zip(axes, starts, strict=True))
    return explicit(boxes, (z, y, x)), inner, atom[2]
