from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import (
    WRITTEN_SUFFIXES,
    check_target,
    distinct,
    read_labels,
    read_volume,
    volumes_in,
    write_labels,
    write_volume,
)
from napari_ka2er.core.io.atomic import make_folder, require_writable


def test_a_folder_of_one_dicom_series_is_one_volume(write_slices):
    folder = write_slices([{}, {}, {}])
    (folder / "readme.txt").write_text("no image")
    assert volumes_in(folder) == [folder]


def test_series_in_folders_of_their_own_are_one_volume_each(write_slices, tmp_path):
    a, b = (write_slices([{}, {}], folder) for folder in "ab")
    (tmp_path / "empty").mkdir()
    assert volumes_in(tmp_path) == [a, b]


def test_series_that_share_a_folder_are_found_by_their_first_files(write_slices, tmp_path):
    a, b = (write_slices([{}, {}, {}], folder) for folder in "ab")
    for file in b.iterdir():
        file.rename(a / f"b{file.name}")
    b.rmdir()
    found = volumes_in(a)
    assert found == [a / "7.dcm", a / "b7.dcm"]
    assert [read_volume(path).shape for path in found] == [(3, 2, 3)] * 2
    assert volumes_in(tmp_path) == found


def test_files_beside_a_series_are_volumes_too(write_slices, image):
    folder = write_slices([{}, {}])
    for name in ("a.nii.gz", "b.ome.zarr", "._a.nii.gz"):
        write_volume(folder / name, image)
    (folder / "b.ome.zarr").rename(folder / "b")  # its content tells
    assert volumes_in(folder) == [folder, folder / "a.nii.gz", folder / "b"]
    assert volumes_in(folder / "b") == [folder / "b"]
    assert [read_volume(path).shape for path in volumes_in(folder)] == [
        (2, 2, 3), image.shape, image.shape
    ]  # fmt: skip


def test_files_of_one_series_are_one_volume_called_as_the_first_that_was_named(write_slices):
    a, b = (write_slices([{}, {}, {}], folder) for folder in "ab")
    named = [a / "8.dcm", b / "7.dcm", a / "7.dcm", a, b / "9.dcm", a / "8.dcm"]
    assert distinct(named) == [a / "8.dcm", b / "7.dcm"]
    assert distinct([a, a / "7.dcm"]) == [a]


def test_the_series_of_a_folder_are_looked_up_once(write_slices, monkeypatch):
    from napari_ka2er.core.io import dicom

    folder = write_slices([{}] * 5)
    looked, real = [], dicom.series_in
    monkeypatch.setattr(dicom, "series_in", lambda path: looked.append(path) or real(path))
    assert len(distinct(sorted(folder.iterdir()))) == 1
    assert looked == [folder]


@pytest.mark.parametrize("place", ["file", "file/below/it", "/proc/x", "/proc/x/y"])
def test_folders_that_cannot_be_written_are_refused(tmp_path, place):
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match=r"wanted .*to write") as refused:
        require_writable(tmp_path / place)
    assert place in f"{refused.value}"
    with pytest.raises(UserError, match="wanted to write"):
        make_folder(tmp_path / place)


def test_asking_whether_a_folder_can_be_written_makes_nothing(tmp_path):
    require_writable(tmp_path / "new" / "below")
    check_target(tmp_path / "new" / "a.nii.gz")
    assert not list(tmp_path.iterdir())
    make_folder(tmp_path / "new" / "below")
    make_folder(tmp_path / "new" / "below")
    assert (tmp_path / "new" / "below").is_dir()


def test_targets_of_other_formats_and_folders_in_the_way_are_refused(tmp_path):
    (tmp_path / "a.nii").mkdir()
    for name in ("a.txt", "a.dcm", "a.nii"):
        with pytest.raises(UserError, match="a file"):
            check_target(tmp_path / name)


def test_a_fourth_axis_holds_as_many_channels_as_are_promised(tmp_path, image):
    import nibabel as nib

    data = np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii.gz")
    for promised in (2, None):
        volume = read_volume(tmp_path / "a.nii.gz", n_channels=promised)
        np.testing.assert_array_equal(volume.data, data.T)
    with pytest.raises(UserError, match="a time series"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match=r"3 channels as the fourth axis, got sizes \(2, 3, 4, 2\)"):
        read_volume(tmp_path / "a.nii.gz", n_channels=3)
    write_volume(tmp_path / "b.nii.gz", image)
    assert read_volume(tmp_path / "b.nii.gz", n_channels=2).n_channels == 1


def spellings(suffixes):
    """Each suffix in upper case and with one large letter: ``.NII.GZ``, ``.Nii.gz``."""
    return [f".{spelt}" for s in suffixes for spelt in (s[1:].upper(), s[1:].capitalize())]


@pytest.mark.parametrize("suffix", spellings(WRITTEN_SUFFIXES))
def test_the_case_of_a_suffix_does_not_count(tmp_path, image, suffix):
    write_labels(tmp_path / f"a{suffix}", image.data, image)
    labels, geometry = read_labels(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(labels, image.data)
    np.testing.assert_allclose(geometry.affine, image.affine, rtol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    assert volumes_in(tmp_path) == [tmp_path / f"a{suffix}"]


@pytest.mark.parametrize("suffix", spellings([".nhdr", ".mhd"]))
def test_the_case_of_a_detached_headers_suffix_does_not_count(tmp_path, image, suffix):
    header = tmp_path / f"a{suffix.lower()}"
    sitk.WriteImage(sitk.GetImageFromArray(image.data), header)
    header.rename(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").data, image.data)
