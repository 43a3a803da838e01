"""What the student answers, as plain data: it travels between processes, and needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region


@dataclass(frozen=True, slots=True, eq=False)
class PromptResult:
    """How the mask changes.

    Parameters
    ----------
    box : tuple of slice
        The smallest box (Z, Y, X) of image voxels with every change; empty if nothing changes.
    mask : ndarray of bool
        The new mask in the box.
    predicted_dice : float
        How good the student thinks the mask is, in [0, 1].
    seconds : float
        Time it took, without the encoding of tiles that were not filled yet.
    n_windows : int
        How many windows had to be encoded first.
    roi : tuple of slice
        The region of the student's grid that was decoded.
    """

    box: Region
    mask: NDArray[np.bool_]
    predicted_dice: float
    seconds: float
    n_windows: int
    roi: Region


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationAnswer:
    """The automatic result of a task.

    Parameters
    ----------
    labels : ndarray of uint8 or uint16, shape (Z, Y, X)
        The label map, 0 where no label reaches a probability of a half.
    seconds : float
        Time it took the student.
    n_windows : int
        Windows that were encoded for it; the others came from the cache.
    volumes_ml : mapping of str to float
        Size of each label in millilitres, by name.
    """

    labels: NDArray[Any]
    seconds: float
    n_windows: int
    volumes_ml: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the model's process has used so far.

    Parameters
    ----------
    cpu_s : float
        CPU time of all its threads.
    peak_mib : float or None
        Highest resident memory; None where the system does not tell.
    """

    cpu_s: float
    peak_mib: float | None


class ModelError(RuntimeError):
    """The model failed in its process for a reason that is not the user's.

    Parameters
    ----------
    message : str
        One line.
    details : str
        The traceback from the model's process; shown with this error's own in a log.
    """

    def __init__(self, message: str, details: str) -> None:
        super().__init__(message, details)
        self.details = details
        self.add_note(details)

    def __str__(self) -> str:
        return str(self.args[0])
