"""NIfTI-1 and -2 through nibabel."""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import (
    as_values,
    damaged,
    logged,
    refuse_time_series,
    same_place,
    stem,
    usable_affine,
)
from napari_ka2er.core.volume import REVERSE, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_READ_ERRORS = (
    OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, MemoryError, ImageFileError,
    HeaderDataError,
)  # fmt: skip
_MM_PER_CODE = {1: 1000.0, 2: 1.0, 3: 1e-3}  # xyzt_units & 7: metre, mm, micrometre; unknown is mm
_LABEL_INTENT = 1002
# Free text, in which scanners and programs write names, dates and paths; NIfTI-2 lacks some.
TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
_CHANNEL_INTENTS = (1007, 2003, 2004)  # vector, RGB, RGBA


def read(path: Path, n_channels: int | None = 0) -> Volume:
    """Return the volume in a NIfTI file.

    The affine is nibabel's choice: sform, else qform, else centred voxels.  A fifth axis, or a
    fourth one that the intent code calls a vector, holds channels, and so do RGB voxels.  A fourth
    axis of size `n_channels` does too, or of any size for None: who asks knows it from elsewhere.

    Raises
    ------
    UserError
        If the file is damaged or a time series, or its spacing, affine or voxels cannot be used.
    """
    try:
        with logged("nibabel.global"):  # where it tells what it repairs
            image = _load(path)
        with ImageOpener(os.fspath(path)) as file:
            stored = type(image.header).from_fileobj(file, check=False)
    except _READ_ERRORS as error:
        raise damaged("NIfTI file", path, error) from error
    header = image.header.copy()
    _refuse_zero_spacing(stored, path.name)
    _refuse_series(header, path.name, n_channels)
    try:
        data = _channels_first(_array(image), header)
    except _READ_ERRORS as error:
        raise damaged("NIfTI file", path, error) from error
    keep: dict[str, Any] = {"nifti": header}
    if int(header["intent_code"]) == _LABEL_INTENT:
        keep["labels"] = []
    names = _channel_names(data)
    affine = usable_affine(_affine(header), path.name)
    return Volume(as_values(data, path.name), affine, names, stem(path), keep)


def _load(path: Path) -> Any:
    """Return the image of a file; its suffix may be in capitals, for which nibabel has no ear."""
    with ImageOpener(os.fspath(path)) as file:
        head = file.read(nib.Nifti2Header.sizeof_hdr)
    kinds = (nib.Nifti1Image, nib.Nifti2Image)
    kind = next((k for k in kinds if k.header_class.may_contain_header(head)), None)
    if kind is None:
        raise ImageFileError("no NIfTI header")
    return kind.from_file_map({"image": nib.FileHolder(filename=os.fspath(path))}, mmap=False)


def write(path: Path, volume: Volume) -> None:
    """Write a volume with the header it was read with, or a new one."""
    header = volume.header.get("nifti")
    if header is not None and not same_place(_affine(header), volume.affine):
        header = None  # it was given another place since
    try:
        image = _new_image(volume) if header is None else _image_like(volume, header)
        image.to_filename(path)
    except HeaderDataError as error:
        raise UserError("a volume that NIfTI can hold", f"{error}", "write .nrrd") from error


def _affine(header: Any) -> NDArray[np.float64]:
    """Return a header's affine as (z, y, x, 1) -> RAS+ mm."""
    mm = _MM_PER_CODE.get(int(header["xyzt_units"]) & 7, 1.0)
    scaled = np.diag([mm, mm, mm, 1.0]) @ header.get_best_affine()
    return np.asarray(REVERSE @ scaled @ REVERSE, np.float64)


def _refuse_zero_spacing(stored: Any, name: str) -> None:
    """Look at the header as it is on disk: nibabel silently turns a spacing of 0 into 1."""
    sizes = stored["dim"][1:4]
    spacing = np.asarray(stored["pixdim"][1:4], float)
    counted = (np.arange(3) < stored["dim"][0]) & (sizes > 1)
    if np.any(counted & ~(np.isfinite(spacing) & (spacing != 0))):
        raise UserError(
            "a spacing above 0 along x, y, z", f"{spacing.tolist()} in {name}", "repair its pixdim"
        )


