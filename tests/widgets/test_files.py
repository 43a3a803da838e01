"""What is taken from the image file of another session into a package; no window."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tests.core.acting import SHAPE, TASK, new_volume

from napari_ka2er.core.correction import export_package
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import write_volume
from napari_ka2er.core.package import check_package
from napari_ka2er.core.session import Session
from napari_ka2er.core.sessions import create_session
from napari_ka2er.core.volume import Volume
from napari_ka2er.widgets import files

SPACED = np.diag([5.0, 0.5, 0.5, 1.0])


@pytest.fixture
def source(tmp_path):
    write_volume(tmp_path / "scan.nii.gz", new_volume())
    return tmp_path / "scan.nii.gz"


def ended(folder, volume, source):
    """A session that was reviewed and closed."""
    session = create_session(folder, volume, TASK, source=source)
    session.write((slice(0, 2),) * 3, np.ones((2, 2, 2), np.uint8), "brush")
    session.review_volume()
    session.close()
    return folder


def test_the_image_of_another_session_is_read_from_its_file(tmp_path, source):
    folder = ended(tmp_path / "s", new_volume(), source)
    correction = files._with_image(folder, files.Who())
    assert correction.volume.digest() == new_volume().digest()
    assert correction.volume.header, "as the file has it"
    assert check_package(export_package(tmp_path / "Dataset001", [correction])) == []


def test_a_file_that_holds_another_image_by_now_is_refused(tmp_path, source):
    folder = ended(tmp_path / "s", new_volume(), source)
    for other in (new_volume().data[::-1].copy(), np.zeros((2, 2, 2), np.int16)):
        write_volume(source, Volume(other, new_volume().affine))
        with pytest.raises(UserError, match=r"image of session s, got another one .*export it"):
            files._with_image(folder, files.Who())


def test_a_spacing_that_was_set_in_napari_is_kept(tmp_path, source):
    folder = ended(tmp_path / "s", Volume(new_volume().data, SPACED, name="scan"), source)
    correction = files._with_image(folder, files.Who())
    np.testing.assert_array_equal(correction.volume.affine, SPACED)
    assert check_package(export_package(tmp_path / "Dataset001", [correction])) == []


def test_of_several_channels_the_one_that_was_segmented_is_taken(tmp_path):
    data = np.random.default_rng(1).integers(0, 99, (2, *SHAPE)).astype(np.int16)
    write_volume(tmp_path / "two.nii.gz", Volume(data, SPACED, ("t1", "t2")))
    folder = ended(tmp_path / "s", Volume(data[1], SPACED), tmp_path / "two.nii.gz")
    correction = files._with_image(folder, files.Who())
    np.testing.assert_array_equal(correction.volume.data, data[1])
    assert check_package(export_package(tmp_path / "Dataset001", [correction])) == []


def test_small_structures_of_small_voxels_have_a_size(tmp_path):
    session = Session(Volume(new_volume().data, np.diag([0.02, 0.02, 0.02, 1.0])), TASK)
    session.write((slice(0, 2),) * 3, np.ones((2, 2, 2), np.uint8), "brush")
    desk = SimpleNamespace(session=session, ask=lambda question: question())
    files.write_volumes(tmp_path / "sizes.json", desk)
    sizes = json.loads((tmp_path / "sizes.json").read_text("utf-8"))["labels"]
    assert sizes == {"liver": 6.4e-08, "spleen": 0.0, "vessel": 0.0}  # 8 voxels of 8e-9 ml
