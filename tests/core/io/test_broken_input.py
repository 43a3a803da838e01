"""Input that cannot be used: one line on what was wanted and got, and nothing left behind."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.core.io.broken_files import MAKERS, NOISE, nan_voxels, time_series

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import (
    WRITTEN_SUFFIXES,
    read_labels,
    read_volume,
    write_labels,
    write_volume,
)
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume


def assert_one_line(error: UserError) -> None:
    assert "\n" not in f"{error}"
    assert f"{error}".startswith("wanted ")
    assert ", got " in f"{error}"
    assert len(f"{error}") < 500


def everything_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_unusable_files_are_refused_in_one_line(tmp_path, make, capfd):
    path = make(tmp_path)
    before = everything_in(tmp_path)
    with pytest.raises(UserError) as caught:
        read_volume(path)
    assert_one_line(caught.value)
    assert everything_in(tmp_path) == before
    assert capfd.readouterr().err == ""


def test_the_message_counts_the_voxels_that_are_not_finite(tmp_path):
    with pytest.raises(UserError, match=r"2 NaN and 1 infinite of 60 in nan\.nii\.gz"):
        read_volume(nan_voxels(tmp_path))


def test_a_time_series_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"\(3, 4, 5, 6\): a time series; extract one time point"):
        read_volume(time_series(tmp_path))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
@pytest.mark.parametrize(
    "name",
    ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.tif", "imagej.tif", "plain.tif", "pages.tif"],
)
def test_truncated_files_are_refused(tmp_path, name, share):
    path = tmp_path / name
    match name:
        case "imagej.tif":
            tifffile.imwrite(path, NOISE.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
        case "plain.tif":
            tifffile.imwrite(path, NOISE, compression="zlib", metadata=None)
        case "pages.tif":
            with tifffile.TiffWriter(path) as file:
                for plane in NOISE:
                    file.write(plane, contiguous=False, metadata=None)
        case _:
            write_volume(path, Volume(NOISE, np.eye(4)))
    np.testing.assert_array_equal(read_volume(path).data, NOISE)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(UserError) as caught:
        read_volume(path)
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {}, {"ImagePositionPatient": [-10, -20, 107.5]}], "slices every 3.75 mm"),
        ([{}, {}, {}, {"ImagePositionPatient": [-10, -20, 112.5]}], "a slice is missing"),
        ([{}, {}, {"ImagePositionPatient": [-10, -20, 100]}], "one slice at each position"),
        ([{}, {"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}], "one size, spacing and direction"),
        ([{}, {"PixelSpacing": [1, 1]}], "one size, spacing and direction"),
        ([{}, {"SeriesInstanceUID": "1.2.3"}], "one DICOM series"),
        ([{}, {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}], "not orthogonal"),
        ([{}, {"PixelData": b"1234"}], "readable DICOM file"),
        ([{"PixelSpacing": [0, 0]}, {"PixelSpacing": [0, 0]}], "a spacing above 0 and directions"),
        ([{"ImagePositionPatient": None}], "no position"),
        ([{}, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}], "mosaic of many; .*dcm2niix"),
        ([{"NumberOfFrames": 3}], "a position for each frame, got 3 frames without .*3D Slicer"),
    ],
)
def test_broken_series_are_refused(write_slices, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        read_volume(write_slices(changes))
    assert_one_line(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 3, 5), int), r"shape \(2, 3, 4\), got \(2, 3, 5\)"),
        (np.full((2, 3, 4), -1), "at least 0, got -1"),
        (np.full((2, 3, 4), 0.5), "fractions in 24 voxels"),
        (np.full((2, 3, 4), np.nan), "24 NaN"),
        (np.full((2, 3, 4), 3), r"labels of task teeth \(0, 1, 2\), got 3"),
        (np.full((2, 3, 4), 2.0**64), r"labels below 2\*\*63, got 1\.84467e\+19"),
        (np.full((2, 3, 4), 2**63, np.uint64), r"labels below 2\*\*63"),
        (np.full((2, 3, 4), "1"), "whole numbers, got <U1"),
    ],
)
def test_labels_that_are_none_are_not_written(tmp_path, image, labels, message):
    task = Task("teeth", (Label(1, "molar"), Label(2, "canine")))
    with pytest.raises(UserError, match=message) as caught:
        write_labels(tmp_path / "labels.nii.gz", labels, image, task)
    assert_one_line(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [np.full((2, 3, 4), 1.5), np.zeros((2, 2, 3, 4))])
def test_images_are_not_read_as_labels(tmp_path, image, data):
    names = ("image",) if data.ndim == 3 else ("a", "b")
    write_volume(tmp_path / "image.nii.gz", Volume(data, image.affine, names))
    with pytest.raises(UserError) as caught:
        read_labels(tmp_path / "image.nii.gz")
    assert_one_line(caught.value)


@pytest.mark.parametrize("name", ["labels.mhd", "labels.nhdr", "labels.png", "labels", ".zarr.txt"])
def test_only_formats_that_can_be_replaced_at_once_are_written(tmp_path, image, name):
    with pytest.raises(UserError, match="a file name that ends with") as caught:
        write_labels(tmp_path / name, image.data, image)
    assert_one_line(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk():
    """A disk on which files of more than 4 KiB do not fit."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix, small_disk, capfd):
    path = tmp_path / f"labels{suffix}"
    small = Volume(np.ones((2, 3, 4), np.uint8), np.eye(4))
    write_labels(path, small.data, small)
    before = everything_in(tmp_path)
    with pytest.raises(UserError) as caught:
        write_volume(path, Volume(NOISE, np.eye(4)))
    assert_one_line(caught.value)
    assert everything_in(tmp_path) == before
    np.testing.assert_array_equal(read_labels(path)[0], small.data)
    if suffix != ".mha":  # ITK's MetaImage writes a line of its own
        assert capfd.readouterr().err == ""


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="Linux only")
@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_a_folder_that_cannot_be_written_to_is_named(image, suffix, capfd):
    """Nobody may write to /proc, not even root."""
    with pytest.raises(
        UserError, match=r"wanted to write .* in /proc, got .*check permissions"
    ) as caught:
        write_labels(Path(f"/proc/labels{suffix}"), image.data, image)
    assert_one_line(caught.value)
    assert capfd.readouterr().err == ""


def test_a_folder_that_does_not_exist_is_named(tmp_path, image):
    with pytest.raises(UserError, match="wanted a folder to write to"):
        write_labels(tmp_path / "new" / "labels.nii.gz", image.data, image)


@pytest.mark.parametrize("name", ["labels.nii.gz", "labels.zarr"])
def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path, image, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="something else in it"):
        write_labels(tmp_path / name, image.data, image)
    assert everything_in(tmp_path) == {name, f"{name}/thesis.tex"}


def test_an_existing_zarr_is_replaced_whole(tmp_path, image):
    path = tmp_path / "labels.ome.zarr"
    write_labels(path, image.data, image)
    (path / "stale").touch()
    write_labels(path, image.data[::-1], image)
    np.testing.assert_array_equal(read_labels(path)[0], image.data[::-1])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not (path / "stale").exists()
