"""Writer contributions: layers become files in the geometry they are shown in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_ka2er.core import io
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import mm_per
from napari_ka2er.core.volume import Volume


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer; return the path written.

    Parameters
    ----------
    path : str
        Where to; the suffix decides the format.
    data : array-like of int, shape (Z, Y, X) or (Y, X)
        The layer's values; of a pyramid, the finest level.
    attributes : dict
        The layer's attributes, of which scale, translate, rotate, shear, affine, units and metadata
        count.

    Raises
    ------
    UserError
        If the layer is no 2D or 3D label map, or the file cannot be written.
    """
    volume = volume_of(data, attributes)
    io.write_labels(Path(path), volume.data, volume)
    return [path]


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an image layer, an RGB one as three channels; return the path written.

    Raises
    ------
    UserError
        If the layer is neither 2D nor 3D, or the file cannot be written.
    """
    io.write_volume(Path(path), volume_of(data, attributes))
    return [path]


def volume_of(data: Any, attributes: dict[str, Any]) -> Volume:
    """Return a layer's data and attributes as a volume, with the header of the file it came from.

    Raises
    ------
    UserError
        If the layer is neither 2D nor 3D.
    """
    values = np.asarray(data[0] if attributes.get("multiscale") else data).view()
    n_axes = values.ndim - bool(attributes.get("rgb"))
    if n_axes not in (2, 3):
        raise UserError("a layer of 2 or 3 dimensions", f"{n_axes}", "save one time point of it")
    if n_axes == 2:
        values = values[None]
    names: tuple[str, ...] = ("image",)
    if attributes.get("rgb"):
        values = np.moveaxis(values, -1, 0)
        names = ("red", "green", "blue", "alpha")[: len(values)]
    own = attributes.get("metadata", {}).get("napari_ka2er", {})
    header = own.get("header", {})
    name = attributes.get("name", "layer")
    # Where the Annotate widget shows an oblique volume along its own axes, this is its true place.
    affine = own.get("affine")
    if affine is None:
        affine = affine_of(attributes, n_axes)
    return Volume(values, np.asarray(affine, float), names, name, header)


def affine_of(attributes: dict[str, Any], n_axes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the (4, 4) matrix in mm that a layer's transforms make together.

    Parameters
    ----------
    attributes : dict
        The layer's attributes; what is missing is the identity.
    n_axes : int
        2 or 3 dimensions of the layer; a plane becomes a slice of 1 mm.
    """
    scale = np.asarray(attributes.get("scale", np.ones(n_axes)), float)
    rotate = np.asarray(attributes.get("rotate", np.eye(n_axes)), float)
    inner = np.eye(n_axes + 1)
    # napari.utils.transforms: rotate @ shear @ scale, then the layer's affine.
    inner[:-1, :-1] = rotate @ _shear_matrix(attributes.get("shear"), n_axes) * scale
    inner[:-1, -1] = attributes.get("translate", np.zeros(n_axes))
    total = np.asarray(attributes.get("affine", np.eye(n_axes + 1)), float) @ inner
    mm = [mm_per(str(unit)) for unit in attributes.get("units") or ["mm"] * n_axes]
    total[:-1] *= np.array(mm)[:, None]
    affine = np.eye(4)
    affine[3 - n_axes :, 3 - n_axes :] = total
    return affine


def _shear_matrix(shear: Any, n_axes: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return napari's shear, which may be the values above the diagonal only, as a matrix."""
    if shear is None:
        return np.eye(n_axes)
    values = np.asarray(shear, float)
    if values.ndim == 2:
        return values
    matrix = np.eye(n_axes)
    matrix[np.triu_indices(n_axes, 1)] = values
    return matrix
