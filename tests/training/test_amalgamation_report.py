"""The page at the end of an amalgamation, with an untrained student and made-up logs."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from tests.model.folders import TASKS
from tests.training.test_amalgamate import config, ingredients  # noqa: F401  # fixtures

from ka2er_training.amalgamate import prepare_cases
from ka2er_training.amalgamation_report import (
    amalgamation_report,
    facts,
    middle_window,
    result_in_window,
)
from ka2er_training.report import curves
from napari_ka2er.model.student import Student

NOTES = {
    "seconds_trunk": 12.5,
    "n_cases": {"one": 3, "two <b>": 1},
    "strides": [16, 8],
    "teaching": {"task_strength": {}},
}


@pytest.fixture(scope="module")
def cases(ingredients, config, tmp_path_factory):  # noqa: F811
    return prepare_cases(ingredients, config, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def student(config):  # noqa: F811
    torch.manual_seed(0)
    return Student(config).train()


def write_log(folder, name, lines):
    (folder / name).mkdir(parents=True)
    path = folder / name / "scalars.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_page_has_curves_overlays_and_notes_in_one_file(cases, student, tmp_path):
    lines = [{"step": step, "loss": 1 / (step + 1), "gradient": 1.0} for step in range(4)]
    write_log(tmp_path / "runs", "trunk", lines)
    write_log(tmp_path / "runs", "clicks", lines[:2])
    write_log(tmp_path / "runs", "polish", [])
    out = tmp_path / "reports" / "student.html"
    assert amalgamation_report(out, tmp_path / "runs", student, cases, NOTES) == out
    page = out.read_text("utf-8")
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["trunk, 4 steps", "clicks, 2 steps", "one, case case0", "two, case case2"]
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert len(images) == page.count("<img") == 4
    for text in ("seconds trunk", "12.5", "trunk: 4, clicks: 2", "one: 3, two &lt;b&gt;: 1"):
        assert text in page
    assert all(expert.digest in page for expert in student.config.experts)
    assert not re.search(r"(src|href)=.(?!data:)", page)  # nothing is loaded from elsewhere
    assert student.training


def test_without_logs_and_volumes_there_are_the_notes_only(student, tmp_path):
    page = amalgamation_report(tmp_path / "a.html", tmp_path / "none", student, [], NOTES)
    assert "<img" not in page.read_text("utf-8")
    assert "seconds trunk" in page.read_text("utf-8")


def test_a_task_with_unlabelled_volumes_only_is_shown_too(cases, student, tmp_path):
    page = amalgamation_report(tmp_path / "a.html", tmp_path, student, cases[3:], NOTES)
    assert "one, case unlabelled" in page.read_text("utf-8")


def test_the_window_lies_on_the_labels_and_shows_them(cases, student):
    case = cases[0]
    volume, drawn, found = result_in_window(student, case)
    assert volume.shape == drawn.shape == found.shape == student.config.entry("one").window
    assert set(np.unique(drawn)) == {0, 1, 2}
    # Images are bright where labels are, so image and labels are those of the same place.
    assert volume.data[drawn == 2].mean() > volume.data[drawn == 0].mean() + 1
    assert set(np.unique(found)) <= {0, *TASKS[0].values}


def test_the_student_sees_its_experts(cases, student, tmp_path):
    sleeping = {name: p.detach().clone() for name, p in student.named_parameters()}
    with torch.no_grad():
        for parameter in student.parameters():  # fusions begin at zero
            torch.nn.init.normal_(parameter, std=0.05)
    try:
        views = []
        for k, view in enumerate(cases[0].views):
            paths = [tmp_path / f"{k}_{stage}.npy" for stage in range(len(view))]
            for path, seen in zip(paths, view, strict=True):
                np.save(path, np.zeros_like(seen.data))
            pairs = zip(view, paths, strict=True)
            views.append(tuple(dataclasses.replace(seen, path=path) for seen, path in pairs))
        blind = dataclasses.replace(cases[0], views=tuple(views))
        seen = [result_in_window(student, case)[2] for case in (cases[0], blind)]
        assert (seen[0] != seen[1]).any()
    finally:
        student.load_state_dict(sleeping, strict=False)


@pytest.mark.parametrize("middle", [(0.0, 0.0, 0.0), (3.0, 30.0, 11.0), (90.0, 90.0, 90.0)])
def test_a_window_stays_over_the_volume_and_on_its_voxels(cases, middle):
    focus = (np.array([middle]), np.empty((0, 3)))
    case = dataclasses.replace(cases[0], focus=focus)
    size = (16, 96, 16)  # shorter than the volume, longer, shorter
    to_grid = np.linalg.inv(case.grid.affine) @ middle_window(case, size).affine
    assert np.allclose(to_grid[:3, :3], np.eye(3))
    first, shape = to_grid[:3, 3], np.array(case.grid.shape)
    assert np.allclose(first, first.round())
    assert (first[[0, 2]] >= 0).all()
    assert (first[[0, 2]] + 16 <= shape[[0, 2]]).all()
    assert first[1] <= 0 <= shape[1] <= first[1] + 96


def test_losses_that_were_not_finite_leave_gaps(tmp_path):
    lines = [{"step": 0, "loss": 1.0, "bad": None}, {"step": 1, "loss": None, "bad": None}]
    uri = curves(write_log(tmp_path, "trunk", [*lines, {"step": 2, "loss": 0.5}]))
    assert uri.startswith("data:image/png;base64,")


def test_notes_are_told_in_words():
    assert facts({"n_cases": {"a": 1}, "none": None, "empty": {}, "list": [1, 2]}) == [
        ("n cases", "a: 1"),
        ("list", "1, 2"),
    ]
