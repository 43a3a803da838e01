"""Voxels of DICOM files: decoded by pydicom, else by GDCM (in SimpleITK), and scaled."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import damaged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.io.dicom import Slice

# What pydicom raises for damaged files; which one depends on the place of the damage.
READ_ERRORS = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError,
    NotImplementedError, MemoryError, InvalidDicomError, BytesLengthException,
)  # fmt: skip
_PIXEL_FIELDS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames", "PixelData",
)  # fmt: skip
_FORCED = (".dcm", ".ima")  # what is so called may lack the preamble of 128 bytes and its "DICM"
_BARE_SYNTAX: dict[Any, UID] = {  # by whether it is implicit, and little-endian
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
_WHOLE = (np.int16, np.int32, np.uint32)


def dataset_in(file: Path, **options: Any) -> pydicom.Dataset:
    """Return a file's dataset; `options` are those of `pydicom.dcmread`.

    Raises
    ------
    READ_ERRORS
        If the file is damaged, or does not begin as DICOM files do and is not called ``.dcm``.
    """
    return pydicom.dcmread(file, force=file.suffix.lower() in _FORCED, **options)


def values_of(slices: Sequence[Slice]) -> NDArray[Any]:
    """Return the scaled voxels of sorted slices.

    Returns
    -------
    ndarray, shape (Z, Y, X) or (C, Z, Y, X)
        int16, int32 or uint32 where all stored values, slopes and intercepts are whole numbers and
        the result fits, else float32.

    Raises
    ------
    UserError
        If a file cannot be decoded, or some images have colours and others none.
    """
    planes = _planes(slices)
    if len({plane.shape for plane in planes}) > 1:
        raise UserError(
            "images of one kind",
            f"grey and coloured ones in {slices[0].file.parent.name}",
            "move the coloured ones to a folder of their own",
        )
    dtype = _type_of(planes, slices)
    data = np.empty((len(planes), *planes[0].shape), dtype)
    for out, plane, each in zip(data, planes, slices, strict=True):
        if dtype == np.float32:
            out[...] = plane * each.slope + each.intercept
        else:
            out[...] = plane.astype(np.int64) * int(each.slope) + int(each.intercept)
    return np.moveaxis(data, -1, 0) if data.ndim == 4 else data


def _planes(slices: Sequence[Slice]) -> list[NDArray[Any]]:
    """Return the stored values of each slice; each file is decoded once, however frames mix."""
    frames: dict[Path, list[int]] = {}
    for i, each in enumerate(slices):
        frames.setdefault(each.file, []).append(i)
    planes: dict[int, NDArray[Any]] = {}
    for file, places in frames.items():
        try:
            stored = _stored(file)
            planes |= {i: stored[slices[i].frame] for i in places}
        except READ_ERRORS as error:
            raise damaged("DICOM file", file, error) from error
    return [planes[i] for i in range(len(slices))]


def _type_of(planes: Sequence[NDArray[Any]], slices: Sequence[Slice]) -> type[np.number[Any]]:
    """Return the first type of `_WHOLE` that holds the scaled values exactly, else float32."""
    is_scaled_whole = all(s.slope.is_integer() and s.intercept.is_integer() for s in slices)
    if not (is_scaled_whole and all(plane.dtype.kind in "iu" for plane in planes)):
        return np.float32
    ends = [  # in numbers of Python, which do not overflow
        int(end) * int(each.slope) + int(each.intercept)
        for plane, each in zip(planes, slices, strict=True)
        for end in (plane.min(), plane.max())
    ]
    for dtype in _WHOLE:
        limits = np.iinfo(dtype)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return dtype
    return np.float32


def _stored(file: Path) -> NDArray[Any]:
    """Return the stored values of a file as (frame, Y, X) or (frame, Y, X, channel)."""
    dataset = dataset_in(file)
    if "TransferSyntaxUID" not in dataset.file_meta:  # a bare dataset: it cannot be compressed
        dataset.file_meta.TransferSyntaxUID = _BARE_SYNTAX[dataset.original_encoding]
    try:
        pixels = dataset.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:
            raise
        pixels = _decoded_by_gdcm(dataset, error)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    return pixels.reshape(frames, *pixels.shape[-2 if dataset.SamplesPerPixel == 1 else -3 :])


def _decoded_by_gdcm(dataset: pydicom.Dataset, error: Exception) -> NDArray[Any]:
    """Decode voxels with GDCM, from a copy without scaling: GDCM scales some kinds of image."""
    import SimpleITK as sitk  # only for compressed files

    bare = pydicom.Dataset()
    for keyword in _PIXEL_FIELDS:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    bare.file_meta = dataset.file_meta
    bare.SOPClassUID, bare.SOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy.dcm")
        bare.save_as(copy, enforce_file_format=True)
        try:
            return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(copy)))
        except RuntimeError as reason:
            raise ValueError(f"{error}") from reason
