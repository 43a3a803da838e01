"""The napari contributions, called as napari calls them, and through npe2 itself."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels, Layer
from npe2 import DynamicPlugin, PluginManager

from napari_ka2er._reader import get_reader
from napari_ka2er._transforms import affine_of
from napari_ka2er._writer import volume_of, write_image, write_labels
from napari_ka2er.core import io
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

TASK = Task("teeth", (Label(1, "molar", "#0072B2"), Label(2, "canine", "#D55E00")))
# Oblique, flipped and anisotropic; (z, y, x, 1) -> RAS+ mm.
AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0.3, 20], [0.1, 0, 3, 30], [0, 0, 0, 1]])


@pytest.fixture
def volume() -> Volume:
    return Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AFFINE)


def layers_in(path):
    return [Layer.create(*data) for data in get_reader(str(path))(str(path))]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".ome.tif", ".ome.zarr"])
def test_an_image_lies_in_the_viewer_where_it_lies_in_the_patient(tmp_path, volume, suffix):
    io.write_volume(tmp_path / f"scan{suffix}", volume)
    (layer,) = layers_in(tmp_path / f"scan{suffix}")
    assert isinstance(layer, Image)
    assert layer.name == "scan"
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    np.testing.assert_allclose(
        layer.data_to_world((1, 2, 3)), volume.geometry.to_world((1, 2, 3)), rtol=1e-9
    )


def test_each_channel_becomes_a_layer(tmp_path, volume):
    both = Volume(np.stack([volume.data, volume.data + 50]), AFFINE, ("T1", "T2"))
    io.write_volume(tmp_path / "both.ome.zarr", both)
    first, second = layers_in(tmp_path / "both.ome.zarr")
    assert (first.name, second.name) == ("both T1", "both T2")
    np.testing.assert_array_equal(second.data, volume.data + 50)


def test_colours_become_one_rgb_layer_and_are_saved_again(tmp_path):
    rgb = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    tifffile.imwrite(tmp_path / "photo.tif", rgb, photometric="rgb")
    (layer,) = layers_in(tmp_path / "photo.tif")
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, rgb[None])
    data, attributes, _ = layer.as_layer_data_tuple()
    write_image(str(tmp_path / "photo.nrrd"), data, attributes)
    np.testing.assert_array_equal(
        io.read_volume(tmp_path / "photo.nrrd").data, np.moveaxis(rgb, -1, 0)[:, None]
    )


def test_labels_come_with_names_and_colours_and_can_be_painted(tmp_path, volume):
    io.write_labels(tmp_path / "labels.ome.zarr", volume.data % 3, volume, TASK)
    (layer,) = layers_in(tmp_path / "labels.ome.zarr")
    assert isinstance(layer, Labels)
    np.testing.assert_allclose(layer.get_color(2), (0xD5 / 255, 0x5E / 255, 0, 1), atol=1e-6)
    assert layer.get_color(9)[3] == 1, "a label without a name must be visible too"
    assert layer.features["name"].tolist() == ["molar", "canine"]
    layer.paint((0, 0, 0), 2)
    assert layer.data[0, 0, 0] == 2


@pytest.mark.parametrize(("folder", "kind"), [("labelsTr", Labels), ("imagesTr", Image)])
def test_whole_numbers_are_labels_where_nnunet_keeps_labels(tmp_path, volume, folder, kind):
    (tmp_path / folder).mkdir()
    io.write_volume(tmp_path / folder / "case_001.nii.gz", volume)
    (layer,) = layers_in(tmp_path / folder / "case_001.nii.gz")
    assert isinstance(layer, kind)


@pytest.mark.parametrize("path", ["notes.txt", "missing.nii.gz", "", ["a.nii", "b.nii"]])
def test_other_paths_are_left_to_other_plugins(tmp_path, path):
    (tmp_path / "notes.txt").write_text("text")
    asked = path if isinstance(path, list) else str(tmp_path / path)
    assert get_reader(asked) is None


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_saved_labels_have_the_images_own_geometry(tmp_path, volume, suffix):
    """What the annotator does: open, make a labels layer on the image, paint, save."""
    path = tmp_path / f"scan{suffix}"
    io.write_volume(path, volume)
    (image,) = layers_in(path)
    place = {"scale": image.scale, "affine": image.affine}  # as napari's "new labels" does
    labels = Labels(np.zeros(image.data.shape, int), **place, metadata=image.metadata)
    labels.data[1, 2, 3] = 5
    data, attributes, _ = labels.as_layer_data_tuple()
    assert write_labels(str(tmp_path / f"mask{suffix}"), data, attributes)
    found, geometry = io.read_labels(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(found, labels.data)
    np.testing.assert_array_equal(geometry.affine, io.read_volume(path).affine)
    labels.data[0, 0, 0] = 1  # still the user's own array


@pytest.mark.parametrize("units", [None, ("mm", "mm", "mm"), ("um", "um", "um")])
def test_all_of_a_layers_transforms_count(units):
    layer = Labels(np.zeros((2, 3, 4), int), affine=AFFINE, scale=(3, 2, 1), units=units)
    layer.translate = (5, 6, 7)
    layer.rotate = (10, 20, 30)
    layer.shear = (0.1, 0.2, 0.3)
    _, attributes, _ = layer.as_layer_data_tuple()
    factor = 1e-3 if units and units[0] == "um" else 1
    for index in [(0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 3)]:
        np.testing.assert_allclose(
            affine_of(attributes, 3) @ (*index, 1),
            (*(np.array(layer.data_to_world(index)) * factor), 1),
            atol=1e-9,
        )


def test_a_plane_is_saved_as_one_slice():
    layer = Labels(np.ones((3, 4), int), scale=(2, 0.5), translate=(7, 8))
    data, attributes, _ = layer.as_layer_data_tuple()
    volume = volume_of(data, attributes)
    assert volume.shape == (1, 3, 4)
    np.testing.assert_array_equal(volume.geometry.to_world((0, 1, 2)), (0, 9, 9))


def test_the_finest_level_of_a_pyramid_is_saved(tmp_path):
    fine = np.random.default_rng(0).random((4, 6, 8), np.float32)
    layer = Image([fine, fine[::2, ::2, ::2]], multiscale=True)
    data, attributes, _ = layer.as_layer_data_tuple()
    write_image(str(tmp_path / "a.nii"), data, attributes)
    np.testing.assert_array_equal(io.read_volume(tmp_path / "a.nii").data, fine)


def test_a_time_series_is_refused():
    layer = Image(np.zeros((2, 3, 4, 5)))
    data, attributes, _ = layer.as_layer_data_tuple()
    with pytest.raises(UserError, match="2 or 3 dimensions, got 4"):
        volume_of(data, attributes)


def test_npe2_finds_reader_and_writer(tmp_path, volume):
    """As napari does it, with a manager of our own so that no other plugin takes part."""
    manager = PluginManager()
    with DynamicPlugin("test-ka2er", plugin_manager=manager) as plugin:
        plugin.contribute.reader(filename_patterns=["*.nrrd"])(get_reader)
        plugin.contribute.writer(layer_types=["labels"], filename_extensions=[".nrrd"])(
            write_labels
        )
        io.write_volume(tmp_path / "scan.nrrd", volume)
        ((data, attributes, kind),) = manager_read(manager, tmp_path / "scan.nrrd")
        assert kind == "image"
        np.testing.assert_array_equal(data, volume.data)
        layer = Labels(
            data % 3, **{name: attributes[name] for name in ("scale", "affine", "metadata")}
        )
        written = manager_write(manager, tmp_path / "mask.nrrd", layer)
    assert written == [str(tmp_path / "mask.nrrd")]
    np.testing.assert_allclose(io.read_labels(tmp_path / "mask.nrrd")[1].affine, AFFINE)


def manager_read(manager, path):
    reader = next(iter(manager.iter_compatible_readers([str(path)])))
    function = reader.exec(
        kwargs={"path": [str(path)], "stack": False, "_registry": manager.commands}
    )
    return function([str(path)], stack=False)


def manager_write(manager, path, layer):
    writer, chosen = manager.get_writer(str(path), ["labels"])
    return writer.exec(args=(chosen, *layer.as_layer_data_tuple()[:2]), _registry=manager.commands)