def _refuse_series(header: Any, name: str, n_channels: int | None) -> None:
    """Refuse what has several time points, or more axes than channels and space."""
    sizes = header.get_data_shape()
    is_vector = int(header["intent_code"]) in _CHANNEL_INTENTS
    is_vector |= len(sizes) == 4 and n_channels in (None, sizes[3])
    if len(sizes) < 2:
        raise UserError("at least 2 axes", f"sizes {sizes} in {name}")
    if n_channels and len(sizes) == 4 and not is_vector:
        raise UserError(f"{n_channels} channels as the fourth axis", f"sizes {sizes} in {name}")
    if (len(sizes) == 4 and sizes[3] > 1 and not is_vector) or (len(sizes) > 4 and sizes[3] > 1):
        refuse_time_series(sizes, name, "extract one time point first, for example with fslroi")
    if any(n > 1 for n in sizes[5:]):
        refuse_time_series(sizes, name, "extract one volume of at most five axes first")


def _array(image: Any) -> NDArray[Any]:
    """Return the voxels (x, y, z, …): as stored, or as float32 where the header scales them."""
    proxy = image.dataobj
    if proxy.is_proxy and (proxy.slope, proxy.inter) == (1, 0):
        return np.asarray(proxy.get_unscaled())
    return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))


def _channels_first(data: NDArray[Any], header: Any) -> NDArray[Any]:
    """Turn (x, y[, z[, 1[, c]]]) or RGB voxels into (Z, Y, X) or (C, Z, Y, X)."""
    if data.dtype.names:
        data = np.stack([data[name] for name in data.dtype.names], axis=-1)
        space, channels = data.shape[:-1], data.shape[-1]
    elif data.ndim == 4:
        space, channels = data.shape[:3], data.shape[3]
    else:
        space, channels = data.shape[:3], data.shape[4] if data.ndim > 4 else 1
    size = (*space, 1, 1)[:3]
    moved = data.reshape(*size, channels, order="A").T
    return moved[0] if channels == 1 else moved


def _channel_names(data: NDArray[Any]) -> tuple[str, ...]:
    """Return names for the channels: red, green, blue for three or four bytes, else numbers."""
    if data.ndim == 3:
        return ("image",)
    if data.dtype == np.uint8 and len(data) in (3, 4):
        return ("red", "green", "blue", "alpha")[: len(data)]
    return tuple(f"channel {i}" for i in range(len(data)))


def _image_like(volume: Volume, old: Any) -> Any:
    """Return an image with all of `old`'s geometry: both matrices, their codes, units, pixdim."""
    header = old.copy()
    data = _file_order(volume)
    if len(old.get_data_shape()) == 2 and data.ndim == 3:
        data = data[..., 0]
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, None, header, dtype=data.dtype)
    image.header["pixdim"] = old["pixdim"]  # nibabel resets those beyond the third
    _set_meaning(image.header, volume)
    return image


def _new_image(volume: Volume) -> Any:
    """Return an image for a volume that came from another format."""
    data = _file_order(volume)
    affine = REVERSE @ volume.affine @ REVERSE
    kind = nib.Nifti1Image if max(data.shape) < 2**15 else nib.Nifti2Image
    image = kind(data, affine, dtype=data.dtype)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    is_orthogonal = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    image.set_sform(affine, code="scanner")
    # A quaternion cannot shear: readers that prefer the qform must not find a wrong one.
    image.set_qform(affine, code="scanner" if is_orthogonal else "unknown")
    image.header.set_xyzt_units("mm", "sec")
    _set_meaning(image.header, volume)
    return image


def _file_order(volume: Volume) -> NDArray[Any]:
    """Return voxels as (x, y, z) or (x, y, z, 1, c)."""
    data = volume.data
    return data.T if data.ndim == 3 else data.T[:, :, :, None, :]


def _set_meaning(header: Any, volume: Volume) -> None:
    """Clear what the header says of the image it came from, but not of its place."""
    header["cal_min"] = header["cal_max"] = 0
    header["vox_offset"] = 0
    is_label = "labels" in volume.header
    header.set_intent("label" if is_label else "vector" if volume.data.ndim == 4 else "none")
    header["intent_name"] = b""
    if is_label:  # extensions and texts tell of the acquisition, often of the patient
        header.extensions.clear()
        for name in TEXT_FIELDS:
            if name in header:
                header[name] = b""
