from __future__ import annotations

import numpy as np
import ome_zarr_models
import pytest
import zarr

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import is_label_map, read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

TASK = Task("cells", (Label(1, "nucleus", "#0072B2"), Label(300, "wall", "#D55E00")))


@pytest.fixture(params=["0.4", "0.5"])
def pyramid(request, tmp_path):
    """(t 1, c 2, z 4, y 6, x 8) of 2 x 0.5 x 0.25 µm, and a level of half the size in y and x."""
    version = request.param
    path = tmp_path / "cells.ome.zarr"
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    data = np.arange(384, dtype=np.uint16).reshape(1, 2, 4, 6, 8)
    group.create_array("full", data=data)
    group.create_array("half", data=np.ascontiguousarray(data[..., ::2, ::2]))

    def steps(*scale, shift):
        return [
            {"type": "scale", "scale": [1, 1, *scale]},
            {"type": "translation", "translation": [0, 0, 10, 0, shift]},
        ]

    multiscale = {
        "version": version,
        "axes": [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
        + [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"],
        "datasets": [
            {"path": "full", "coordinateTransformations": steps(2, 0.5, 0.25, shift=0)},
            {"path": "half", "coordinateTransformations": steps(2, 1, 0.5, shift=0.125)},
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 10, 1, 1]}],
    }
    ome = {
        "multiscales": [multiscale],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
    }
    group.attrs.update(ome if version == "0.4" else {"ome": {"version": version, **ome}})
    return path


def test_the_finest_level_is_read_with_its_unit(pyramid):
    volume = read_volume(pyramid)
    assert volume.data.shape == (2, 4, 6, 8)
    assert volume.data[1, 3, 5, 7] == 383
    assert volume.channel_names == ("DAPI", "GFP")
    np.testing.assert_allclose(volume.spacing, (20e-3, 0.5e-3, 0.25e-3))
    np.testing.assert_allclose(volume.affine[:3, 3], (100e-3, 0, 0))


def test_a_level_is_chosen_and_lies_where_it_should(pyramid):
    volume = read_volume(pyramid, level=1)
    assert volume.data.shape == (2, 4, 3, 4)
    np.testing.assert_allclose(volume.spacing, (20e-3, 1e-3, 0.5e-3))
    np.testing.assert_allclose(volume.affine[:3, 3], (100e-3, 0, 0.125e-3))
    with pytest.raises(UserError, match="a level from 0 to 1"):
        read_volume(pyramid, level=2)


def test_labels_have_the_geometry_of_the_chosen_level(pyramid, tmp_path):
    volume = read_volume(pyramid, level=1)
    for name in ("labels.ome.zarr", "labels.nii.gz"):
        write_labels(tmp_path / name, volume.data[0] > 3, volume)
        labels, geometry = read_labels(tmp_path / name)
        assert labels.shape == (4, 3, 4)
        np.testing.assert_allclose(geometry.affine, volume.affine, rtol=1e-6, atol=1e-12)


def test_units_of_nanometres_are_no_flat_space(tmp_path, image):
    write_volume(tmp_path / "a.zarr", Volume(image.data, np.diag([5e-5, 5e-6, 4e-6, 1])))
    group = zarr.open_group(tmp_path / "a.zarr")
    ome = group.attrs["ome"]
    ome["multiscales"][0]["axes"] = [
        {"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"
    ]
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [50, 5, 4]}
    ]
    group.attrs["ome"] = ome
    np.testing.assert_allclose(read_volume(tmp_path / "a.zarr").spacing, (5e-5, 5e-6, 4e-6))


def test_labels_take_the_version_and_numbers_of_the_image(pyramid, tmp_path):
    volume = read_volume(pyramid)
    labels = np.arange(192).reshape(4, 6, 8)
    labels[labels != 1] = 300
    write_labels(tmp_path / "labels.ome.zarr", labels, volume, TASK)
    found, geometry = read_labels(tmp_path / "labels.ome.zarr")
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(geometry.affine, volume.affine, rtol=1e-15)
    old, new = (zarr.open_group(p, mode="r") for p in (pyramid, tmp_path / "labels.ome.zarr"))
    assert new.metadata.zarr_format == old.metadata.zarr_format


