import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from tests.model.folders import make_expert

from ka2er_training.bench.shifts import coarser
from ka2er_training.evaluate import LabelledCase, Row, evaluate, per_case, summarise
from ka2er_training.evaluate_workspace import evaluate_workspace
from ka2er_training.evaluation_text import rows_table, text_table
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.task import Label, Task

TASK = Task("boxes", (Label(1, "left"), Label(2, "right")))


def truth():
    """Two boxes of 4 x 6 x 4 voxels, side by side along Y of a (10, 24, 12) volume."""
    labels = np.zeros((10, 24, 12), np.uint8)
    labels[3:7, 2:8, 4:8] = 1
    labels[3:7, 14:20, 4:8] = 2
    return labels


class Threshold:
    """Finds what is bright, left half label 1, right half label 2, but never the right of "b"."""

    name = "threshold"

    def segment(self, volume, task):
        found = (volume.data > 50).astype(np.uint8)
        found[:, found.shape[1] // 2 :] *= 2
        if volume.data.max() > 150:
            found[found == 2] = 0
        return found


@pytest.fixture
def cases(tmp_path):
    """Case "a" as above; "b" brighter and without its right half found; "c" without a right box."""
    made = []
    for name, grey in (("a", 100), ("b", 200), ("c", 100)):
        labels = truth()
        if name == "c":
            labels[labels == 2] = 0
        image = (labels > 0).astype(np.float32) * grey
        affine = np.diag([2.0, 1.0, 1.5, 1.0])  # x, y, z
        paths = [tmp_path / f"{name}{end}.nii.gz" for end in ("_0000", "")]
        for path, data in zip(paths, (image, labels), strict=True):
            nib.save(nib.Nifti1Image(data.T, affine), path)
        made.append(LabelledCase(name, TASK, *paths))
    return made


def test_every_label_of_every_case_gets_a_row(cases):
    rows = evaluate(Threshold(), cases)
    status = {(row.case, row.label): row.scores.status for row in rows}
    assert status == {
        ("a", "left"): "scored",
        ("a", "right"): "scored",
        ("b", "left"): "scored",
        ("b", "right"): "missed",
        ("c", "left"): "scored",
        ("c", "right"): "absent",
    }
    assert all(row.scores.dice == 1.0 for row in rows if row.scores.status == "scored")
    assert all(row.seconds > 0 for row in rows)


def test_summaries_count_what_is_missed_and_leave_out_what_is_absent(cases):
    left, right, both = summarise(evaluate(Threshold(), cases))
    assert (left.dice.mean, left.dice.n) == (1.0, 3)
    assert (right.dice.mean, right.dice.n, right.absent, right.missed) == (0.5, 2, 1, 1)
    # case by case: a has 1, b the mean of 1 and 0, c its only label
    assert both.label == "all"
    assert both.dice.mean == pytest.approx((1 + 0.5 + 1) / 3)
    diagonal = np.linalg.norm([10 * 1.5, 24 * 1.0, 12 * 2.0])
    assert right.hd95_mm.mean == pytest.approx(diagonal / 2)


def test_a_prediction_on_another_lattice_is_scored_on_the_labels_own(cases):
    rows = evaluate(Threshold(), cases[:1], change=lambda v, name: coarser(v, 0, factor=2.0))
    dice = {row.label: row.scores.dice for row in rows}
    # Edges are even in Y and X; in Z the box is 3 … 6, of which only 4 and 5 fill a coarse voxel.
    assert dice == pytest.approx(dict.fromkeys(dice, 2 * 2 / (2 + 4)))


def test_rows_survive_json_and_the_table_says_what_they_say(cases):
    rows = evaluate(Threshold(), cases)
    again = [Row.from_json(json.loads(json.dumps(row.to_json()))) for row in rows]
    assert again == rows
    table = text_table(summarise(again))
    assert table.splitlines()[0].split()[:3] == ["system", "task", "label"]
    assert "0.500 [0.000, 1.000]" in table
    assert json.loads(json.dumps([s.to_json() for s in summarise(rows)], allow_nan=False))


def test_the_table_of_rows_has_a_line_for_each_label_of_each_case(cases):
    head, *lines = rows_table(evaluate(Threshold(), cases)).splitlines()
    assert head.split() == [
        "system",
        "task",
        "case",
        "label",
        "Dice",
        "NSD",
        "HD95",
        "mm",
        "status",
    ]
    assert [line.split() for line in lines] == [
        ["threshold", "boxes", "a", "left", "1.000", "1.000", "0.0", "scored"],
        ["threshold", "boxes", "a", "right", "1.000", "1.000", "0.0", "scored"],
        ["threshold", "boxes", "b", "left", "1.000", "1.000", "0.0", "scored"],
        # as far as the volume is long: sqrt((10 x 1.5)^2 + (24 x 1)^2 + (12 x 2)^2) mm
        ["threshold", "boxes", "b", "right", "0.000", "0.000", "37.1", "missed"],
        ["threshold", "boxes", "c", "left", "1.000", "1.000", "0.0", "scored"],
        ["threshold", "boxes", "c", "right", "-", "-", "-", "absent"],
    ]
    assert {line.index(word) for line, word in zip(lines, ["left", "right"] * 3, strict=True)} == {
        head.index("label")
    }


def test_the_report_has_every_case_below_the_means(balls, tmp_path):
    shutil.copytree(balls.folder, tmp_path / "work")
    workspace = Workspace.open(tmp_path / "work")
    make_expert(workspace.expert_folder("balls"), workspace.record("balls").task, 0)
    result = evaluate_workspace(workspace, experts=True)
    text = (workspace.folder / "reports" / "evaluation-experts.txt").read_text("utf-8")
    means, rows = text.split("\n\n")
    assert means == result["table"]
    held = [case.id for case in workspace.holdout_cases("balls")]
    found = [line.replace("expert balls", "expert").split()[1:4] for line in rows.splitlines()[1:]]
    assert found == [["balls", case, label] for case in held for label in ("bright", "dim")]


def test_per_case_means_are_what_systems_are_compared_by(cases):
    assert per_case(evaluate(Threshold(), cases)) == {"a": 1.0, "b": 0.5, "c": 1.0}


def test_evaluation_stops_when_asked(cases):
    with pytest.raises(CancelledError):
        evaluate(Threshold(), cases, cancelled=lambda: True)
