"""Lengths in other units than mm, per axis or missing along one, read and written again."""

from __future__ import annotations

import re

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.io.tiff import _CLASSIC_BYTES
from napari_ka2er.core.volume import Volume

DATA = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
OME_UNITS = ("nm", "µm", "mm", "cm", "m", "Å", "in", "pixel")  # of UnitsLength, those that we know


def write_imagej(path, **fields):
    """Voxels of 3 x 0.5 x 0.25 units."""
    metadata = {"axes": "ZYX", "spacing": 3.0, **fields}
    tifffile.imwrite(path, DATA, imagej=True, resolution=(4, 2), metadata=metadata)
    return path


def write_ome(path, data=DATA, **sizes):
    metadata = {"axes": "ZYX"[-data.ndim :], **sizes}
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata)
    return path


def description(path):
    with tifffile.TiffFile(path) as file:
        return file.pages[0].description.splitlines()


@pytest.mark.parametrize(
    "unit", [b"\xb5m", b"\xc2\xb5m", b"\\u00B5m", b"um"], ids=["Latin-1", "UTF-8", "escaped", "um"]
)
def test_each_spelling_of_a_micrometre_in_imagej_is_read_and_written(tmp_path, unit):
    path = write_imagej(tmp_path / "cells.tif", unit="x" * len(unit))
    path.write_bytes(path.read_bytes().replace(b"unit=" + b"x" * len(unit), b"unit=" + unit))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (3e-3, 0.5e-3, 0.25e-3))
    write_labels(tmp_path / "labels.tif", DATA, volume)
    np.testing.assert_array_equal(read_volume(tmp_path / "labels.tif").affine, volume.affine)
    written = "unit=um" if unit == b"um" else r"unit=\u00B5m"
    assert written in description(tmp_path / "labels.tif"), "as ImageJ writes it"


def test_units_that_differ_along_the_axes_of_an_imagej_file_are_kept(tmp_path):
    path = write_imagej(tmp_path / "cells.tif", unit="mm", yunit="um", zunit="nm")
    volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (3e-6, 0.5e-3, 0.25))
    for labels in (DATA, DATA.astype(int) * 10_000):  # the second as OME-TIFF
        write_labels(tmp_path / "labels.tif", labels, volume)
        found, geometry = read_labels(tmp_path / "labels.tif")
        np.testing.assert_array_equal(found, labels)
        np.testing.assert_array_equal(geometry.affine, volume.affine)
    write_labels(tmp_path / "labels.tif", DATA, volume)
    assert {"unit=mm", "yunit=um", "zunit=nm"} < set(description(tmp_path / "labels.tif"))


def test_imagej_leaves_out_a_spacing_of_1_of_its_unit(tmp_path):
    path = write_imagej(tmp_path / "cells.tif", unit="um")
    path.write_bytes(path.read_bytes().replace(b"spacing=3.0\n", b"\n" * 12))
    assert not any(line.startswith("spacing") for line in description(path))
    np.testing.assert_allclose(read_volume(path).spacing, (1e-3, 0.5e-3, 0.25e-3))


