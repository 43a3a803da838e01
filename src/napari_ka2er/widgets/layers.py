"""From napari's layers to our volumes, and back.  The user's layers are only read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.colormaps import DirectLabelColormap

from napari_ka2er._transforms import affine_of, composed, placed
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import as_values
from napari_ka2er.core.volume import Geometry, Volume

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from napari_ka2er.core.edits import Labels as LabelMap
    from napari_ka2er.core.task import Task

KEY = "napari_ka2er"
POSITIVE, NEGATIVE = "#009E73", "#D55E00"
# What puts a layer in its place: taken from the image, so that ours lie exactly on it.
_TRANSFORMS = ("scale", "translate", "rotate", "shear", "affine")
_NAMES = ("units", "axis_labels")
_PLACE = (*_TRANSFORMS, *_NAMES)
PLACE_EVENTS = (*_TRANSFORMS, "units", "data")  # of a layer: another volume, or in another place
# How far, in voxels, napari may draw a corner from where it is before we straighten the volume.
STRAIGHT_VOXELS = 0.25
MOST_VOXELS = 400_000_000  # a larger volume is not read before somebody asks for it


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
        Where our layers go, as arguments of a layer: what the image's transforms make together, or
        for an oblique volume its voxel axes; see `placed`.
    is_oblique : bool
        Whether the volume's axes are not the world's.  napari slices those along neither, and
        takes clicks and strokes for other voxels than it shows, so that they are shown along
        their own axes instead.
    path : Path, optional
        The file it was read from.
    """

    data: Any
    affine: NDArray[np.float64]
    name: str
    header: dict[str, Any]
    place: dict[str, Any]
    is_oblique: bool
    path: Path | None

    def read(self) -> Volume:
        """Return the volume.  Takes a moment: its voxels are copied, as they are the user's.

        Raises
        ------
        UserError
            If its voxels are no numbers, or some are NaN or infinite.
        """
        values = as_values(np.array(self.data), self.name)
        return Volume(values, self.affine, name=self.name, header=self.header)


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
    attributes = {name: getattr(layer, name) for name in _PLACE}
    attributes["affine"] = np.asarray(layer.affine)
    own = layer.metadata.get(KEY, {})
    path = layer.source.path or own.get("source")  # napari knows no file of a sample
    data = layer.data[0] if layer.multiscale else layer.data
    # Where we show an oblique volume along its own axes, this is its true place.
    affine = own.get("affine")
    affine = affine_of(attributes, 3) if affine is None else np.asarray(affine, float)
    lattice = Geometry(data.shape, affine)
    is_oblique = not is_straight(lattice)
    names = {name: attributes[name] for name in _NAMES}
    place = {**placed(composed(attributes, 3)), **names}
    return Source(
        data=data,
        affine=lattice.affine,
        name=layer.name,
        header=own.get("header", {}),
        place=straightened(lattice) if is_oblique else place,
        is_oblique=is_oblique,
        path=Path(path) if path else None,
    )


def key_of(layer: Image) -> tuple[Any, ...]:
    """Return what tells the volume in a layer from any other, and from itself in another place."""
    place = (np.asarray(getattr(layer, name), float).tobytes() for name in _TRANSFORMS)
    return layer.unique_id, id(layer.data), *place, *map(str, layer.units)


def warm_up() -> None:
    """Make napari import and compute what its first layer of each kind needs; for a worker.

    pandas and a table of random colours take half a second that the window would wait.
    """
    Labels(np.zeros((1, 1, 1), np.uint8))
    Points(np.zeros((1, 3)))
    Shapes(ndim=3)


def is_straight(lattice: Geometry) -> bool:
    """Return whether a volume's axes are the world's, in order, so that napari shows it right."""
    matrix = lattice.affine[:3, :3]
    diagonal = np.diag(matrix)
    if np.any(np.abs(diagonal) < 0.5 * np.array(lattice.spacing)):
        return False
    off_voxels = np.abs(matrix - np.diag(diagonal)) @ lattice.shape / np.abs(diagonal)
    return bool(off_voxels.max() <= STRAIGHT_VOXELS)


def straightened(lattice: Geometry) -> dict[str, Any]:
    """Return the place of a volume laid along its own axes, in mm, each in its main direction."""
    matrix = lattice.affine[:3, :3]
    main = np.abs(matrix).argmax(axis=0)
    signs = np.sign(matrix[main, range(3)])
    affine = np.diag([*signs * np.array(lattice.spacing), 1.0])
    return {**placed(affine), "units": ("mm",) * 3, "axis_labels": ("z", "y", "x")}


def colormap_of(task: Task, hidden: Collection[int] = ()) -> DirectLabelColormap:
    """Return the task's colours; background and hidden labels are clear."""
    colors: dict[int | None, str] = {0: "transparent", None: "gray"}
    colors.update({label.value: label.color for label in task.labels})
    colors.update(dict.fromkeys(hidden, "transparent"))
    return DirectLabelColormap(color_dict=colors)


def labels_layer(
    volume: Volume, task: Task, shown: LabelMap, place: dict[str, Any], is_oblique: bool = False
) -> Labels:
    """Return a layer that shows `shown` itself, not a copy, and can be painted on.

    Where it is shown along its own axes, its metadata tell the writer its true place.
    """
    true_place = {"affine": volume.affine} if is_oblique else {}
    layer = Labels(
        shown,
        name=f"{task.name} of {volume.name}",
        colormap=colormap_of(task),
        opacity=0.5,
        metadata={KEY: {"header": volume.header, **true_place}},
        **place,
    )
    layer.brush_size = 5
    return layer


def release(layer: Labels | Points | Shapes, keys: Collection[Any]) -> None:
    """Give a layer back to napari: keys, undo, redo and strokes do what napari's own do."""
    for key in keys:
        layer.bind_key(key, None, overwrite=True)
    for name in ("undo", "redo", "_abort_stroke"):
        vars(layer).pop(name, None)


def points_layer(volume: Volume, place: dict[str, Any]) -> Points:
    """Return an empty layer for positive and negative points, in the volume's voxels."""
    # Of a microscope's volume 2 mm is all: three of its voxels are seen as well.
    least_mm = min(2.0, 3 * min(volume.spacing))
    wide_mm = max(least_mm, float(np.median(volume.geometry.extent_mm)) / 60)
    return Points(
        np.empty((0, 3)),
        name=f"points in {volume.name}",
        size=wide_mm / volume.spacing[-1],  # napari multiplies by the scale of the last axis
        face_color=POSITIVE,
        border_color="white",
        ndim=3,
        **place,
    )


def shapes_layer(volume: Volume, place: dict[str, Any]) -> Shapes:
    """Return an empty layer for boxes, scribbles and lassos, in the volume's voxels."""
    return Shapes(
        name=f"boxes and scribbles in {volume.name}",
        edge_color=POSITIVE,
        face_color="transparent",
        edge_width=max(0.5, min(volume.shape) / 100),
        ndim=3,
        **place,
    )


def straight_image(volume: Volume, image: Image, place: dict[str, Any]) -> Image:
    """Return a layer that shows an oblique volume along its own axes, in the image's colours."""
    return Image(
        volume.channels[0],
        name=f"{volume.name}, along its own axes",
        contrast_limits=image.contrast_limits,
        colormap=image.colormap,
        gamma=image.gamma,
        metadata={KEY: {"header": volume.header, "affine": volume.affine}},
        **place,
    )
