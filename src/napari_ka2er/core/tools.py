"""The tools that correct a label, each as plain data that says what to do.

A tool of the widget's, a line of a session's log and a run of ``ka2er tool`` are the same object.
`core.editing` and `core.interpolation` do the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from napari_ka2er.core import editing
from napari_ka2er.core.brush import limit
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.interpolation import fill_between_slices
from napari_ka2er.core.metrics import voxel_ml
from napari_ka2er.core.splitting import two_parts
from napari_ka2er.core.tool_call import ToolCall as ToolCall

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.editing import Change, Index
    from napari_ka2er.core.edits import Labels
    from napari_ka2er.core.volume import Geometry


@dataclass(frozen=True, slots=True)
class FillBetween(ToolCall):
    """Fill a label between the slices across an axis that have it.

    With `keys` only those slices are kept, and what lies between them is replaced.
    """

    axis: int = 0
    keys: tuple[int, ...] | None = None
    name: ClassVar[str] = "fill-between"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return fill_between_slices(labels, self.label, self.axis, lattice.spacing, self.keys)


@dataclass(frozen=True, slots=True)
class KeepLargest(ToolCall):
    """Remove all islands of a label but the largest."""

    name: ClassVar[str] = "keep-largest"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return editing.keep_largest_island(labels, self.label)


@dataclass(frozen=True, slots=True)
class RemoveSmall(ToolCall):
    """Remove the islands of a label that are smaller than `ml` millilitres."""

    ml: float = 0.1
    name: ClassVar[str] = "remove-small"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        # Voxels of a sheared lattice are smaller than the product of their spacings.
        mm3_per_ml = float(np.prod(lattice.spacing)) / voxel_ml(lattice)
        return editing.remove_small_islands(
            labels, self.label, self.ml * mm3_per_ml, lattice.spacing
        )


@dataclass(frozen=True, slots=True)
class Split(ToolCall):
    """Give another label to one of two parts of a label.

    The parts are those of the voxels `keep` and `split`; without them, the smaller of the label's
    two largest parts goes.
    """

    into: int
    keep: Index | None = None
    split: Index | None = None
    name: ClassVar[str] = "split"

    def __post_init__(self) -> None:
        ToolCall.__post_init__(self)  # super() does not work in classes with slots
        if self.into == self.label:
            raise UserError("another label for the part that goes", f"label {self.label} twice")
        if (self.keep is None) != (self.split is None):
            lacking = "split" if self.split is None else "keep"
            remedy = "give both, or neither to let the tool choose"
            raise UserError("a voxel to keep and one to split off", f"none to {lacking}", remedy)

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        if self.keep is None or self.split is None:
            keep, split = two_parts(labels, self.label, lattice.spacing)
        else:
            keep, split = (_inside(at, labels) for at in (self.keep, self.split))
        found = {int(labels[keep]), int(labels[split])}
        if found != {self.label}:
            raise UserError(f"two voxels of label {self.label}", f"labels {sorted(found)} there")
        return editing.split_island(labels, keep, split, self.into, lattice.spacing)


@dataclass(frozen=True, slots=True)
class FillHoles(ToolCall):
    """Fill what a label encloses, in 3D, or in each slice across `axis`."""

    axis: int | None = None
    name: ClassVar[str] = "fill-holes"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return editing.fill_holes(labels, self.label, self.axis)


@dataclass(frozen=True, slots=True)
class Smooth(ToolCall):
    """Smooth the surface of a label with a Gaussian `mm` wide."""

    mm: float = 1.0
    name: ClassVar[str] = "smooth"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return editing.smooth(labels, self.label, self.mm, lattice.spacing)


@dataclass(frozen=True, slots=True)
class Grow(ToolCall):
    """Add the background within `mm` of a label; with `intensity` only where the image is in it."""

    mm: float = 1.0
    intensity: tuple[float, float] | None = None
    name: ClassVar[str] = "grow"

    def __post_init__(self) -> None:
        ToolCall.__post_init__(self)
        if self.intensity is not None and not self.intensity[0] <= self.intensity[1]:
            low, high = self.intensity
            raise UserError("intensities from low to high", f"{low:g} to {high:g}")

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        region, wanted = editing.grow(labels, self.label, self.mm, lattice.spacing)
        if self.intensity is not None:
            if image is None:
                raise UserError("the image, to grow within intensities", "none", "give the image")
            part = image[region]
            wanted = limit(wanted, labels[region], image=part, intensity_range=self.intensity)
        return region, wanted


@dataclass(frozen=True, slots=True)
class Shrink(ToolCall):
    """Remove the voxels of a label within `mm` of anything else."""

    mm: float = 1.0
    name: ClassVar[str] = "shrink"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return editing.shrink(labels, self.label, self.mm, lattice.spacing)


@dataclass(frozen=True, slots=True)
class CopySlice(ToolCall):
    """Give slice `target` across `axis` what slice `source` has of a label."""

    axis: int = 0
    source: int = 0
    target: int = 1
    name: ClassVar[str] = "copy-slice"

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return editing.copy_slice(labels, self.label, self.axis, self.source, self.target)


@dataclass(frozen=True, slots=True)
class Merge(ToolCall):
    """Give the voxels of label `other` to a label.

    A voxel has one label at a time, so of the logical operations only this one changes anything.
    """

    other: int
    name: ClassVar[str] = "merge"

    def __post_init__(self) -> None:
        ToolCall.__post_init__(self)
        if self.other == self.label:
            raise UserError("two labels to merge", f"label {self.label} twice")

    def _change(self, labels: Labels, image: NDArray[Any] | None, lattice: Geometry) -> Change:
        return editing.merge(labels, self.label, self.other)


TOOLS: dict[str, type[ToolCall]] = {
    kind.name: kind
    for kind in (
        *(FillBetween, KeepLargest, RemoveSmall, Split, FillHoles),
        *(Smooth, Grow, Shrink, CopySlice, Merge),
    )
}


def tool_from_json(data: dict[str, Any]) -> ToolCall:
    """Build a tool from what `to_json` returned; parameters that are left out get their defaults.

    Raises
    ------
    UserError
        If there is no such tool, or a parameter is unknown, missing or out of range.
    """
    kind = TOOLS.get(str(data.get("tool")))
    if kind is None:
        raise UserError(f"a tool: {', '.join(TOOLS)}", repr(data.get("tool")))
    given: dict[str, Any] = {k: _frozen(v) for k, v in data.items() if k != "tool"}
    try:
        return kind(**given)
    except TypeError as error:
        known = ", ".join(kind.__dataclass_fields__)
        raise UserError(f"parameters of {kind.name} ({known})", f"{given}") from error


def _frozen(value: Any) -> Any:
    """Return what JSON read, with tuples for lists."""
    return tuple(value) if isinstance(value, list) else value


def _inside(at: Index, labels: Labels) -> Index:
    """Return a voxel's index if there is such a voxel."""
    z, y, x = (int(i) for i in at)
    if not all(0 <= i < n for i, n in zip((z, y, x), labels.shape, strict=True)):
        raise UserError(f"a voxel of a map of {labels.shape}", f"{(z, y, x)}")
    return z, y, x
