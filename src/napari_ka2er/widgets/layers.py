"""From napari's layers to our volumes, and back.  The user's layers are only read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points
from napari.utils.colormaps import DirectLabelColormap

from napari_ka2er._writer import affine_of
from napari_ka2er.core.boxes import Region, explicit, union
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.session import Session
    from napari_ka2er.core.task import Task

KEY = "napari_ka2er"
POSITIVE, NEGATIVE = "#009E73", "#D55E00"
# What puts a layer in its place: copied from the image, so that ours lie exactly on it.
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What is known of an image layer before its voxels are read.

    Parameters
    ----------
    data : array
        The layer's own, of the finest level, not copied; may be lazy.
    affine : ndarray, shape (4, 4)
        From voxel indices to the world (z, y, x) in mm.
    name : str
        The layer's name.
    header : mapping
        What our reader kept of the file's header.
    place : mapping
        The layer's transforms, as arguments of another layer.
    path : Path, optional
        The file it was read from.
    """

    data: Any
    affine: NDArray[np.float64]
    name: str
    header: dict[str, Any]
    place: dict[str, Any]
    path: Path | None

    def read(self) -> Volume:
        """Return the volume.  Takes a moment: its voxels are copied, as they are the user's."""
        return Volume(np.array(self.data), self.affine, name=self.name, header=self.header)


def source_of(layer: Image) -> Source:
    """Return where the volume in an image layer comes from.

    Raises
    ------
    UserError
        If the layer is not one 3D image, or its unit is no length.
    """
    if layer.ndim != 3 or layer.rgb:
        got = f"{layer.name} in colours" if layer.rgb else f"{layer.name} of {layer.ndim} axes"
        raise UserError("a 3D image without colours", got, "choose another layer")
    place = {name: getattr(layer, name) for name in _PLACE}
    attributes = {**place, "affine": np.asarray(layer.affine)}
    path = layer.source.path
    return Source(
        data=layer.data[0] if layer.multiscale else layer.data,
        affine=affine_of(attributes, 3),
        name=layer.name,
        header=layer.metadata.get(KEY, {}).get("header", {}),
        place=place,
        path=Path(path) if path else None,
    )


def colormap_of(task: Task) -> DirectLabelColormap:
    """Return the task's colours; background is clear."""
    colors: dict[int | None, str] = {0: "transparent", None: "gray"}
    colors.update({label.value: label.color for label in task.labels})
    return DirectLabelColormap(color_dict=colors)


def labels_layer(session: Session, place: dict[str, Any]) -> Labels:
    """Return a layer that shows a copy of a session's mask and can be painted on."""
    layer = Labels(
        np.array(session.mask),
        name=f"{session.task.name} of {session.volume.name}",
        colormap=colormap_of(session.task),
        opacity=0.5,
        metadata={KEY: {"header": session.volume.header}},
        **place,
    )
    layer.brush_size = 5
    return layer


def points_layer(session: Session, place: dict[str, Any]) -> Points:
    """Return an empty layer for positive and negative points, in the volume's voxels."""
    return Points(
        np.empty((0, 3)),
        name=f"points in {session.volume.name}",
        size=max(2.0, min(session.volume.shape) / 40),
        face_color=POSITIVE,
        border_color="white",
        out_of_slice_display=True,
        ndim=3,
        **place,
    )


def painted_box(atoms: Any, shape: tuple[int, int, int]) -> Region:
    """Return the box (Z, Y, X) that a brush stroke touched; at worst the whole volume.

    napari tells strokes as boxes since 0.8, as lists of voxels before.
    """
    boxes = [_box_of(atom, shape) for atom in atoms]
    if not boxes:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    total = boxes[0]
    for box in boxes[1:]:
        total = union(total, box)
    return total


def _box_of(atom: Any, shape: tuple[int, int, int]) -> Region:
    key = getattr(atom, "slice_key", None)
    if key is None:
        axes = [np.atleast_1d(np.asarray(axis)) for axis in atom[0]]
        if len(axes) != 3 or not all(axis.size for axis in axes):
            return explicit((slice(None),) * 3, shape)
        key = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in axes)
    return explicit(tuple(k if isinstance(k, slice) else slice(k, k + 1) for k in key), shape)
