"""What the student made of a volume, as the model's jobs hand it to the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.history import Steps
    from napari_ka2er.core.prepared import PreparedEdit
    from napari_ka2er.core.session import Session

WHOLE = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class Committed:
    """Whether a result changed anything, and how many reviewed slices are not so any more."""

    is_changed: bool
    n_unreviewed: int

    def __str__(self) -> str:
        """Say it in a line."""
        if not self.is_changed:
            return "Segmented: nothing was found, or changed."
        n = self.n_unreviewed
        return "Segmented." + f" Reviewed slices that changed, and want another look: {n}." * (
            n > 0
        )


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """An automatic result, compared with the mask and packed; or that of one label only.

    `since` are the steps that were done when the student began: what was drawn after them stays.
    """

    labels: NDArray[Any]
    seconds: float
    edit: PreparedEdit | None = None
    only: int | None = None
    since: Steps | None = None

    def commit(self, session: Session) -> Committed:
        """Write the result; return what changed.  For the session's thread."""
        shape = session.volume.shape
        n_before = session.state.reviewed.n_slices(shape)
        is_changed = self._write(session)
        return Committed(is_changed, n_before - session.state.reviewed.n_slices(shape))

    def _write(self, session: Session) -> bool:
        if self.edit is not None:
            return session.commit(self.edit, "automatic")
        value = self.only or 0
        wanted = np.array(session.mask)
        wanted[wanted == value] = 0
        wanted[(self.labels == value) & (wanted == 0)] = value
        # No "automatic" result: what was corrected of other labels still counts as corrected.
        edit = session.prepare(WHOLE, wanted, self.since)
        return session.commit(edit, "tool", {"tool": "segment", "label": value})


@dataclass(frozen=True, slots=True)
class Filled:
    """How much of the volume is encoded, and whether a step was made."""

    n_windows: int
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Uncertainty:
    """How unsure the student is of each voxel, and the mean of each slice across each axis."""

    values: NDArray[np.float16]
    slices: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, slots=True, eq=False)
class ExpertMap:
    """How much each expert was trusted, by name, shape (Z, Y, X) each."""

    names: tuple[str, ...]
    values: NDArray[np.float16]
