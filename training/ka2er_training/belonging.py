"""Whether labels belong to their image: they agree with a mask of it better than others' do.

Evidence that does not ask how good the mask is.  A poor mask of an image agrees with the right
labels poorly, but with other patients' labels even less; that order is what is looked at, so that
hard cases are not taken for wrong ones.  Arrays and lattices only; which cases are looked at is
`ka2er_training.belonging_stage`'s matter, what follows `ka2er_training.belonging_rule`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ka2er_training.belonging_rule import Fit
from napari_ka2er.core.metrics import joint_box
from napari_ka2er.core.resampling import resample
from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Labels = NDArray[Any]

# Compared on at most so many voxels per axis, so that a large CT costs no more than a small crop.
MOST_VOXELS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A label map and where it lies.

    Parameters
    ----------
    labels : ndarray of int, shape (Z, Y, X)
        What somebody, or a student, drew.
    geometry : Geometry
        Its lattice.
    ignore : int or None
        The value of voxels that nobody reviewed.
    """

    labels: Labels
    geometry: Geometry
    ignore: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every voxel was reviewed."""
        return bool(self.reviewed().all())

    def centre_mm(self) -> NDArray[np.float64] | None:
        """Return the centre of mass of all labels, (z, y, x) in RAS+ mm; None of an empty map."""
        drawn = self.drawn()
        n = int(np.count_nonzero(drawn))
        if not n:
            return None
        planes = (np.count_nonzero(drawn, axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
        return self.geometry.to_world([float(one @ np.arange(one.size)) / n for one in planes])

    def cropped(self) -> Drawn:
        """Return the box around all labels alone, in steps if large; one voxel of an empty map."""
        drawn = self.drawn()
        box = joint_box(drawn, drawn) or (slice(0, 1),) * 3
        return self.seen(tuple(_stepping(part, 2 * MOST_VOXELS) for part in box))

    def seen(self, view: tuple[slice, ...]) -> Drawn:
        """Return the part of the map in a window of its lattice, which may have steps."""
        labels = self.labels[view]
        steps = np.diag([*(float(part.step or 1) for part in view), 1.0])
        steps[:3, 3] = [part.start for part in view]
        z, y, x = labels.shape
        return Drawn(labels, Geometry((z, y, x), self.geometry.affine @ steps), self.ignore)

    def reviewed(self) -> NDArray[np.bool_]:
        """Return the voxels that somebody reviewed."""
        if self.ignore is None:
            return np.ones(self.labels.shape, bool)
        known: NDArray[np.bool_] = self.labels != self.ignore
        return known

    def drawn(self) -> NDArray[np.bool_]:
        """Return the voxels that have a label."""
        drawn: NDArray[np.bool_] = (self.labels != 0) & self.reviewed()
        return drawn


def fit_of(
    name: str, found: Drawn, own: Drawn, others: Mapping[str, Drawn], values: Sequence[int]
) -> Fit:
    """Return how well a case's labels, and others', fit a mask of its image.

    Others are moved to where they agree best: onto the mask's centre of mass, or onto the own
    labels'.  So labels of a random other case, wherever they were put, are no better than they
    are.  The own labels are not moved, but `Fit.moved` tells what moving them would give.

    Parameters
    ----------
    name : str
        Of the case.
    found : Drawn
        A student's mask of the image.
    own : Drawn
        The case's labels, on the same lattice.  Unreviewed voxels count nowhere.
    others : mapping of str to Drawn
        Other cases' labels, on any lattice.  Empty ones, and those with unreviewed voxels, tell
        nothing and are left out.
    values : sequence of int
        The task's labels.
    """
    view = _window(found, own)
    mask, drawn = found.seen(view), own.seen(view)
    measure = _Measure(mask, drawn.reviewed(), values)
    onto_mask, onto_own = found.centre_mm(), own.centre_mm() if own.is_whole else None
    agreements = {}
    for other, one in others.items():
        centre = one.centre_mm() if one.is_whole else None
        if centre is None:
            continue
        places = [place - centre for place in (onto_mask, onto_own) if place is not None]
        moves = [measure(_moved(one, by, mask.geometry)) for by in places]
        agreements[other] = max(moves, default=0.0)
    moved = None
    if onto_mask is not None and onto_own is not None:
        moved = measure(_moved(own, onto_mask - onto_own, mask.geometry))
    is_empty = own.centre_mm() is None
    is_seen = _share_seen(found, own) >= 0.5
    return Fit(name, measure(drawn.labels), agreements, moved, is_empty, is_seen)


def _share_seen(found: Drawn, own: Drawn) -> float:
    """Return which share of a mask was reviewed; 1 of an empty one."""
    reviewed = own.reviewed()[found.drawn()]
    return float(reviewed.mean()) if reviewed.size else 1.0


class _Measure:
    """How well labels agree with a mask, once the mask is as large as they are.

    The mask of each label is grown or shrunk, by the distance from its border, to as many voxels as
    the label has; then Dice is the share of them that they have in common.  Unlike plain Dice this
    does not favour small labels if the mask is too small, nor large ones if it is too large.
    """

    def __init__(self, mask: Drawn, counted: NDArray[np.bool_], values: Sequence[int]) -> None:
        self._counted = counted
        spacing = mask.geometry.spacing
        self._ranked = {value: _ranked(mask.labels == value, counted, spacing) for value in values}

    def __call__(self, labels: Labels) -> float:
        """Return the mean over labels; those that neither has are left out, 0 if none is left."""
        within, shares = labels[self._counted], []
        for value, ranked in self._ranked.items():
            inside = within == value
            n = int(np.count_nonzero(inside))
            if n and ranked is not None:
                shares.append(float(inside[ranked[:n]].mean()))
            elif n or ranked is not None:
                shares.append(0.0)
        return float(np.mean(shares)) if shares else 0.0


def _ranked(
    mask: NDArray[np.bool_], counted: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> NDArray[np.intp] | None:
    """Return the counted voxels, those deepest in a mask first; None if none of them is in it."""
    if not mask[counted].any():
        return None
    depth = -ndimage.distance_transform_edt(~mask, spacing_mm)
    if not mask.all():
        depth += ndimage.distance_transform_edt(mask, spacing_mm)
    ranked: NDArray[np.intp] = np.argsort(-depth[counted], kind="stable")
    return ranked


def _window(found: Drawn, own: Drawn) -> tuple[slice, ...]:
    """Return the part of a lattice with both maps and a quarter more, in steps if it is large."""
    shape = found.labels.shape
    box = joint_box(found.drawn(), own.drawn()) or tuple(slice(0, n) for n in shape)
    parts = []
    for part, n in zip(box, shape, strict=True):
        more = max(2, (part.stop - part.start) // 4)
        wide = slice(max(0, part.start - more), min(n, part.stop + more))
        parts.append(_stepping(wide, MOST_VOXELS))
    return tuple(parts)


def _stepping(part: slice, most: int) -> slice:
    """Return a slice in steps, so that it takes at most so many voxels."""
    return slice(part.start, part.stop, -(-(part.stop - part.start) // most))


def _moved(drawn: Drawn, by_mm: NDArray[np.float64], onto: Geometry) -> Labels:
    """Return a map moved in the world, at the nearest voxels of another lattice."""
    affine = drawn.geometry.affine.copy()
    affine[:3, 3] += by_mm
    return resample(drawn.labels, Geometry(drawn.geometry.shape, affine), onto, order=0)
