from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import is_label_map, read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

DATA = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


@pytest.fixture
def imagej(tmp_path):
    """Voxels of 2 x 0.5 x 0.25 µm."""
    path = tmp_path / "cells.tif"
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, DATA, imagej=True, resolution=(4, 2), metadata=metadata)
    return path


def test_imagej_spacing_is_read_with_its_unit(imagej):
    volume = read_volume(imagej)
    np.testing.assert_array_equal(volume.data, DATA)
    np.testing.assert_allclose(volume.spacing, (2e-3, 0.5e-3, 0.25e-3))


def test_labels_on_an_imagej_file_repeat_its_numbers(imagej, tmp_path):
    write_labels(tmp_path / "labels.tif", DATA, read_volume(imagej))
    with tifffile.TiffFile(imagej) as old, tifffile.TiffFile(tmp_path / "labels.tif") as new:
        assert new.is_imagej
        for key in ("spacing", "unit", "images", "slices"):
            assert new.imagej_metadata[key] == old.imagej_metadata[key]
        for tag in ("XResolution", "YResolution", "ResolutionUnit"):
            assert new.pages[0].tags[tag].value == old.pages[0].tags[tag].value
    assert read_labels(tmp_path / "labels.tif")[0].dtype == np.uint8


def test_labels_that_imagej_has_no_type_for_become_ome(imagej, tmp_path):
    volume = read_volume(imagej)
    write_labels(tmp_path / "labels.tif", DATA.astype(int) * 10_000, volume)
    labels, geometry = read_labels(tmp_path / "labels.tif")
    assert labels.dtype == np.uint32
    np.testing.assert_allclose(geometry.affine, volume.affine, rtol=1e-12)


def test_ome_sizes_units_positions_and_channels(tmp_path):
    data = np.stack([DATA, DATA + 100])
    metadata = {
        "axes": "CZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm", "PhysicalSizeY": 500.0,
        "PhysicalSizeYUnit": "nm", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "mm",
        "Channel": {"Name": ["DAPI", "GFP"]},
        "Plane": {"PositionX": [7.0] * 4, "PositionXUnit": ["µm"] * 4},
    }  # fmt: skip
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.channel_names == ("DAPI", "GFP")
    assert volume.name == "cells"
    np.testing.assert_allclose(volume.spacing, (2e-3, 5e-4, 0.1))
    np.testing.assert_allclose(volume.affine[:3, 3], (0, 0, 7e-3))

    write_labels(tmp_path / "labels.ome.tif", DATA, volume)
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        assert 'PhysicalSizeY="500.0" PhysicalSizeYUnit="nm"' in file.ome_metadata
    labels, geometry = read_labels(tmp_path / "labels.ome.tif")
    np.testing.assert_array_equal(labels, DATA)
    np.testing.assert_array_equal(geometry.affine, volume.affine)


def test_a_plain_tiff_has_voxels_of_1_mm(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", DATA, resolution=(72, 72), metadata=None)
    assert read_volume(tmp_path / "plain.tif").spacing == (1, 1, 1)


def test_voxels_of_a_confocal_microscope_are_read(tmp_path):
    sizes = {"PhysicalSizeZ": 0.2, "PhysicalSizeY": 0.065, "PhysicalSizeX": 0.065}
    units = {f"{axis}Unit": "µm" for axis in sizes}
    path = tmp_path / "cells.ome.tif"
    metadata = {"axes": "ZYX", **sizes, **units}
    tifffile.imwrite(path, DATA, ome=True, photometric="minisblack", metadata=metadata)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (2e-4, 6.5e-5, 6.5e-5))
    for ending in (".tif", ".nii.gz", ".nrrd", ".mha", ".zarr"):
        write_labels(tmp_path / f"labels{ending}", DATA, volume)
        geometry = read_labels(tmp_path / f"labels{ending}")[1]
        np.testing.assert_allclose(geometry.affine, volume.affine, rtol=1e-6, atol=1e-12)


def write_sidecar(path, spacing):
    path.write_text(json.dumps({"spacing": spacing}))


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [("c_0000.tif", "c.json"), ("c.tif", "c.json"), ("c_0001.tif", "c_0001.json")],
    ids=["image", "label map", "label map of a case with a number"],
)
@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}], ids=str)
def test_a_file_without_spacing_has_the_one_that_nnunet_keeps_beside_it(
    tmp_path, name, sidecar, options
):
    options = options | {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / name, DATA, **options)
    write_sidecar(tmp_path / sidecar, [5.0, 0.7, 0.3])
    volume = read_volume(tmp_path / name)
    assert volume.spacing == (5.0, 0.7, 0.3)
    write_labels(tmp_path / "out.tif", DATA, volume)
    assert read_labels(tmp_path / "out.tif")[1].spacing == (5.0, 0.7, 0.3)
    write_sidecar(tmp_path / "out.json", [1.0, 1.0, 1.0])
    assert read_labels(tmp_path / "out.tif")[1].spacing == (5.0, 0.7, 0.3)


