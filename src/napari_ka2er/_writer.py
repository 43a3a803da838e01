"""Writer contributions: layers become files in the geometry they are shown in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_ka2er._transforms import affine_of
from napari_ka2er.core import io
from napari_ka2er.core.errors import UserError
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
