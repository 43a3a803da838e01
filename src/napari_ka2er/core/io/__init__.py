"""Volumes and label maps from and to files; the suffix decides the format.

World coordinates are RAS+ mm everywhere.  Formats that know of a patient (NIfTI, NRRD, MetaImage,
DICOM) are brought there; TIFF and OME-Zarr have no patient axes, their (z, y, x) is taken as it is.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing, require_writable
from napari_ka2er.core.io.checks import as_storable, refuse_values_outside, smallest_integers
from napari_ka2er.core.io.formats import (
    FORMATS,
    SUFFIXES,
    WRITTEN_SUFFIXES,
    Format,
    distinct,
    module_name,
    volumes_in,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Geometry, Volume


__all__ = [
    "SUFFIXES",
    "WRITTEN_SUFFIXES",
    "check_target",
    "distinct",
    "is_label_map",
    "is_readable",
    "read_labels",
    "read_volume",
    "require_one_channel",
    "volumes_in",
    "write_labels",
    "write_volume",
]


class _Module(Protocol):
    """What every module of a format offers."""

    def read(self, path: Path) -> Volume: ...

    def write(self, path: Path, volume: Volume) -> None: ...


def is_readable(path: Path) -> bool:
    """Return whether `read_volume` would try this path; looks at names and first bytes only."""
    return path.exists() and module_name(path) is not None


def read_volume(path: Path, level: int = 0, n_channels: int | None = 0) -> Volume:
    """Return the volume in a file or folder.

    Parameters
    ----------
    path : Path
        A NIfTI, NRRD, MetaImage or TIFF file, an OME-Zarr folder, a folder with one DICOM series,
        or any file of a DICOM series (the rest of the series is found beside it).
    level : int, optional
        Level of an OME-Zarr pyramid, 0 is the finest.  Other formats have level 0 only.
    n_channels : int, optional
        How many channels a fourth axis of NIfTI holds, as in MSD; None for any number.  By default
        it is time, unless the file calls it a vector.

    Returns
    -------
    Volume
        Its header lets `write_labels` write the same geometry.  A single slice becomes (1, Y, X),
        with a spacing of 1 mm along Z where the file names none.

    Raises
    ------
    UserError
        If there is no such file, the format is unknown, the file is damaged or a time series, the
        spacing or affine cannot be used, or voxels are not finite numbers.
    """
    path = Path(path)
    if not path.exists():
        raise UserError("a volume", f"{path}, which does not exist", "check the path")
    name = module_name(path)
    if name is None:
        raise UserError(*_unknown(path))
    if name == "zarr":
        from napari_ka2er.core.io import zarr

        return zarr.read(path, level)
    if level:
        raise UserError("level 0, the only one in this format", f"level {level} of {path.name}")
    if name == "nifti":
        from napari_ka2er.core.io import nifti

        return nifti.read(path, n_channels)
    return _module(name).read(path)


def read_labels(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return the label map in a file, in the smallest unsigned type that holds it, and its lattice.

    Parameters
    ----------
    path : Path
        As for `read_volume`; one channel of whole numbers, which may be stored as floats.

    Returns
    -------
    labels : ndarray of unsigned int, shape (Z, Y, X)
        Label values; 0 is background.
    geometry : Geometry
        Where the labels lie.

    Raises
    ------
    UserError
        As for `read_volume`, and if the values are not whole numbers of at least 0.
    """
    volume = read_volume(path)
    require_one_channel(volume, Path(path).name)
    return smallest_integers(volume.channels[0], Path(path).name), volume.geometry


def write_labels(path: Path, labels: NDArray[Any], like: Volume, task: Task | None = None) -> None:
    """Write labels in the exact geometry of a volume, and its header where the format is the same.

    The file appears complete or not at all.  Oblique, flipped and sheared geometries are kept by
    every format; TIFF and OME-Zarr keep them in a field of ours that other programs ignore.

    Parameters
    ----------
    path : Path
        Where to; one of `WRITTEN_SUFFIXES`.  What is there is replaced.
    labels : ndarray of int, shape (Z, Y, X)
        Stored in the smallest unsigned integer type that holds the largest value.
    like : Volume
        The image the labels were drawn on.
    task : Task, optional
        Names and colours, stored where the format has a place for them (NRRD, MHA, OME-Zarr).
        Values that are none of its labels (nor 0) are refused.

    Raises
    ------
    UserError
        If the shapes differ, the values are no labels, or the file cannot be written.
    """
    if labels.shape != like.shape:
        raise UserError(
            f"labels of the image's shape {like.shape}",
            f"{labels.shape}",
            "use the image they belong to",
        )
    values = smallest_integers(labels, "labels")
    if task is not None:
        refuse_values_outside(values, task)
    names = like.header.get("labels", [])
    if task is not None:
        names = [(x.value, x.name, x.color) for x in task.labels]
    header = {**like.header, "labels": names}
    write_volume(path, replace(like, data=values, channel_names=("labels",), header=header))


def write_volume(path: Path, volume: Volume) -> None:
    """Write a volume; see `write_labels` for geometry and header.

    Raises
    ------
    UserError
        If the format is not one of `WRITTEN_SUFFIXES`, or the file cannot be written.
    """
    path = Path(path)
    form = _written_format(path)
    stored = replace(volume, data=as_storable(volume.data))
    with replacing(path) as temporary:
        _module(form.module).write(temporary, stored)


def check_target(path: Path) -> None:
    """Refuse a path that `write_volume` could not write, before the work of making a volume.

    Folders that are missing are made later; they must be possible.

    Raises
    ------
    UserError
        As for `write_volume`.
    """
    _written_format(path)
    require_writable(path.parent)


def _written_format(path: Path) -> Format:
    """Return the format in which to write a path."""
    form = next((f for f in FORMATS if path.name.lower().endswith(f.written or ("\0",))), None)
    if form is None:
        raise UserError(
            f"a file name that ends with {', '.join(WRITTEN_SUFFIXES)}",
            path.name,
            "choose one of these",
        )
    if os.path.isdir(path) and module_name(path) != form.module:
        raise UserError(f"a file or an OME-Zarr at {path}", "a folder with something else in it")
    return form


def is_label_map(volume: Volume) -> bool:
    """Return whether the volume's file says that its values are labels, in one channel or more."""
    return "labels" in volume.header and np.issubdtype(volume.data.dtype, np.integer)


def require_one_channel(volume: Volume, name: str) -> None:
    """Refuse labels in several channels, as 3D Slicer stores segments that may overlap.

    Raises
    ------
    UserError
        If the volume of the file `name` has more than one channel.
    """
    if volume.n_channels != 1:
        raise UserError(
            "labels in one channel",
            f"{volume.n_channels} channels in {name}",
            "export it as one label map without overlaps (3D Slicer: Data, right click, "
            "Export visible segments to binary labelmap)",
        )


def _unknown(path: Path) -> tuple[str, str, str]:
    """Return the words for a path that no format claims."""
    known = f"a file ending with {', '.join(SUFFIXES)}, or a folder with a DICOM series or OME-Zarr"
    if path.is_dir():
        return known, f"{path}, a folder with neither", "give the folder that holds the files"
    return known, path.name, "convert it, for example to .nii.gz"


def _module(name: str) -> _Module:
    """Import a format's module when it is needed: together they take seconds."""
    return cast("_Module", import_module(f"napari_ka2er.core.io.{name}"))
