"""Pictures of a case before and after, and as it truly is, where the two differ most."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ka2er_training.overlay import PLANES, draw, slice_of, upright

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume

_ROOM = 14  # voxels around what is shown, so that one sees where it is


def write_comparison(
    path: Path, volume: Volume, maps: Mapping[str, NDArray[Any]], task: Task, title: str
) -> None:
    """Write label maps side by side on the slice in which the first two differ most.

    Parameters
    ----------
    path : Path
        A ``.png`` file; an older one is replaced.
    volume : Volume
        The image.
    maps : mapping of str to ndarray, shape (Z, Y, X)
        By what stands above them: before, after and truth.  All on the volume's lattice.
    task : Task
        Names and colours.
    title : str
        The line above.
    """
    shown = {name: upright(volume, labels) for name, labels in maps.items()}
    image = next(iter(shown.values()))[0]
    grids = {name: labels for name, (_, labels) in shown.items()}
    plane, at = largest_change(list(grids.values()))
    box = _box(np.any([slice_of(grid, plane, at) > 0 for grid in grids.values()], axis=0))
    limits = np.percentile(image, (1, 99.5))
    height, width = slice_of(image, plane, at)[box].shape
    figure = Figure(figsize=(4 * len(grids), 4 * height / width + 0.9), layout="constrained")
    for number, (name, grid) in enumerate(grids.items()):
        axes = figure.add_subplot(1, len(grids), number + 1)
        cut = slice_of(image, plane, at)[box], slice_of(grid, plane, at)[box]
        draw(axes, plane, cut, limits, task)
        axes.set_title(f"{name} ({plane})", fontsize=10)
    patches = [Patch(color=label.color, label=label.name) for label in task.labels]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(len(patches), 1))
    figure.suptitle(title, fontsize=10)
    half_done = path.with_name(f".{path.name}")
    figure.savefig(half_done, dpi=80, format="png")
    os.replace(half_done, path)


def largest_change(grids: list[NDArray[Any]]) -> tuple[str, int]:
    """Return plane and index of the slice in which the first two label maps differ most.

    If they are equal, it is the slice with most labels of any of them; the middle one if all are
    empty.
    """
    marked = grids[0] != grids[1]
    if not marked.any():
        marked = np.any([grid > 0 for grid in grids], axis=0)
    if not marked.any():
        return PLANES[0], marked.shape[0] // 2
    sums = [marked.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    axis = int(np.argmax([counts.max() for counts in sums]))
    return PLANES[axis], int(sums[axis].argmax())


def _box(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return rows and columns around what is marked, with some room; all if nothing is."""
    if not marked.any():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(max(i[0] - _ROOM, 0), i[-1] + _ROOM + 1) for i in (rows, columns))  # type: ignore[return-value]
