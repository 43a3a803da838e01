"""An edit that is compared and packed in one thread and made in another, a moment later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.edits import Delta
    from napari_ka2er.core.history import Steps


@dataclass(frozen=True, slots=True, eq=False)
class PreparedEdit:
    """Labels wanted in a region, compared and packed against the mask as it was at `revision`.

    Parameters
    ----------
    revision : int
        Number of actions that had been made.
    region : tuple of slice
        Where.
    values : ndarray of int or bool, shape (Z, Y, X)
        The labels that are wanted there.
    delta : Delta
        What they change.
    since : tuple of Step, optional
        The steps that the labels were made from: what was drawn after them stays as it is.
    """

    revision: int
    region: Region
    values: NDArray[Any]
    delta: Delta
    since: Steps | None = None