def test_what_nnunet_reads_is_what_we_read(tmp_path):
    reader = pytest.importorskip("nnunetv2.imageio.tif_reader_writer").Tiff3DIO()
    data = np.arange(30, dtype=np.uint16).reshape(2, 3, 5)
    reader.write_seg(data, str(tmp_path / "c.tif"), {"spacing": [5.0, 0.7, 0.3]})
    tifffile.imwrite(tmp_path / "c_0000.tif", data)
    for name, values in (
        ("c.tif", reader.read_seg(str(tmp_path / "c.tif"))),
        ("c_0000.tif", reader.read_images([str(tmp_path / "c_0000.tif")])),
    ):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.data, values[0][0])
        assert volume.spacing == tuple(values[1]["spacing"])


def test_the_spacing_in_the_file_comes_first(imagej):
    write_sidecar(imagej.with_suffix(".json"), [5.0, 0.7, 0.3])
    np.testing.assert_allclose(read_volume(imagej).spacing, (2e-3, 0.5e-3, 0.25e-3))


@pytest.mark.parametrize(
    "text", ['{"spacing": [1, 2]}', '{"spacing": [1, 2, 0]}', '{"spacing": "x"}', "{", '"\\ud8"']
)
def test_a_broken_file_of_spacing_is_refused(tmp_path, text):
    tifffile.imwrite(tmp_path / "c_0000.tif", DATA)
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match=r"three lengths above 0.*c\.json"):
        read_volume(tmp_path / "c_0000.tif")


def test_other_json_beside_a_file_is_left_alone(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", DATA)
    for text in ('{"author": "x"}', "[1, 2, 3]"):
        (tmp_path / "c.json").write_text(text)
        assert read_volume(tmp_path / "c.tif").spacing == (1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((3, 4), "YX", (1, 3, 4)),
        ((2, 3, 4), "CYX", (2, 1, 3, 4)),
        ((2, 5, 3, 4), "ZCYX", (5, 2, 3, 4)),
    ],
)
def test_missing_axes_are_added(tmp_path, shape, axes, expected):
    data = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": axes})
    volume = read_volume(tmp_path / "a.tif")
    assert volume.data.shape == expected
    moved = np.moveaxis(data, 1, 0) if axes == "ZCYX" else data
    np.testing.assert_array_equal(volume.data.ravel(), moved.ravel())


def test_colours_become_channels(tmp_path):
    rgb = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    volume = read_volume(tmp_path / "rgb.tif")
    assert volume.channel_names == ("red", "green", "blue")
    assert volume.data[:, 0, 2, 3].tolist() == rgb[2, 3].tolist()


def test_channels_of_an_imagej_file_are_written_in_its_order(tmp_path):
    data = np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4)  # (Z, C, Y, X) in the file
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "ZCYX"})
    write_volume(tmp_path / "b.tif", read_volume(tmp_path / "a.tif"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), data)


def test_a_changed_spacing_beats_the_affine_we_stored(tmp_path):
    """Somebody resampled the file with a program that keeps our field but not its meaning."""
    affine = np.eye(4)[[1, 0, 2, 3]]
    write_volume(tmp_path / "a.tif", Volume(DATA, affine))
    path = tmp_path / "a.tif"
    np.testing.assert_array_equal(read_volume(path).affine, affine)
    xml = tifffile.tiffcomment(path).replace('PhysicalSizeX="1.0"', 'PhysicalSizeX="0.5"')
    tifffile.tiffcomment(path, xml.encode())
    assert read_volume(path).spacing == (1, 1, 0.5)


def test_names_and_colours_are_kept(tmp_path, image):
    task = Task("cells", (Label(1, "nucleus & <wall>"),))
    write_labels(tmp_path / "labels.ome.tif", image.data > 5, image, task)
    volume = read_volume(tmp_path / "labels.ome.tif")
    assert is_label_map(volume)
    assert volume.header["labels"] == [(1, "nucleus & <wall>", task.labels[0].color)]


def test_values_that_ome_has_no_type_for_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"OME-TIFF can hold, got .*int64"):
        write_volume(tmp_path / "a.tif", Volume(DATA.astype(np.int64), np.eye(4)))
    assert not list(tmp_path.iterdir())
