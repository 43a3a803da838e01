from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def image() -> Volume:
    """(2, 3, 4) voxels 0 … 23 of 3 x 2 x 1.5 mm; Z runs to the head, Y to the back, X to the left.

    Voxel (0, 0, 0) lies at z 30, y 20, x 10 mm (RAS+), voxel (1, 2, 3) at 33, 16, 5.5.
    """
    affine = np.array([[3, 0, 0, 30], [0, -2, 0, 20], [0, 0, -1.5, 10], [0, 0, 0, 1.0]])
    return Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine)


@pytest.fixture
def write_slices(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a CT series: a list of changes, one dict of DICOM fields per slice."""

    def write(changes: list[dict[str, object]], folder: str = "series") -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        uid = generate_uid()
        for i, change in enumerate(changes):
            dataset = ct_slice(i, uid)
            for keyword, value in change.items():
                setattr(dataset, keyword, value)
            dataset.save_as(tmp_path / folder / f"{9 - i}.dcm", enforce_file_format=True)
        return tmp_path / folder

    return write


def ct_slice(number: int, series_uid: str) -> pydicom.Dataset:
    """Slice `number` of an axial CT: (2, 3) pixels of 0.5 x 0.8 mm, every 2.5 mm."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = series_uid
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = 2, 3
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.PixelSpacing = [0.5, 0.8]  # between rows, between columns
    dataset.SliceThickness = 2.5
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-10, -20, 100 + 2.5 * number]  # left, back, head
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
    dataset.PixelData = (np.arange(6, dtype="<i2") + 10 * number).tobytes()
    return dataset
