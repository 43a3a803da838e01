"""How sure the student is of a result, and where to look first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_ka2er.core.metrics import voxel_ml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry

    Floats = NDArray[np.float32]


def sigmoid(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Return probabilities of logits, softened by a temperature above 1."""
    scaled = np.asarray(logits, dtype=np.float32) / np.float32(temperature)
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * scaled))  # does not overflow, as exp would
    return result


def entropy_bits(p: Floats) -> Floats:
    """Return the entropy in bits of yes-or-no probabilities: 0 for certain, 1 for p = 0.5."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    result: Floats = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return result


def disagreement_bits(p: Floats, q: Floats) -> Floats:
    """Return the Jensen-Shannon divergence in bits of two yes-or-no probabilities, in [0, 1]."""
    half = np.float32(0.5)
    spread: Floats = entropy_bits((p + q) * half) - (entropy_bits(p) + entropy_bits(q)) * half
    return np.maximum(spread, 0)


def uncertainty_of(
    logits: NDArray[Any],
    other: NDArray[Any] | None = None,
    temperatures: Sequence[float] | None = None,
) -> Floats:
    """Return the uncertainty of each voxel.

    Parameters
    ----------
    logits : ndarray, shape (L, Z, Y, X)
        One label each.
    other : ndarray, shape (L, Z, Y, X), optional
        What the same student says without its experts.
    temperatures : sequence of float, optional
        Per label, from calibration; 1 where None.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        In [0, 1], of the label that is least sure.  Half the entropy plus half the disagreement
        with `other`; the entropy alone without it.
    """
    result = np.zeros(logits.shape[1:], np.float32)
    for index, scores in enumerate(logits):
        temperature = 1.0 if temperatures is None else temperatures[index]
        p = sigmoid(scores, temperature)
        value = entropy_bits(p)
        if other is not None:
            value = value + disagreement_bits(p, sigmoid(other[index], temperature))
            value *= np.float32(0.5)
        np.maximum(result, value, out=result)
    return result


def boundary_uncertainty(
    uncertainty: Floats, labels: NDArray[Any], geometry: Geometry, width_mm: float = 3.0
) -> float:
    """Return the mean uncertainty within `width_mm` of the borders of a label map.

    Returns
    -------
    float
        In [0, 1]; NaN if the label map has no border.
    """
    is_border = np.zeros(labels.shape, bool)
    for axis in range(3):
        changes = np.diff(labels.astype(np.int32), axis=axis) != 0
        first = [slice(None)] * 3
        first[axis] = slice(0, -1)
        second = [slice(None)] * 3
        second[axis] = slice(1, None)
        is_border[tuple(first)] |= changes
        is_border[tuple(second)] |= changes
    if not is_border.any():
        return float("nan")
    distance = ndimage.distance_transform_edt(~is_border, sampling=geometry.spacing)
    return float(uncertainty[distance <= width_mm].mean())


@dataclass(frozen=True, slots=True)
class UncertainRegion:
    """A connected place where the student is unsure.

    Parameters
    ----------
    position_mm : tuple of float
        World position (z, y, x) of its least sure voxel.
    box : tuple of slice
        The smallest box (Z, Y, X) around it.
    volume_ml : float
        Its size.
    mean : float
        Its mean uncertainty; regions are ranked by size times this.
    """

    position_mm: tuple[float, float, float]
    box: tuple[slice, slice, slice]
    volume_ml: float
    mean: float


def uncertain_regions(
    uncertainty: Floats, geometry: Geometry, threshold: float = 0.5, limit: int = 20
) -> list[UncertainRegion]:
    """Return the connected regions above a threshold, the most worth a look first.

    Parameters
    ----------
    uncertainty : ndarray of float32, shape (Z, Y, X)
        As `uncertainty_of` returns it.
    geometry : Geometry
        Its lattice.
    threshold : float
        Voxels above it belong to a region.
    limit : int
        How many regions to return; fewer if there are fewer.
    """
    pieces, count = ndimage.label(uncertainty > threshold)
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    sums = ndimage.sum_labels(uncertainty, pieces, numbers)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(pieces)
    found = []
    for index in np.argsort(-sums, kind="stable")[:limit]:
        z, y, x = boxes[index]
        inside = np.where(pieces[z, y, x] == index + 1, uncertainty[z, y, x], -1)
        peak = np.unravel_index(inside.argmax(), inside.shape)
        at = geometry.to_world([p + s.start for p, s in zip(peak, (z, y, x), strict=True)])
        size = int(sizes[index])
        mean = float(sums[index] / size)
        position = (float(at[0]), float(at[1]), float(at[2]))
        found.append(UncertainRegion(position, (z, y, x), size * voxel_ml(geometry), mean))
    return found
