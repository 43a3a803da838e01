"""How sure a predictor is of a result, and whom it trusted: what is asked with a segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.model.config import StudentConfig
    from napari_ka2er.model.filling import Cancelled, Progress
    from napari_ka2er.model.predictor import Predictor
    from napari_ka2er.model.segmentation import Segmentation


def uncertainty_map(
    predictor: Predictor,
    result: Segmentation,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> NDArray[np.float32]:
    """Return the uncertainty of each voxel, in [0, 1], shape (Z, Y, X).

    Beside a student with experts, the student without them is asked too: where they disagree,
    neither is to be trusted.

    Parameters
    ----------
    predictor : Predictor
        Whose result it is.
    result : Segmentation
        Of its volume, in its mode.
    progress, cancelled : callable, optional
        As in `Predictor.segment`.
    """
    if predictor.mode == "distilled":
        return result.uncertainty()
    other = predictor.segment(
        result.task.name, mode="distilled", progress=progress, cancelled=cancelled
    )
    return result.uncertainty(other)


def expert_names(config: StudentConfig) -> tuple[str, ...]:
    """Return whom the channels of an expert map belong to; "null", last, is no expert at all."""
    if config.amalgamation == "none":
        return ("null",)
    return (*(entry.name for entry in config.experts), "null")
