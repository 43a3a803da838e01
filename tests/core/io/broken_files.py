"""Files and folders that no volume can be read from, a function for each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import tifffile
import zarr

if TYPE_CHECKING:
    from pathlib import Path

NOISE = np.random.default_rng(0).integers(0, 1000, (24, 20, 22)).astype(np.int16)


def nothing(folder: Path) -> Path:
    return folder / "missing.nii.gz"


def empty_file(folder: Path) -> Path:
    (folder / "empty.nii.gz").touch()
    return folder / "empty.nii.gz"


def text_with_an_image_suffix(folder: Path) -> Path:
    (folder / "text.nrrd").write_text("not an image")
    return folder / "text.nrrd"


def unknown_suffix(folder: Path) -> Path:
    (folder / "scan.xyz").write_bytes(b"12345")
    return folder / "scan.xyz"


def empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def folder_without_a_series(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "readme.txt").write_text("nothing here")
    return folder / "pictures"


def text_called_dicom(folder: Path) -> Path:
    (folder / "text.dcm").write_text("Rows: 512, Columns: 512, and some more words. " * 40)
    return folder / "text.dcm"


def noise_called_dicom(folder: Path) -> Path:
    (folder / "noise.dcm").write_bytes(NOISE.tobytes())
    return folder / "noise.dcm"


def nan_voxels(folder: Path) -> Path:
    data = np.zeros((3, 4, 5), np.float32)
    data[0, 0, :2] = np.nan
    data[1, 1, 1] = np.inf
    nib.save(nib.Nifti1Image(data, np.eye(4)), folder / "nan.nii.gz")
    return folder / "nan.nii.gz"


def nan_voxels_in_nrrd(folder: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), np.nan)), folder / "nan.nrrd")
    return folder / "nan.nrrd"


def zero_spacing(folder: Path) -> Path:
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4))
    path = folder / "flat.nii"
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[84:88] = b"\0\0\0\0"  # pixdim[2] at its offset in the standard
    path.write_bytes(raw)
    return path


def zero_spacing_in_mha(folder: Path) -> Path:
    path = folder / "flat.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), path)
    path.write_bytes(
        path.read_bytes().replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 0 1")
    )
    return path


def zero_spacing_in_tiff(folder: Path) -> Path:
    path = folder / "flat.tif"
    metadata = {"axes": "ZYX", "spacing": 0.0, "unit": "um"}
    tifffile.imwrite(path, NOISE.astype(np.uint16), imagej=True, metadata=metadata)
    return path


def singular_affine(folder: Path) -> Path:
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4))
    image.set_sform(np.diag([1, 0, 1, 1]), code=1)
    nib.save(image, folder / "singular.nii.gz")
    return folder / "singular.nii.gz"


def nan_affine(folder: Path) -> Path:
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4))
    image.header["srow_x"][3] = np.nan
    image = nib.Nifti1Image(image.dataobj, None, image.header)
    nib.save(image, folder / "nan_affine.nii")
    return folder / "nan_affine.nii"


def time_series(folder: Path) -> Path:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 6), np.int16), np.eye(4)), folder / "fmri.nii.gz")
    return folder / "fmri.nii.gz"


def time_series_in_tiff(folder: Path) -> Path:
    data = np.zeros((3, 4, 5, 6), np.uint8)
    tifffile.imwrite(folder / "movie.tif", data, imagej=True, metadata={"axes": "TZYX"})
    return folder / "movie.tif"


def time_series_in_nrrd(folder: Path) -> Path:
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.uint8), isVector=False)
    sitk.WriteImage(image, folder / "movie.nrrd")
    return folder / "movie.nrrd"


def complex_voxels(folder: Path) -> Path:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), folder / "kspace.nii")
    return folder / "kspace.nii"


def unknown_unit(folder: Path) -> Path:
    metadata = {"axes": "ZYX", "unit": "furlong"}
    tifffile.imwrite(folder / "far.tif", NOISE.astype(np.uint16), imagej=True, metadata=metadata)
    return folder / "far.tif"


def zarr_with(folder: Path, **attributes: object) -> Path:
    group = zarr.create_group(folder / "image.zarr")
    group.create_array("0", data=NOISE)
    group.attrs.update(attributes)
    return folder / "image.zarr"


def zarr_without_an_image(folder: Path) -> Path:
    return zarr_with(folder)


def zarr_plate(folder: Path) -> Path:
    return zarr_with(folder, ome={"version": "0.5", "plate": {"wells": []}})


def zarr_of_a_future_version(folder: Path) -> Path:
    return zarr_with(folder, ome={"version": "0.9", "multiscales": [{"axes": [], "datasets": []}]})


def multiscale(path: str, axes: str, scale: list[float]) -> dict[str, object]:
    dataset = {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    names = [{"name": a, "type": "space"} for a in axes]
    return {"version": "0.5", "multiscales": [{"axes": names, "datasets": [dataset]}]}


def zarr_without_its_array(folder: Path) -> Path:
    return zarr_with(folder, ome=multiscale("7", "zyx", [1, 1, 1]))


def zarr_with_the_wrong_axes(folder: Path) -> Path:
    return zarr_with(folder, ome=multiscale("0", "czyx", [1, 1, 1, 1]))


def zarr_with_lists_for_objects(folder: Path) -> Path:
    ome = {**multiscale("0", "zyx", [1, 1, 1]), "image-label": [1, 2]}
    return zarr_with(folder, ome=ome)


def zarr_with_zero_scale(folder: Path) -> Path:
    return zarr_with(folder, ome=multiscale("0", "zyx", [1, 0, 1]))


def zarr_with_broken_json(folder: Path) -> Path:
    path = zarr_with(folder, ome=multiscale("0", "zyx", [1, 1, 1]))
    (path / "zarr.json").write_text(json.dumps({"zarr_format": 3})[:-4])
    return path


def zarr_with_a_damaged_chunk(folder: Path) -> Path:
    path = zarr_with(folder, ome=multiscale("0", "zyx", [1, 1, 1]))
    chunk = next(p for p in (path / "0").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:40])
    return path


MAKERS = [
    nothing, empty_file, text_with_an_image_suffix, unknown_suffix, empty_folder,
    folder_without_a_series, text_called_dicom, noise_called_dicom, nan_voxels,
    nan_voxels_in_nrrd, zero_spacing, zero_spacing_in_mha, zero_spacing_in_tiff, singular_affine,
    nan_affine, time_series, time_series_in_tiff, time_series_in_nrrd, complex_voxels,
    unknown_unit, zarr_without_an_image, zarr_plate, zarr_of_a_future_version,
    zarr_without_its_array, zarr_with_the_wrong_axes, zarr_with_lists_for_objects,
    zarr_with_zero_scale, zarr_with_broken_json, zarr_with_a_damaged_chunk,
]  # fmt: skip
