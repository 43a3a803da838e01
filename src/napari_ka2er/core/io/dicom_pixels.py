"""Voxels of DICOM files: decoded by pydicom, else by GDCM (in SimpleITK), and scaled."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

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


def values_of(slices: Sequence[Slice]) -> NDArray[Any]:
    """Return the scaled voxels of sorted slices.

    Returns
    -------
    ndarray, shape (Z, Y, X) or (C, Z, Y, X)
        int16 or int32 where every slope and intercept is a whole number, else float32.

    Raises
    ------
    UserError
        If a file cannot be decoded.
    """
    is_whole = all(s.slope.is_integer() and s.intercept.is_integer() for s in slices)
    planes: list[NDArray[Any]] = []
    opened: tuple[Path, NDArray[Any]] | None = None
    for each in slices:
        if opened is None or opened[0] != each.file:
            try:
                opened = each.file, _stored(each.file)
            except READ_ERRORS as error:
                raise damaged("DICOM file", each.file, error) from error
        plane = opened[1][each.frame]
        if is_whole:
            planes.append(_narrow(plane.astype(np.int64) * int(each.slope) + int(each.intercept)))
        else:
            planes.append((plane * each.slope + each.intercept).astype(np.float32))
    data = np.stack(planes)
    return np.moveaxis(data, -1, 0) if data.ndim == 4 else data


def _narrow(plane: NDArray[np.int64]) -> NDArray[Any]:
    """Return whole numbers as int16 where they fit, else int32."""
    limits = np.iinfo(np.int16)
    fits = limits.min <= plane.min() and plane.max() <= limits.max
    return plane.astype(np.int16 if fits else np.int32)


def _stored(file: Path) -> NDArray[Any]:
    """Return the stored values of a file as (frame, Y, X) or (frame, Y, X, channel)."""
    dataset = pydicom.dcmread(file)
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
