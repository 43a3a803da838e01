"""Pictures of label maps on their image, for reports and the demo."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from napari_ka2er.core.resampling import grid_of, resample

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume

PLANES = ("axial", "coronal", "sagittal")
_PIXELS = 256
_OPACITY = 0.35
# What lies at the left, right, bottom and top of each plane, as radiologists look at it.
_SIDES = {"axial": "RLPA", "coronal": "RLIS", "sagittal": "APIS"}


def write_overlay(path: Path, volume: Volume, labels: NDArray[Any], task: Task, title: str) -> None:
    """Write a picture of three slices through the middle of a label map; in place of an older one.

    Parameters
    ----------
    path : Path
        A ``.png`` file.
    volume : Volume
        The image.
    labels : ndarray of int, shape (Z, Y, X)
        The label map; slices go through the image's middle where it is empty.
    task : Task
        Names and colours.
    title : str
        The line above.
    """
    image, shown = upright(volume, labels)
    found = np.argwhere(shown > 0)
    centre = np.median(found, axis=0) if len(found) else (np.array(shown.shape) - 1) / 2
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    limits = np.percentile(image, (1, 99.5))
    for number, plane in enumerate(PLANES):
        axes = figure.add_subplot(1, 3, number + 1)
        at = round(float(centre[number]))
        draw(axes, plane, (slice_of(image, plane, at), slice_of(shown, plane, at)), limits, task)
    patches = [Patch(color=label.color, label=label.name) for label in task.labels]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(len(patches), 1))
    figure.suptitle(title, fontsize=10)
    half_done = path.with_name(f".{path.name}")
    figure.savefig(half_done, dpi=100, format="png")
    os.replace(half_done, path)


def upright(
    volume: Volume, labels: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
    """Return image and labels with cubic voxels and axes (S, A, R), at most 256 along an axis."""
    pitch = max(min(volume.spacing), max(volume.geometry.extent_mm) / _PIXELS)
    grid = grid_of(volume.geometry, (pitch, pitch, pitch), multiple=1)
    data = volume.channels[0]
    image = resample(data, volume.geometry, grid, order=1, cval=float(data.min()))
    return image, resample(labels, volume.geometry, grid, order=0)


def slice_of(data: NDArray[Any], plane: str, at: int) -> NDArray[Any]:
    """Return a slice with rows from bottom to top and columns from left to right of the screen."""
    match plane:
        case "axial":
            return data[at, :, ::-1]
        case "coronal":
            return data[:, at, ::-1]
        case _:
            return data[:, ::-1, at]


def draw(
    axes: Axes,
    plane: str,
    pair: tuple[NDArray[Any], NDArray[Any]],
    limits: NDArray[np.floating[Any]],
    task: Task,
) -> None:
    """Draw a slice, pair of image and label map, with the sides of the patient around it."""
    image, labels = pair
    low, high = float(limits[0]), float(limits[1])
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    for label in task.labels:
        inside = labels == label.value
        if not inside.any():
            continue
        colour = np.array(to_rgb(label.color))
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * colour
        axes.contour(inside, levels=[0.5], colors=[label.color], linewidths=0.8)
    axes.imshow(picture, origin="lower", interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(plane, fontsize=9)
    places = [(0.01, 0.5), (0.99, 0.5), (0.5, 0.01), (0.5, 0.99)]
    for side, (x, y) in zip(_SIDES[plane], places, strict=True):
        axes.text(
            x, y, side, color="white", fontsize=8, transform=axes.transAxes,
            ha="left" if x < 0.4 else "right" if x > 0.6 else "center",
            va="bottom" if y < 0.4 else "top" if y > 0.6 else "center",
        )  # fmt: skip
