from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_ka2er.core.io import is_label_map, read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.volume import Volume


def test_an_index_maps_to_the_position_that_nibabel_gives(tmp_path):
    affine = np.array([[0, 1.5, 0, -10], [-0.8, 0, 0, 20], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    data = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)  # (X, Y, Z) in the file
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "image.nii.gz")

    volume = read_volume(tmp_path / "image.nii.gz")

    assert volume.data.shape == (4, 3, 2)
    assert volume.data[3, 2, 1] == data[1, 2, 3]
    assert volume.name == "image"
    np.testing.assert_allclose(volume.spacing, (3, 1.5, 0.8), rtol=1e-6)
    position = volume.geometry.to_world((3, 2, 1))
    np.testing.assert_allclose(position[::-1], (affine @ (1, 2, 3, 1))[:3], rtol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_scaled_values_are_floats_and_others_stay_as_stored(tmp_path, scaled):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nib.Nifti1Image(values, np.eye(4))
    if scaled:
        image.header.set_slope_inter(0.5, -100)
    nib.save(image, tmp_path / "image.nii")
    data = read_volume(tmp_path / "image.nii").data
    assert data.dtype == (np.float32 if scaled else np.int16)
    assert data[3, 2, 1] == (23 * 0.5 - 100 if scaled else 23)


def test_a_label_file_forgets_the_images_scaling(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    image.header["cal_max"] = 300
    nib.save(image, tmp_path / "image.nii")
    labels = np.arange(24).reshape(4, 3, 2)
    write_labels(tmp_path / "labels.nii", labels, read_volume(tmp_path / "image.nii"))
    found = nib.load(tmp_path / "labels.nii")
    assert (found.dataobj.slope, found.dataobj.inter) == (1, 0)
    assert found.header["cal_max"] == 0
    np.testing.assert_array_equal(np.asarray(found.dataobj), labels.T)
    assert is_label_map(read_volume(tmp_path / "labels.nii"))
    assert not is_label_map(read_volume(tmp_path / "image.nii"))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_label_file_says_nothing_of_the_patient(tmp_path, kind):
    image = kind(np.zeros((2, 3, 4), np.int16), np.eye(4))
    for name in ("descrip", "aux_file", "db_name", "data_type", "intent_name"):
        if name in image.header:
            image.header[name] = b"Doe^Jane"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    nib.save(image, tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    write_labels(tmp_path / "labels.nii", np.zeros((4, 3, 2), int), volume)
    assert b"Doe^Jane" in (tmp_path / "image.nii").read_bytes()
    assert b"Doe^Jane" not in (tmp_path / "labels.nii").read_bytes()
    header = volume.header["nifti"]
    assert (len(header.extensions), header["descrip"]) == (1, b"Doe^Jane"), (
        "the image's own header stays as it was"
    )


def test_big_endian_files_are_read_in_native_order_and_stay_big_endian(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    data = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(data, np.eye(4), header), tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data, data.T)
    write_labels(tmp_path / "labels.nii", volume.data, volume)
    assert nib.load(tmp_path / "labels.nii").header.endianness == ">"
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii")[0], data.T)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 1, 1)])
def test_a_plane_becomes_one_slice_and_its_labels_a_plane(tmp_path, shape):
    data = np.arange(6, dtype=np.int16).reshape(shape)
    nib.save(nib.Nifti1Image(data, np.diag([0.5, 0.7, 4, 1])), tmp_path / "plane.nii.gz")
    volume = read_volume(tmp_path / "plane.nii.gz")
    np.testing.assert_array_equal(volume.data, [[[0, 3], [1, 4], [2, 5]]])
    np.testing.assert_allclose(volume.spacing, (4, 0.7, 0.5), rtol=1e-6)
    write_labels(tmp_path / "labels.nii.gz", volume.data, volume)
    assert nib.load(tmp_path / "labels.nii.gz").shape == (shape if len(shape) < 4 else shape[:3])
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz")[0], volume.data)


def test_a_qform_counts_where_there_is_no_sform(tmp_path):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4))
    image.set_sform(np.eye(4), code=0)
    image.set_qform(np.diag([-1, -2, 3, 1]), code=1)
    nib.save(image, tmp_path / "image.nii")
    np.testing.assert_allclose(
        read_volume(tmp_path / "image.nii").affine, np.diag([3, -2, -1, 1]), atol=1e-6
    )


def test_a_fifth_axis_holds_channels(tmp_path):
    data = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 1, 5)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "vector.nii")
    volume = read_volume(tmp_path / "vector.nii")
    assert volume.data.shape == (5, 4, 3, 2)
    assert volume.data[4, 3, 2, 1] == data[1, 2, 3, 0, 4]
    assert volume.channel_names[4] == "channel 4"
    write_volume(tmp_path / "again.nii", volume)
    assert nib.load(tmp_path / "again.nii").header.get_intent()[0] == "vector"
    np.testing.assert_array_equal(read_volume(tmp_path / "again.nii").data, volume.data)


def test_a_fourth_axis_holds_channels_if_the_intent_says_so(tmp_path):
    data = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    image = nib.Nifti1Image(data, np.eye(4))
    image.header.set_intent("vector")
    nib.save(image, tmp_path / "vector.nii")
    assert read_volume(tmp_path / "vector.nii").data[4, 3, 2, 1] == data[1, 2, 3, 4]


def test_rgb_voxels_become_three_channels(tmp_path):
    rgb = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb[1, 2, 3] = (10, 20, 30)
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "color.nii")
    volume = read_volume(tmp_path / "color.nii")
    assert volume.channel_names == ("red", "green", "blue")
    assert volume.data[:, 3, 2, 1].tolist() == [10, 20, 30]


def test_a_moved_volume_does_not_take_its_old_header(tmp_path, image):
    write_volume(tmp_path / "image.nii", image)
    read = read_volume(tmp_path / "image.nii")
    moved = Volume(read.data, np.diag([9.0, 8, 7, 1]), header=read.header)
    write_volume(tmp_path / "moved.nii", moved)
    np.testing.assert_allclose(read_volume(tmp_path / "moved.nii").affine, moved.affine)


def test_a_shear_is_kept_in_the_sform_and_the_qform_is_marked_unknown(tmp_path, image):
    affine = image.affine.copy()
    affine[1, 0] = 0.9  # gantry tilt: each slice lies 0.9 mm further back
    write_volume(tmp_path / "tilted.nii", Volume(image.data, affine))
    header = nib.load(tmp_path / "tilted.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(read_volume(tmp_path / "tilted.nii").affine, affine, atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int64, np.longdouble])
def test_types_without_a_place_in_files_are_stored_in_one_that_has(tmp_path, dtype):
    volume = Volume((np.arange(24) % 2).reshape(2, 3, 4).astype(dtype), np.eye(4))
    for suffix in (".nii", ".nrrd", ".mha", ".zarr"):
        write_volume(tmp_path / f"a{suffix}", volume)
        np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").data, volume.data)
