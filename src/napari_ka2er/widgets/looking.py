"""Where in a volume the viewer looks, and how to make it look elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = 1e-6  # voxels


def slice_axis(dims: Any, layer: Any) -> int:
    """Return the axis (Z, Y, X: 0, 1, 2) across which a viewer shows slices of a 3D layer.

    In 3D display it is the axis that 2D display would go back to.
    """
    first = dims.ndim - layer.ndim
    axes: list[int] = [int(axis) - first for axis in dims.order if axis >= first]
    return axes[0]


def painted_axes(dims: Any, layer: Any) -> list[int]:
    """Return the axes (Z, Y, X: 0, 1, 2) along which the brush of a labels layer paints."""
    first = dims.ndim - layer.ndim
    axes: list[int] = [int(axis) - first for axis in dims.order if axis >= first]
    return axes[-int(layer.n_edit_dimensions) :]


def slice_index(dims: Any, layer: Any) -> int:
    """Return which slice across that axis is shown; it may lie outside the layer.

    Between two slices napari shows the even one.
    """
    axis = slice_axis(dims, layer)
    return int(np.round(layer.world_to_data(dims.point)[axis]))


def on_voxels(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return positions in voxels, shape (N, 3), in the slice that shows what they were drawn on.

    Other layers' slices may lie half way between two of ours; then napari shows the even one, as
    in `slice_index`, and whoever rounds otherwise would take the other.  A single position moves
    only if it lies half way.
    """
    positions = np.asarray(positions, dtype=float)
    nearest = np.round(positions)
    is_flat = np.ptp(positions, axis=0) <= _ROUNDING
    if len(positions) == 1:
        is_flat = np.abs(np.abs(positions - nearest)[0] - 0.5) <= _ROUNDING
    moved: NDArray[np.float64] = np.where(is_flat, nearest, positions)
    return moved


def go_to_slice(dims: Any, layer: Any, index: int) -> None:
    """Show another slice across the same axis."""
    axis = slice_axis(dims, layer)
    first = dims.ndim - layer.ndim
    at = np.array(layer.world_to_data(dims.point), dtype=float)
    at[axis] = index
    dims.set_point(first + axis, float(layer.data_to_world(at)[axis]))


def is_shown(dims: Any, layer: Any, region: tuple[slice, ...]) -> bool:
    """Return whether a box of a layer's voxels may be seen at present."""
    if dims.ndisplay == 3:
        return True
    part = region[slice_axis(dims, layer)]
    index = slice_index(dims, layer)
    start, stop, _ = part.indices(layer.data.shape[slice_axis(dims, layer)])
    return start <= index < stop


def centre_of_view(viewer: Any, layer: Any) -> NDArray[np.float64]:
    """Return the voxel in the middle of what is seen, inside the layer, fractional (z, y, x)."""
    world = np.array(viewer.dims.point, dtype=float)
    displayed = list(viewer.dims.displayed)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera  # napari < 0.9
    world[displayed] = np.array(camera.center, dtype=float)[-len(displayed) :]
    index = np.asarray(layer.world_to_data(world), dtype=float)
    inside: NDArray[np.float64] = np.clip(index, 0, np.array(layer.data.shape) - 1)
    return inside
