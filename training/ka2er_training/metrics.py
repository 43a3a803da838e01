"""Dice, surface Dice and Hausdorff distance of one label in one case, at native spacing.

The surface metrics are MONAI's; what is decided here is which voxels they see and what an empty
mask is worth.  MONAI returns NaN for the Hausdorff distance to an empty prediction, and a mean over
the other cases would then reward a system for finding nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice

from napari_ka2er.core.metrics import dice, joint_box, volumes_ml

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Geometry

# A surface may lie this many voxels (of the finest axis) beside the other and still agree.
TOLERANCE_VOXELS = 2.0

Status = Literal["scored", "missed", "invented", "absent"]


@dataclass(frozen=True, slots=True)
class Scores:
    """How well one label of one case was found.

    Parameters
    ----------
    status : str
        ``scored``: both masks hold voxels.  ``missed``: nothing was predicted, ``invented``:
        nothing should have been; both count as Dice 0, NSD 0, HD95 the volume's diagonal.
        ``absent``: both are empty; such a case is left out of means, and counted.
    dice, nsd : float or None
        In [0, 1]; None if absent.
    hd95_mm : float or None
        95th percentile of the symmetric surface distance; None if absent.  Like `nsd` also None
        where surfaces were not measured.
    tolerance_mm : float
        Distance up to which surfaces agree, for `nsd`.
    gt_ml, pred_ml : float
        Volumes of the masks.
    """

    status: Status
    dice: float | None
    nsd: float | None
    hd95_mm: float | None
    tolerance_mm: float
    gt_ml: float
    pred_ml: float

    def to_json(self) -> dict[str, Any]:
        """Return plain data; `Scores(**data)` builds it again."""
        return asdict(self)


def default_tolerance_mm(geometry: Geometry) -> float:
    """Return two voxels of the finest axis: the stricter choice on anisotropic volumes."""
    return TOLERANCE_VOXELS * min(geometry.spacing)


def diagonal_mm(geometry: Geometry) -> float:
    """Return the length of the whole volume's diagonal: the worst distance two masks can have."""
    return float(np.linalg.norm(geometry.extent_mm))


def surface_scores(
    gt: NDArray[np.bool_],
    pred: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> tuple[float, float]:
    """Return the surface Dice (NSD) and the 95th percentile Hausdorff distance in mm.

    Parameters
    ----------
    gt, pred : ndarray of bool, shape (Z, Y, X)
        Neither empty.
    spacing_mm : tuple of float
        Distance between voxel centres along (Z, Y, X).
    tolerance_mm : float
        Distances up to this count as agreement.

    Raises
    ------
    ValueError
        If a mask is empty.
    """
    if not (gt.any() and pred.any()):
        raise ValueError("surface distances need two masks that hold voxels")
    box = joint_box(gt, pred)
    # One empty voxel around: where a mask touches the volume's border, the border is its surface.
    pred_one, gt_one = (
        torch.from_numpy(np.pad(mask[box], 1))[None, None].float() for mask in (pred, gt)
    )
    spacing = list(spacing_mm)
    with warnings.catch_warnings():  # MONAI 1.6 deprecates an argument that it passes by itself
        warnings.simplefilter("ignore", FutureWarning)
        nsd = compute_surface_dice(
            pred_one, gt_one, [tolerance_mm], True, spacing=spacing, use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(pred_one, gt_one, True, percentile=95, spacing=spacing)
    return float(nsd), float(hd95)


def score_label(
    gt: NDArray[Any],
    pred: NDArray[Any],
    geometry: Geometry,
    tolerance_mm: float | None = None,
    *,
    surfaces: bool = True,
) -> Scores:
    """Return the scores of one label.

    Parameters
    ----------
    gt, pred : ndarray, shape (Z, Y, X)
        Masks, non-zero inside the object, on the lattice of the label file.
    geometry : Geometry
        That lattice.  Distances use its spacing, so that shear (rare) is not accounted for.
    tolerance_mm : float, optional
        For the surface Dice; two voxels of the finest axis by default.
    surfaces : bool
        Whether NSD and HD95 are measured too.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    if not gt.shape == pred.shape == geometry.shape:
        raise ValueError(f"masks of shape {geometry.shape} wanted, got {gt.shape} and {pred.shape}")
    tolerance = default_tolerance_mm(geometry) if tolerance_mm is None else tolerance_mm
    gt, pred = gt != 0, pred != 0
    ml = [volumes_ml(mask, geometry, (True,))[True] for mask in (gt, pred)]
    status = _status(bool(gt.any()), bool(pred.any()))
    if status == "absent":
        return Scores(status, None, None, None, tolerance, *ml)
    if not surfaces:
        overlap = dice(gt, pred) if status == "scored" else 0.0
        return Scores(status, overlap, None, None, tolerance, *ml)
    if status != "scored":
        return Scores(status, 0.0, 0.0, diagonal_mm(geometry), tolerance, *ml)
    nsd, hd95 = surface_scores(gt, pred, geometry.spacing, tolerance)
    return Scores(status, dice(gt, pred), nsd, hd95, tolerance, *ml)


def score_case(
    gt: NDArray[Any],
    pred: NDArray[Any],
    geometry: Geometry,
    task: Task,
    *,
    surfaces: bool = True,
) -> dict[str, Scores]:
    """Return the scores of every label of a task, by label name; label maps of shape (Z, Y, X)."""
    return {
        label.name: score_label(gt == label.value, pred == label.value, geometry, surfaces=surfaces)
        for label in task.labels
    }


def _status(has_gt: bool, has_pred: bool) -> Status:
    """Name the case by which masks hold voxels."""
    if has_gt:
        return "scored" if has_pred else "missed"
    return "invented" if has_pred else "absent"
