"""What is asked of the student about prompts, and what it answers on its grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.core.prompts import Prompt

    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of the student.

    Parameters
    ----------
    prompts : sequence of Prompt
        Oldest first, at least one; the newest decides where to look.
    output : int
        Which of the student's outputs is meant; their number stands for any structure.
    previous : ndarray of bool, shape (Z, Y, X), or None
        The mask so far, on the image's voxels.
    is_free : bool
        Whether the mask may change where no prompt touches the change.
    """

    prompts: Sequence[Prompt]
    output: int
    previous: Mask | None = None
    is_free: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Started:
    """What there is on the grid before a prompt is answered; arrays of the region's shape.

    Parameters
    ----------
    mask : ndarray of bool
        The mask so far.
    logits : ndarray of float32
        What the student is shown of it, or the automatic result.
    is_known : bool
        False if there is neither.
    replaced : ndarray of bool
        What goes when the answer comes.
    """

    mask: Mask
    logits: NDArray[np.float32]
    is_known: bool
    replaced: Mask


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An answer on the grid: logits, predicted Dice, what would change, what it replaces."""

    logits: NDArray[np.float32]
    dice: float
    changed: Mask
    replaced: Mask
