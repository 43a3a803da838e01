"""Count labels' voxels in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.metrics import voxel_ml

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.widgets.runner import IsCancelled, Job, Report

_VOXELS_AT_ONCE = 1 << 19  # counted in milliseconds, so that the window gets its turn in between


def counting(labels: NDArray[Any], lattice: Geometry, values: tuple[int, ...]) -> Job:
    """Return the job that finds the volume in ml of each label.

    Parameters
    ----------
    labels : ndarray of unsigned int, shape (Z, Y, X)
        What is on the screen.  It may be painted on meanwhile: then the job is run again anyway.
    lattice : Geometry
        Where it lies.
    values : tuple of int
        The labels.
    """

    def job(report: Report, is_cancelled: IsCancelled) -> dict[int, float]:
        counts = np.zeros(max(values) + 1, np.int64)
        n_rows = max(1, _VOXELS_AT_ONCE // max(1, labels[0].size))
        for start in range(0, len(labels), n_rows):
            if is_cancelled():
                return {}
            part = labels[start : start + n_rows].ravel()
            found = np.bincount(part[part <= max(values)], minlength=counts.size)
            counts += found[: counts.size]
        return {value: float(counts[value]) * voxel_ml(lattice) for value in values}

    return job
