from __future__ import annotations

import json

import numpy as np
import pytest
from tests.model.folders import blob

from ka2er_training.cli import main
from ka2er_training.ordering import disagreement, most_disputed, order_files
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.io import read_volume, write_labels, write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.catalogue import find_student
from napari_ka2er.model.checkpoint import load_student

TASK = Task("two", (Label(1, "a"), Label(2, "b")), "MR")


def labels():
    made = np.zeros((6, 8, 10), np.uint8)
    made[1:3, 2:5, 3:6], made[4, 2:5, 3:6] = 1, 2
    return made


def test_cases_on_which_two_maps_differ_come_first():
    one, two = labels(), labels()
    assert disagreement(one, two, TASK) == 0
    two[two == 2] = 0
    assert disagreement(one, two, TASK) == pytest.approx(0.5)
    assert disagreement(one * 0, two * 0, TASK) == 0
    assert most_disputed({"a": 0.1, "b": 0.4, "c": 0.4, "d": 0.2}, 3) == ["b", "c", "d"]


@pytest.fixture
def images(tmp_path):
    """The sample CT's middle, the same turned into noise, and a file that is no image."""
    folder = tmp_path / "new"
    folder.mkdir()
    chest = blob()
    write_volume(folder / "a_plain.nii.gz", chest)
    noise = np.random.default_rng(0).normal(0, 300, chest.shape).astype(np.float32)
    write_volume(folder / "b_noise.nii.gz", Volume(noise, chest.affine))
    (folder / "c_broken.nii.gz").write_bytes(b"no image")
    return folder


def order(images, capsys, *args):
    status = main(["order", "sample", str(images), "--task", "lungs", "--json", *args])
    text = capsys.readouterr().out
    return status, json.loads(text) if text else None


def test_random_order_depends_on_names_alone(images, capsys):
    status, found = order(images, capsys)
    assert status == 0
    names = [item["input"].rsplit("/", 1)[1] for item in found]
    assert sorted(names) == ["a_plain.nii.gz", "b_noise.nii.gz", "c_broken.nii.gz"]
    assert [item["input"] for item in order(images, capsys)[1]] == [i["input"] for i in found]


@pytest.mark.parametrize("by", ["random", "disagreement"])
def test_what_was_segmented_before_is_not_to_be_corrected_itself(images, capsys, by):
    chest = read_volume(images / "a_plain.nii.gz")
    (images / "c_broken.nii.gz").unlink()
    write_labels(images / "a_plain_lungs.nii.gz", np.ones(chest.shape, np.uint8), chest)
    write_volume(images / "a_plain_lungs_uncertainty.nii.gz", chest)
    status, found = order(images, capsys, "--by", by)
    assert status == 0
    names = {item["input"].rsplit("/", 1)[1] for item in found}
    assert names == {"a_plain.nii.gz", "b_noise.nii.gz"}


def test_disputed_volumes_come_first_and_a_broken_one_stops_nothing(images, capsys, caplog):
    status, found = order(images, capsys, "--by", "disagreement")
    assert status == 0
    scores = [item["disagreement"] for item in found]
    assert len(found) == 2
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert any("c_broken.nii.gz" in record.getMessage() for record in caplog.records)


def test_what_cannot_be_ordered_is_told_in_a_line(images, capsys, caplog):
    (images / "a_plain.nii.gz").unlink()
    (images / "b_noise.nii.gz").unlink()
    assert order(images, capsys, "--by", "disagreement")[0] == 2
    assert main(["order", "sample", str(images), "--task", "knees"]) == 2
    assert "knees" in caplog.records[-1].getMessage()


def test_ordering_can_be_stopped(images):
    loaded = load_student(find_student("sample"))
    with pytest.raises(CancelledError):
        order_files(loaded, "lungs", [images], by="disagreement", cancelled=lambda: True)
