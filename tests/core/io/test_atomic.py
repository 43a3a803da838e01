"""Files that take another's place: names, links and permissions."""

from __future__ import annotations

import os

import numpy as np
import pytest

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import WRITTEN_SUFFIXES, read_labels, write_labels
from napari_ka2er.core.io.atomic import left_behind, replacing


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, image, suffix):
    """255 bytes on most disks; the suffixes in it may be long too."""
    path = tmp_path / ("a" * 100 + "." + "ä" * ((154 - len(suffix)) // 2) + suffix)
    for labels in (image.data, image.data[::-1]):  # a new file, then one in another's place
        write_labels(path, labels, image)
        np.testing.assert_array_equal(read_labels(path)[0], labels)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_longer_name_is_refused(tmp_path):
    with (
        pytest.raises(UserError, match="too long"),
        replacing(tmp_path / f"{'a' * 300}.nii") as temporary,
    ):
        temporary.touch()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.Nii.GZ", ".nii.gz"),
        ("a.MHA", ".mha"),
        ("a.b.ome.TIF", ".ome.tif"),
        ("plain", ""),
        ("v1.2 of it", ".2 of it"),
    ],
)
def test_the_temporary_name_has_the_suffixes_in_lower_case(tmp_path, name, suffix):
    with replacing(tmp_path / name) as temporary:
        temporary.touch()
    assert temporary.name[13:] == suffix  # after a dot, eight digits and "-new"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["labels.nii.gz", "labels.zarr"])
def test_a_symbolic_link_stays_and_what_it_leads_to_is_replaced(tmp_path, image, name):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / name, tmp_path / name
    write_labels(real, image.data, image)
    link.symlink_to(real)
    write_labels(link, image.data[::-1], image)
    assert link.is_symlink()
    np.testing.assert_array_equal(read_labels(real)[0], image.data[::-1])
    assert [p.name for p in real.parent.iterdir()] == [name]


def test_a_link_to_nothing_is_replaced(tmp_path, image):
    link = tmp_path / "labels.nii"
    link.symlink_to(tmp_path / "gone" / "labels.nii")
    write_labels(link, image.data, image)
    assert not link.is_symlink()
    np.testing.assert_array_equal(read_labels(link)[0], image.data)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_replaced_file_keeps_its_mode(tmp_path, image):
    path = tmp_path / "labels.nii.gz"
    write_labels(path, image.data, image)
    path.chmod(0o640)
    write_labels(path, image.data[::-1], image)
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_is_told_from_everything_else(tmp_path):
    kept = ["a.nii.gz", ".hidden", "0a1b2c3d-new.nii", ".0a1b2c3d-newer.nii", ".cache-old"]
    left = [".0a1b2c3d-new.nii.gz", ".ffffffff-old", ".01234567-new"]
    for name in (*kept, *left):
        (tmp_path / name).touch()
    assert sorted(path.name for path in left_behind(tmp_path)) == sorted(left)
    with replacing(tmp_path / "b.ome.tif") as partial:
        partial.touch()
        assert partial in left_behind(tmp_path)
