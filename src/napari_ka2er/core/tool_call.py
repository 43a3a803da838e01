"""What every tool that corrects a label has in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_ka2er.core.editing import Change
    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.volume import Geometry


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _are(value: Any, kind: Callable[[Any], bool], n: int | None = None) -> bool:
    """Return whether a value is a tuple or list of one kind, and as long as it should be."""
    return isinstance(value, tuple | list) and n in (None, len(value)) and all(map(kind, value))


def _is_size(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value) and float(value) > 0


_LABEL = ("a label of at least 1", lambda value: _is_whole(value) and value >= 1)
_SLICE = ("the number of a slice", _is_whole)
_VOXEL = ("a voxel of three indices (z, y, x)", lambda value: _are(value, _is_whole, 3))
# What each parameter of a tool is in words, and how to tell.
_WANTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("label", "into", "other"), _LABEL),
    **dict.fromkeys(("source", "target"), _SLICE),
    **dict.fromkeys(("keep", "split"), _VOXEL),
    "axis": ("axis 0, 1 or 2 (Z, Y, X)", lambda value: _is_whole(value) and 0 <= value <= 2),
    "keys": ("a list of slices' numbers", lambda value: _are(value, _is_whole)),
    "mm": ("more than 0 mm", _is_size),
    "ml": ("more than 0 ml", _is_size),
    "intensity": (
        "two intensities, low and high",
        lambda value: _are(value, lambda v: isinstance(v, Real), 2),
    ),
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool with its parameters; this is what all of them share.

    Every tool works on one label, in a box around it; other labels stay as they are unless the tool
    is about them.  Distances are in mm whatever the spacing of the lattice, as long as its axes are
    at right angles: on a sheared one they are measured as if they were.

    Parameters
    ----------
    label : int
        The label that it works on, at least 1.

    Raises
    ------
    UserError
        If a parameter is of another kind, or out of range.
    """

    label: int
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted, fits = _WANTED[field.name]
            # None says "without" where it is what one gets by saying nothing.
            if not fits(value) and not (value is None and field.default is None):
                raise UserError(f"{wanted} for {self.name}", f"{field.name} {value!r}")

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