@pytest.mark.parametrize(
    ("sizes", "missing"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, "along z in"),
        ({"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "nm"}, "along z and y in"),
    ],
)
def test_an_ome_stack_without_all_sizes_is_read_once_they_are_stated(tmp_path, sizes, missing):
    path = write_ome(tmp_path / "cells.ome.tif", **sizes)
    with pytest.raises(UserError, match=rf"none {missing} cells.*PhysicalSize.*cells\.ome\.json"):
        read_volume(path)
    (tmp_path / "cells.ome.json").write_text('{"spacing": [0.002, 0.0005, 0.0005]}')
    assert read_volume(path).spacing == (0.002, 0.0005, 0.0005)


def test_one_slice_of_ome_needs_no_size_along_z(tmp_path):
    path = write_ome(tmp_path / "a.ome.tif", DATA[0], PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    np.testing.assert_allclose(read_volume(path).spacing, (1, 0.5e-3, 0.5e-3))


@pytest.mark.parametrize("unit", [r"\u00B5m", "micron", "um", "inch", "pixel", "Pixels", "cm", ""])
def test_ome_knows_the_units_we_write(tmp_path, unit):
    volume = read_volume(write_imagej(tmp_path / "a.tif", unit=unit))
    write_labels(tmp_path / "labels.tif", DATA.astype(int) * 10_000, volume)  # ImageJ has no type
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        written = re.findall('PhysicalSize.Unit="([^"]*)"', file.ome_metadata)
    assert len(written) == 3
    assert set(written) < set(OME_UNITS)
    np.testing.assert_array_equal(read_volume(tmp_path / "labels.tif").affine, volume.affine)


def test_each_plane_of_ome_lies_a_step_above_the_one_before(tmp_path, image):
    two = Volume(np.stack([image.data, image.data]), np.abs(image.affine), ("a", "b"))
    write_volume(tmp_path / "a.ome.tif", two)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        planes = re.findall("<Plane [^>]*>", file.ome_metadata)
    found = [
        tuple(float(re.search(f' {name}="([^"]*)"', plane)[1]) for name in ("TheC", "TheZ", *where))
        for plane in planes
        for where in [("PositionZ", "PositionY", "PositionX")]
    ]
    assert sorted(found) == [(c, z, 30 + 3 * z, 20, 10) for c in (0, 1) for z in (0, 1)]


@pytest.mark.parametrize(("excess", "is_big"), [(-1, False), (2**16, True)])
def test_what_classic_tiff_cannot_hold_becomes_bigtiff(tmp_path, monkeypatch, excess, is_big):
    seen = {}

    def imwrite(path, data, **options):
        seen.update(options)
        path.touch()

    monkeypatch.setattr(tifffile, "imwrite", imwrite)
    rows = (_CLASSIC_BYTES + excess) // 2**16
    endless = np.broadcast_to(np.uint8(0), (1, rows, 2**16))  # of one byte in memory
    write_volume(tmp_path / "a.tif", Volume(endless, np.eye(4)))
    assert seen["bigtiff"] is is_big


def write_nrrd(path, *fields):
    """Voxels of 10 x 20 x 30 units along x, y, z."""
    lines = ["NRRD0005", "type: unsigned short", "dimension: 3", "sizes: 4 3 2", *fields]
    head = "\n".join([*lines, "endian: little", "encoding: raw"]) + "\n\n"
    path.write_bytes(head.encode() + DATA.tobytes())
    return path


PLACED = (
    "space: left-posterior-superior",
    "space directions: (10,0,0) (0,20,0) (0,0,30)",
    "space origin: (1000,2000,3000)",
)


@pytest.mark.parametrize("unit", ["um", "µm", "microns", "micrometer"])
@pytest.mark.parametrize("field", ["space units", "Space Units"])
def test_an_nrrd_in_micrometres_is_read_in_mm_and_its_labels_keep_its_lines(tmp_path, field, unit):
    own = (*PLACED, f'{field}: "{unit}" "{unit}" "{unit}"')
    volume = read_volume(write_nrrd(tmp_path / "a.nrrd", *own))
    np.testing.assert_allclose(volume.spacing, (0.03, 0.02, 0.01), rtol=1e-12)
    np.testing.assert_allclose(volume.affine[:3, 3], (3, -2, -1), rtol=1e-12)
    write_labels(tmp_path / "labels.nrrd", DATA, volume)
    head = (tmp_path / "labels.nrrd").read_bytes().split(b"\n\n")[0].decode().splitlines()
    assert set(own) < set(head)
    np.testing.assert_array_equal(read_volume(tmp_path / "labels.nrrd").affine, volume.affine)


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz", ".tif", ".zarr"])
def test_labels_on_an_nrrd_in_micrometres_lie_there_in_other_formats_too(tmp_path, suffix):
    own = (*PLACED, 'space units: "microns" "microns" "microns"')
    volume = read_volume(write_nrrd(tmp_path / "a.nrrd", *own))
    write_labels(tmp_path / f"labels{suffix}", DATA, volume)
    found = read_volume(tmp_path / f"labels{suffix}").affine
    np.testing.assert_allclose(found, volume.affine, rtol=1e-6, atol=1e-9)


def test_units_of_spacings_without_directions_count_too(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", "spacings: 10 20 30", 'units: "um" "um" "um"')
    volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (0.03, 0.02, 0.01), rtol=1e-12)
    write_labels(tmp_path / "labels.nrrd", DATA, volume)
    found = read_volume(tmp_path / "labels.nrrd").affine
    np.testing.assert_allclose(found, volume.affine, rtol=1e-12)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ('"um" "um" "mm"', r"one unit for all axes, got um, um, mm in a\.nrrd"),
        ('"mm" "mm" "furlong"', "a unit of length .* got 'furlong'"),
    ],
)
def test_units_of_an_nrrd_that_differ_or_are_unknown_are_refused(tmp_path, units, message):
    path = write_nrrd(tmp_path / "a.nrrd", *PLACED, f"space units: {units}")
    with pytest.raises(UserError, match=message):
        read_volume(path)


@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), ("mm", 1), ("cm", 10)])
def test_the_unit_of_a_metaimage_counts_and_its_labels_keep_its_lines(tmp_path, unit, mm):
    image = sitk.GetImageFromArray(DATA)
    image.SetSpacing((10, 20, 30))
    image.SetOrigin((1, 2, 3))
    image.SetMetaData("ITK_VoxelUnits", unit)
    sitk.WriteImage(image, tmp_path / "a.mha")
    volume = read_volume(tmp_path / "a.mha")
    np.testing.assert_allclose(volume.spacing, (30 * mm, 20 * mm, 10 * mm), rtol=1e-12)
    np.testing.assert_allclose(volume.affine[:3, 3], (3 * mm, -2 * mm, -mm), rtol=1e-12)
    for suffix in (".mha", ".nrrd"):
        write_labels(tmp_path / f"labels{suffix}", DATA, volume)
        found = read_volume(tmp_path / f"labels{suffix}").affine
        np.testing.assert_allclose(found, volume.affine, rtol=1e-12)
    heads = [(tmp_path / name).read_bytes()[:400] for name in ("a.mha", "labels.mha")]
    lines = [re.findall(rb"(?m)^(?:DistanceUnits|ElementSpacing|Offset) = .*$", h) for h in heads]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 3
