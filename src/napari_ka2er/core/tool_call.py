"""What every tool that corrects a label has in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.editing import Change
    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.volume import Geometry


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool with its parameters; this is what all of them share.

    Every tool works on one label, in a box around it; other labels stay as they are unless the tool
    is about them.  Distances are in mm whatever the spacing of the lattice.

    Parameters
    ----------
    label : int
        The label that it works on, at least 1.

    Raises
    ------
    UserError
        If a parameter is out of range.
    """

    label: int
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if key in ("label", "into", "other") and value < 1:
                raise UserError(f"a label of at least 1 for {self.name}", f"{key} {value}")
            if key in ("mm", "ml") and not (math.isfinite(value) and value > 0):
                raise UserError(f"more than 0 {key} for {self.name}", f"{value}")
            if key == "axis" and value not in (None, 0, 1, 2):
                raise UserError(f"axis 0, 1 or 2 (Z, Y, X) for {self.name}", f"{value}")

    def apply(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        """Return the labels wanted in a box; the map itself is not changed.

        Parameters
        ----------
        labels : ndarray of unsigned int, shape (Z, Y, X)
            The label map.
        image : ndarray, shape (Z, Y, X), optional
            The intensities, for the tools that look at them.
        lattice : Geometry
            Where both lie.

        Raises
        ------
        UserError
            If the label has no voxels, or a parameter does not fit the map.
        """
        return self._change(labels, image, lattice)

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `tool_from_json` takes back."""
        return {"tool": self.name, **asdict(self)}