@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_follows_the_specification(tmp_path, image, channels):
    data = np.stack([image.data] * channels) if channels > 1 else image.data
    names = ("a", "b") if channels > 1 else ("image",)
    volume = Volume(data, np.diag([3.0, 2, 1.5, 1]), names)
    write_volume(tmp_path / "image.ome.zarr", volume)
    write_labels(tmp_path / "labels.ome.zarr", image.data % 2, volume, TASK)
    for name in ("image", "labels"):
        group = zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r")
        model = ome_zarr_models.open_ome_zarr(group, version="0.5")
        assert model.attributes.ome.multiscales[0].ndim == (
            4 if (channels, name) == (2, "image") else 3
        )
    assert read_volume(tmp_path / "image.ome.zarr").channel_names == names


def test_names_and_colours_are_kept(tmp_path, image):
    write_labels(tmp_path / "labels.ome.zarr", image.data % 2, image, TASK)
    block = zarr.open_group(tmp_path / "labels.ome.zarr", mode="r").attrs["ome"]["image-label"]
    assert block["properties"][1] == {"label-value": 300, "name": "wall"}
    assert block["colors"][0] == {"label-value": 1, "rgba": [0, 0x72, 0xB2, 255]}
    volume = read_volume(tmp_path / "labels.ome.zarr")
    assert is_label_map(volume)
    assert volume.header["labels"] == [(1, "nucleus", "#0072B2"), (300, "wall", "#D55E00")]


def test_a_changed_scale_beats_the_affine_we_stored(tmp_path, image):
    path = tmp_path / "image.zarr"
    write_volume(path, image)
    np.testing.assert_array_equal(read_volume(path).affine, image.affine)
    group = zarr.open_group(path)
    ome = group.attrs["ome"]
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [3, 1, 1.5]
    group.attrs["ome"] = ome
    assert read_volume(path).spacing == (3, 1, 1.5)


def test_the_affine_we_stored_holds_for_all_levels(tmp_path):
    """Somebody added a level of half the size, whose voxels begin where those of the first do."""
    path, data = tmp_path / "image.zarr", np.zeros((4, 6, 8), np.uint8)
    affine = np.array([[2, 0.3, 0, 5], [-0.6, 1, 0.1, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    write_volume(path, Volume(data, affine))
    group = zarr.open_group(path)
    group.create_array("1", data=data[::2, ::2, ::2].copy())
    ome = group.attrs["ome"]
    datasets = ome["multiscales"][0]["datasets"]
    scale, shift = (
        np.array(step[step["type"]]) for step in datasets[0]["coordinateTransformations"]
    )
    steps = [
        {"type": "scale", "scale": (2 * scale).tolist()},
        {"type": "translation", "translation": (shift + scale / 2).tolist()},
    ]
    datasets.append({"path": "1", "coordinateTransformations": steps})
    group.attrs["ome"] = ome
    fine, coarse = (read_volume(path, level).geometry for level in (0, 1))
    np.testing.assert_array_equal(fine.affine, affine)
    for index in np.ndindex(2, 2, 2):  # each corner of the volume
        end = np.array(index) * (4, 6, 8) - 0.5
        half = np.array(index) * (2, 3, 4) - 0.5
        np.testing.assert_allclose(coarse.to_world(half), fine.to_world(end), atol=1e-9)


def test_an_empty_omero_block_names_no_channels(pyramid):
    group = zarr.open_group(pyramid)
    if "ome" in group.attrs:
        group.attrs["ome"] = {**group.attrs["ome"], "omero": None}
    else:
        group.attrs["omero"] = None
    assert read_volume(pyramid).channel_names == ("channel 0", "channel 1")


def test_a_plane_becomes_one_slice(tmp_path):
    group = zarr.create_group(tmp_path / "plane.zarr")
    group.create_array("0", data=np.arange(6).reshape(2, 3))
    steps = [{"type": "scale", "scale": [0.5, 0.25]}]
    axes = [{"name": a, "type": "space", "unit": "millimeter"} for a in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    multiscales = [{"axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    volume = read_volume(tmp_path / "plane.zarr")
    assert volume.data.shape == (1, 2, 3)
    assert volume.spacing == (1, 0.5, 0.25)


def test_labels_inside_an_image_folder_are_found_without_a_suffix(tmp_path, image):
    write_volume(tmp_path / "image.zarr", image)
    write_labels(tmp_path / "cells.zarr", image.data, image)
    (tmp_path / "image.zarr" / "labels").mkdir()
    (tmp_path / "cells.zarr").rename(tmp_path / "image.zarr" / "labels" / "cells")
    np.testing.assert_array_equal(
        read_labels(tmp_path / "image.zarr" / "labels" / "cells")[0], image.data
    )
