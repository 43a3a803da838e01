"""Random geometries through every writable format: voxels and headers come back exactly."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_ka2er.core.io import (
    WRITTEN_SUFFIXES,
    read_labels,
    read_volume,
    write_labels,
    write_volume,
)
from napari_ka2er.core.volume import Geometry, Volume, corners

# Thousands of files: in memory where there is such a disk, as each write waits for it.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
# NIfTI stores geometry in float32, NRRD and MetaImage in 17 digits.
TOLERANCE_MM = {".nii": 1e-3, ".nii.gz": 1e-3, ".nrrd": 1e-9, ".mha": 1e-9,
                ".tif": 0, ".tiff": 0, ".zarr": 0}  # fmt: skip
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8")
NOT_HELD = {".tif": ("i8", "u8"), ".tiff": ("i8", "u8")}
GEOMETRY_FIELDS = ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y",
                   "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
                   "qoffset_z")  # fmt: skip
every_geometry = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """A rotated, often flipped or axis-permuted, anisotropic, sometimes sheared lattice."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["oblique", "axis-aligned", "sheared", "straight"]))
    linear = np.eye(3)
    if kind in ("oblique", "sheared"):
        linear = Rotation.random(random_state=rng.integers(2**31)).as_matrix()
    if kind != "straight":
        linear = linear[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    if kind == "sheared":
        linear = linear @ (np.eye(3) + np.triu(rng.uniform(-0.5, 0.5, (3, 3)), 1))
    affine = np.eye(4)
    affine[:3, :3] = linear * rng.uniform(0.2, 5, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    # Three different sizes, so that no swapped axis can pass.
    shape = draw(st.lists(st.integers(1, 9), min_size=3, max_size=3, unique=True))
    return Geometry(tuple(shape), affine)


def is_sheared(geometry: Geometry) -> bool:
    axes = geometry.affine[:3, :3] / geometry.spacing
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-6)


def image_in(geometry: Geometry, dtype: str) -> Volume:
    """Random values of a type, its lowest and its highest among them."""
    kind, n = np.dtype(dtype), int(np.prod(geometry.shape))
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    bits = np.random.default_rng(n).integers(0, 256, n * kind.itemsize, np.uint8)
    values = bits.view(kind)
    values[~np.isfinite(values)] = 0.1
    values[0], values[-1] = limits.min, limits.max
    return Volume(values.reshape(geometry.shape), geometry.affine)


def labels_in(geometry: Geometry, highest: int) -> np.ndarray:
    labels = np.arange(np.prod(geometry.shape)).reshape(geometry.shape) % 7
    labels[0, 0, 0] = highest
    return labels


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
@every_geometry
@given(geometry=geometries(), highest=st.sampled_from([1, 255, 256, 70_000]), drawn=st.data())
def test_any_geometry_comes_back(suffix, geometry, highest, drawn):
    held = [name for name in TYPES if name not in NOT_HELD.get(suffix, ())]
    image = image_in(geometry, drawn.draw(st.sampled_from(held), "type"))
    labels = labels_in(geometry, highest)
    with TemporaryDirectory(dir=MEMORY) as folder:
        path, label_path = Path(folder, f"image{suffix}"), Path(folder, f"labels{suffix}")
        write_volume(path, image)
        back = read_volume(path)
        write_labels(label_path, labels, back)
        found, found_geometry = read_labels(label_path)

        assert sorted(p.name for p in Path(folder).iterdir()) == [path.name, label_path.name]
        assert header_of(label_path) == header_of(path)
        for found_corners in corners_by_other_libraries(label_path, geometry):
            np.testing.assert_allclose(found_corners, corners(geometry), atol=2e-3)
    np.testing.assert_array_equal(back.data, image.data)
    assert back.data.dtype == image.data.dtype
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == np.min_scalar_type(highest)
    assert np.abs(corners(back.geometry) - corners(geometry)).max() <= TOLERANCE_MM[suffix]
    np.testing.assert_array_equal(found_geometry.affine, back.affine)


def corners_by_other_libraries(path: Path, geometry: Geometry) -> list[np.ndarray]:
    """The corners (z, y, x) as SimpleITK and nibabel read them; ITK refuses sheared NIfTI."""
    ends = np.array(geometry.shape[::-1]) - 1
    index = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * ends
    found = []
    if path.suffix in (".gz", ".nii"):
        affine = nib.load(path).affine
        found.append(index @ affine[:3, :3].T + affine[:3, 3])
    if path.suffix in (".nrrd", ".mha") or (found and not is_sheared(geometry)):
        image = sitk.ReadImage(path)
        lps = [image.TransformIndexToPhysicalPoint(i.tolist()) for i in index]
        found.append(np.array(lps) * (-1, -1, 1))
    return [xyz[:, ::-1] for xyz in found]


def header_of(path: Path) -> object:
    """What a file says about its geometry, read without the code under test."""
    match path.suffix:
        case ".gz" | ".nii":
            header = nib.load(path).header
            return {field: header[field].tolist() for field in GEOMETRY_FIELDS}
        case ".nrrd" | ".mha":
            head = path.read_bytes()[:1500].decode("latin1")
            fields = "space|space directions|space origin|sizes"
            fields += "|TransformMatrix|Offset|ElementSpacing|DimSize"
            return sorted(re.findall(rf"^(?:{fields})\s*[:=].*$", head, flags=re.M))
        case ".tif" | ".tiff":
            with tifffile.TiffFile(path) as file:
                xml = file.ome_metadata
            return re.findall(r'((?:PhysicalSize|Position|Size)[XYZ](?:Unit)?)="([^"]*)"', xml)
        case _:
            multiscale = zarr.open_group(path, mode="r").attrs["ome"]["multiscales"][0]
            return {key: multiscale[key] for key in ("axes", "datasets")}


@every_geometry
@given(
    geometry=geometries(),
    other=geometries(),
    codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    unit=st.sampled_from(["mm", "micron", "meter", "unknown"]),
    single=st.booleans(),
)
def test_a_foreign_nifti_header_is_kept_byte_by_byte(geometry, other, codes, unit, single):
    """Both matrices, which may disagree, their codes, the units and every pixdim."""
    reverse = np.eye(4)[[2, 1, 0, 3]]
    data = np.zeros(geometry.shape[::-1], np.float32)
    kind = nib.Nifti1Image if single else nib.Nifti2Image
    image = kind(data, np.eye(4))
    image.set_qform(reverse @ other.affine @ reverse, code=codes[0])
    image.set_sform(reverse @ geometry.affine @ reverse, code=codes[1])
    image.header["pixdim"][4] = 2.5
    image.header.set_xyzt_units(unit, "sec")
    with TemporaryDirectory(dir=MEMORY) as folder:
        path, label_path = Path(folder, "image.nii"), Path(folder, "labels.nii.gz")
        nib.save(image, path)
        volume = read_volume(path)
        write_labels(label_path, labels_in(geometry, 9), volume)

        assert header_of(label_path) == header_of(path)
        assert type(nib.load(label_path)) is kind
        factor = {"mm": 1, "micron": 1e-3, "meter": 1e3, "unknown": 1}[unit]
        expected = np.diag([factor, factor, factor, 1]) @ nib.load(path).affine
    np.testing.assert_allclose(reverse @ volume.affine @ reverse, expected, rtol=1e-12)
