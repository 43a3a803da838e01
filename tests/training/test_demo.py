import json
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from tests.model.folders import blob

from ka2er_training import demo
from ka2er_training.demo import open_napari, run_demo
from ka2er_training.overlay import write_overlay
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, write_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.predictor import Predictor
from napari_ka2er.model.ranking import TaskFit


def test_the_demo_leaves_masks_pictures_and_a_summary(student_folder, tmp_path, monkeypatch):
    write_volume(tmp_path / "blob.nii.gz", blob())
    predictor = Predictor(load_student(student_folder), "distilled", tmp_path / "cache")
    # An untrained student finds nothing convincing.
    fit = TaskFit("two", 1.0, "for the test", taken=True)
    monkeypatch.setattr(predictor, "rank_tasks", lambda **_: [fit])
    out = tmp_path / "out"
    summary = run_demo(predictor, [tmp_path / "blob.nii.gz"], out)
    assert json.loads((out / "summary.json").read_text("utf-8")) == summary
    assert sorted(path.name for path in out.iterdir()) == [
        "blob_two.nii.gz",
        "blob_two.png",
        "summary.json",
    ]
    assert summary["results"][0]["task"] == "two"
    assert read_labels(out / "blob_two.nii.gz")[0].shape == blob().shape


def test_labels_lie_where_they_are_on_the_image(tmp_path):
    """A label in the right, anterior, superior corner is at the left of axial and coronal views.

    The volume is stored with X to the left and Y to the back, as scanners do.
    """
    labels = np.zeros((40, 50, 60), np.uint8)
    labels[30:38, 4:10, 4:10] = 1  # superior; small Y is anterior, small X is right
    volume = Volume(np.ones(labels.shape, np.float32), np.diag([1.0, -1.0, -1.0, 1.0]))
    task = Task("corner", (Label(1, "corner", "#FF0000"),))
    write_overlay(tmp_path / "p.png", volume, labels, task, "corner")
    picture = imread(tmp_path / "p.png")[..., :3]
    picture = picture[: int(picture.shape[0] * 0.88)]  # without the legend
    is_red = (picture[..., 0] > 0.3) & (picture[..., 1] < 0.2)
    thirds = np.array_split(is_red, 3, axis=1)
    for third in thirds:
        rows, columns = np.nonzero(third)
        assert rows.mean() < 0.5 * third.shape[0]  # up: anterior, superior, superior
        assert columns.mean() < 0.5 * third.shape[1]  # left: right, right, anterior


def test_an_empty_label_map_has_a_picture_too(tmp_path):
    task = Task("none", (Label(1, "nothing"),))
    write_overlay(tmp_path / "p.png", blob(), np.zeros(blob().shape, np.uint8), task, "empty")
    assert imread(tmp_path / "p.png").ndim == 3


@pytest.mark.parametrize("status", [1, -6])
def test_napari_that_opens_no_window_is_told_in_a_line(tmp_path, monkeypatch, status):
    end = f"import os; os.abort() if {status} < 0 else os._exit({status})"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{end}'\n")
    python.chmod(0o755)
    monkeypatch.setattr(demo.sys, "executable", str(python))
    with pytest.raises(UserError, match=f"status {status}.*--headless"):
        open_napari(tmp_path / "volume.nii.gz")
