from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from napari_ka2er.core.io import is_label_map, read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

RAS_NRRD = """NRRD0005
# made by hand
type: short
dimension: 3
space: right-anterior-superior
sizes: 4 3 2
space directions: (0.1,1.5,0) (-2,0,0.3) (0,0,3)
kinds: domain domain domain
endian: little
encoding: gzip
space origin: (10.123456789012345,20,30)
measurement frame: (1,0,0) (0,0,1) (0,1,0)

"""


@pytest.fixture
def ras_nrrd(tmp_path):
    """Voxels 0 … 23; a sheared lattice in a space other than ITK's own."""
    body = gzip.compress(np.arange(24, dtype="<i2").tobytes())
    (tmp_path / "ras.nrrd").write_bytes(RAS_NRRD.encode() + body)
    return tmp_path / "ras.nrrd"


def test_an_nrrd_in_ras_lies_where_its_header_says(ras_nrrd):
    volume = read_volume(ras_nrrd)
    assert volume.data.shape == (2, 3, 4)
    assert volume.data[1, 2, 3] == 23
    # origin + 3 * (0.1, 1.5, 0) + 2 * (-2, 0, 0.3) + 1 * (0, 0, 3), in (x, y, z)
    expected = (10.123456789012345 + 0.3 - 4, 20 + 4.5, 30 + 0.6 + 3)
    np.testing.assert_allclose(volume.geometry.to_world((1, 2, 3))[::-1], expected, rtol=1e-14)


def test_labels_on_an_nrrd_repeat_its_geometry_letter_by_letter(ras_nrrd, tmp_path):
    volume = read_volume(ras_nrrd)
    write_labels(tmp_path / "labels.nrrd", volume.data, volume)
    head = (tmp_path / "labels.nrrd").read_bytes().split(b"\n\n")[0].decode().splitlines()
    for line in RAS_NRRD.splitlines():
        if line.startswith(("space", "measurement", "sizes", "dimension")):
            assert line in head
    labels, geometry = read_labels(tmp_path / "labels.nrrd")
    np.testing.assert_array_equal(labels, volume.data)
    np.testing.assert_array_equal(geometry.affine, volume.affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_lps_is_turned_to_ras(tmp_path, suffix):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    image.SetSpacing((1.5, 2, 3))
    image.SetOrigin((10, 20, 30))
    image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, tmp_path / f"image{suffix}")
    volume = read_volume(tmp_path / f"image{suffix}")
    # LPS (x, y, z) of voxel (x 3, y 2, z 1): (10 - 2 * 2, 20 + 1.5 * 3, 30 + 3)
    np.testing.assert_allclose(volume.geometry.to_world((1, 2, 3)), (33, -24.5, -6))
    assert volume.spacing == (3, 2, 1.5)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_channels_come_first_and_labels_have_none(tmp_path, image, suffix):
    data = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4)
    write_volume(tmp_path / f"two{suffix}", Volume(data, image.affine, ("a", "b")))
    assert sitk.ReadImage(tmp_path / f"two{suffix}").GetNumberOfComponentsPerPixel() == 2
    volume = read_volume(tmp_path / f"two{suffix}")
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, image.affine)
    write_volume(tmp_path / f"again{suffix}", volume)
    np.testing.assert_array_equal(read_volume(tmp_path / f"again{suffix}").affine, volume.affine)
    write_labels(tmp_path / f"labels{suffix}", image.data, volume)
    labels, geometry = read_labels(tmp_path / f"labels{suffix}")
    np.testing.assert_array_equal(labels, image.data)
    np.testing.assert_array_equal(geometry.affine, volume.affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_plane_becomes_one_slice_and_its_labels_a_plane(tmp_path, suffix):
    plane = sitk.GetImageFromArray(np.arange(6, dtype=np.int16).reshape(2, 3))
    plane.SetSpacing((0.5, 0.7))
    plane.SetOrigin((4, 5))
    sitk.WriteImage(plane, tmp_path / f"plane{suffix}")
    volume = read_volume(tmp_path / f"plane{suffix}")
    assert volume.data.shape == (1, 2, 3)
    assert volume.spacing == (1, 0.7, 0.5)
    np.testing.assert_allclose(volume.geometry.to_world((0, 1, 2)), (0, -5.7, -5))
    write_labels(tmp_path / f"labels{suffix}", volume.data, volume)
    back = sitk.ReadImage(tmp_path / f"labels{suffix}")
    assert (back.GetSize(), back.GetSpacing(), back.GetOrigin()) == ((3, 2), (0.5, 0.7), (4, 5))


@pytest.mark.parametrize("name", ["image.nhdr", "image.mhd"])
def test_detached_headers_are_read(tmp_path, name):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    sitk.WriteImage(image, tmp_path / name)
    assert read_volume(tmp_path / name).data[1, 2, 3] == 23


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_names_and_colours_are_kept_as_3d_slicer_does(tmp_path, image, suffix):
    task = Task("teeth", (Label(2, "molar", "#0072B2"), Label(7, "canine", "#D55E00")))
    labels = np.where(image.data > 5, 7, 2)
    path = tmp_path / f"labels{suffix}"
    write_labels(path, labels, image, task)
    written = sitk.ReadImage(path)
    assert written.GetMetaData("Segment1_Name") == "canine"
    assert written.GetMetaData("Segment1_LabelValue") == "7"
    volume = read_volume(path)
    assert is_label_map(volume)
    assert volume.header["labels"] == [(2, "molar", "#0072B2"), (7, "canine", "#D55E00")]
