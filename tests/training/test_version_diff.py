import json
import shutil

import numpy as np
import pytest
import torch
from tests.training.conftest import phantom, write_raw
from tests.training.test_gate import BASE, row, rows, shifted

from ka2er_training.changes import case_changes, label_changes, most_changed, worst
from ka2er_training.cli import main
from ka2er_training.comparison import largest_change, write_comparison
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.evaluate_workspace import holdout_of
from ka2er_training.expert_map import mean_weights
from ka2er_training.holdout_features import features_folder
from ka2er_training.registry import add_version, make_current, student_folder
from ka2er_training.round_evidence import evidence
from ka2er_training.scoring import forget_masks, mask_of, results_of, rows_of, student_system
from ka2er_training.segmenters import StudentSegmenter
from ka2er_training.settings import GateSettings
from ka2er_training.sources import read_source
from ka2er_training.trying import try_student
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.task import Label, Task
from napari_ka2er.model.checkpoint import load_student, save_student
from napari_ka2er.model.expert_view import ExpertView
from napari_ka2er.model.predictor import Predictor

GATE = GateSettings()


def test_changes_are_told_per_label_and_over_all_labels():
    before = [row("t", f"c{i}", d, label) for i, d in enumerate((0.8, 0.6)) for label in "ab"]
    after = [row("t", f"c{i}", d, label) for i in range(2) for d, label in ((0.9, "a"), (0.5, "b"))]
    lines = label_changes(before, after, GATE)
    assert [(line["task"], line["label"]) for line in lines] == [
        ("t", "a"),
        ("t", "b"),
        ("t", "all"),
    ]
    assert [line["before"] for line in lines] == pytest.approx([0.7, 0.7, 0.7])
    assert [line["after"] for line in lines] == pytest.approx([0.9, 0.5, 0.7])
    first = lines[0]["change"]
    assert (first["n"], first["low"], first["high"]) == (2, pytest.approx(0.1), pytest.approx(0.3))
    assert json.dumps(lines, allow_nan=False)


def test_a_label_that_nobody_has_is_left_out():
    lost = [row("t", "a", None, "x"), row("t", "a", 0.5, "y")]
    assert [line["label"] for line in label_changes(lost, lost, GATE)] == ["y", "all"]


def test_the_cases_that_changed_most_come_first_whichever_way():
    before = rows(hip=[0.5, 0.5, 0.5, 0.5], lung=[0.9, 0.9])
    after = rows(hip=[0.52, 0.3, 0.65, 0.5], lung=[0.9, 0.91])
    changes = case_changes(before, after)
    chosen = most_changed(changes, 2)
    assert [(c.task, c.case) for c in chosen] == [
        ("hip", "case1"), ("hip", "case2"), ("lung", "case1"), ("lung", "case0")
    ]  # fmt: skip


def test_worst_cases_are_the_greatest_loss_and_the_lowest_dice():
    before = rows(hip=[0.9, 0.2, 0.8])
    after = rows(hip=[0.7, 0.25, 0.8])
    assert [c.case for c in worst(case_changes(before, after))] == ["case0", "case1"]
    assert len(worst(case_changes(rows(a=BASE), rows(a=shifted(BASE, -0.1))))) == 2


def test_the_slice_is_the_one_in_which_the_first_two_differ_most():
    first = np.zeros((6, 8, 10), np.uint8)
    second, truth = first.copy(), np.ones_like(first)
    second[4, 2:6, 3:9] = 1  # 24 voxels in Z = 4; in other directions at most 6
    second[1, 0, 0] = 1
    assert largest_change([first, second, truth]) == ("axial", 4)
    assert largest_change([first.transpose(1, 0, 2), second.transpose(1, 0, 2)]) == ("coronal", 4)
    assert largest_change([second, second]) == ("axial", 4)
    assert largest_change([first, first]) == ("axial", 3)


def test_a_picture_is_written_on_oblique_lattices(tmp_path):
    volume, labels = phantom(0)
    turn = np.eye(4)
    turn[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = type(volume)(volume.data, turn @ volume.affine)
    maps = {"before": labels, "after": np.roll(labels, 2, axis=1), "truth": labels}
    task = Task("balls", (Label(1, "bright"), Label(2, "dim")))
    write_comparison(tmp_path / "a.png", turned, maps, task, "title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def two(tmp_path_factory, student_folder):
    """A workspace with the student's task "one", and two versions with different weights."""
    folder = tmp_path_factory.mktemp("two")
    workspace = Workspace.create(folder / "work")
    raw = write_raw(folder / "raw")
    add_task(workspace, read_source(raw), TaskOptions(name="one", spacing_mm=(2, 2, 2)))
    workspace = Workspace.open(workspace.folder)
    make_current(workspace, add_version(workspace, student_folder, {}))
    other = load_student(student_folder).student
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    experts = {name: student_folder / "experts" / name for name in ("one", "two")}
    save_student(folder / "other", other, {}, experts=experts)
    add_version(workspace, folder / "other", {})
    return workspace


def test_a_diff_has_numbers_and_pictures_and_the_second_time_evaluates_nothing(
    two, capsys, monkeypatch
):
    command = ["diff", str(two.folder), "v0001", "v0002", "--cases", "1", "--device", "cpu"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["task", "label", "cases", "before", "after", "change"]
    picture = two.folder / "reports" / "diff-v0001-v0002-sparse"
    assert len(list(picture.glob("one-*.png"))) == 1
    monkeypatch.setattr("ka2er_training.scoring._look", None)
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [line["label"] for line in result["labels"]][-1] == "all"
    assert result["cases"][0]["difference"] == pytest.approx(
        result["cases"][0]["after"] - result["cases"][0]["before"]
    )


def test_the_same_student_does_not_gain_and_is_refused(two, tmp_path):
    same = student_folder(two, "v0001")
    decision = try_student(two, same, {"one"}, tmp_path, current=same)
    assert not decision.promoted
    assert "one does not gain: +0.0000" in decision.reason
    assert len(decision.tries) == 4
    assert {verdict.tasks[0].change.mean for verdict in decision.tries} == {0.0}


def test_a_student_that_forgot_a_task_is_an_error(two, tmp_path):
    other = shutil.copytree(student_folder(two, "v0001"), tmp_path / "other")
    text = json.loads(
        (other / "student.json").read_text("utf-8").replace('"name": "one"', '"name": "uno"')
    )
    (other / "student.json").write_text(json.dumps(text))
    shutil.move(other / "experts" / "one", other / "experts" / "uno")
    with pytest.raises(UserError, match="still knows one"):
        try_student(two, other, {"one"}, tmp_path / "work")


def test_mean_weights_of_experts_and_null_sum_to_one(two, tmp_path):
    system = student_system(student_folder(two, "v0001"), "full")
    found = mean_weights(system, results_of(two, system, "one"))
    assert list(found) == ["one"]
    assert list(found["one"]) == ["one", "two", "null"]
    assert sum(found["one"].values()) == pytest.approx(1, abs=1e-2)
    (case,) = holdout_of(two, "one")[:1]
    predictor = Predictor(load_student(student_folder(two, "v0001")), "full", tmp_path)
    predictor.set_volume(read_volume(case.image))
    result = predictor.segment("one")
    inside = result.labels > 0 if result.labels.any() else np.ones(result.labels.shape, bool)
    by_voxel = [weight[inside].mean() for weight in result.expert_map()]
    # Voxels at the border of this small image see the padding's tokens too.
    assert list(found["one"].values()) == pytest.approx(by_voxel, abs=0.2)
    assert np.argsort(list(found["one"].values())).tolist() == np.argsort(by_voxel).tolist()


def test_a_report_after_the_gate_predicts_nothing(two, tmp_path, monkeypatch):
    """Neither numbers nor pictures nor the expert map; a second gate evaluates nothing either."""
    folders = [student_folder(two, version) for version in ("v0001", "v0002")]
    shutil.rmtree(two.folder / "reports" / "evaluations", ignore_errors=True)
    looked = []
    look = StudentSegmenter.look

    def counted(self, volume, task):
        looked.append((self.name, task.name))
        return look(self, volume, task)

    monkeypatch.setattr(StudentSegmenter, "look", counted)
    decision = try_student(two, folders[1], {"one"}, tmp_path / "gate", current=folders[0])
    n_cases = len(two.holdout_cases("one"))
    assert looked.count(("v0001-sparse", "one")) == n_cases
    assert looked.count(("v0002-sparse", "one")) == n_cases
    n = len(looked)
    found = evidence(two, *folders, tmp_path / "pictures")
    assert found["pictures"]
    assert found["scores"]
    assert set(found["weights_after"]["one"]) == {"one", "two", "null"}
    again = try_student(two, folders[1], {"one"}, tmp_path / "gate", current=folders[0])
    assert len(looked) == n
    assert again.reason == decision.reason
    forget_masks(two, [])
    evidence(two, *folders, tmp_path / "pictures")
    assert len(looked) == n + 2 * len(found["pictures"])  # pictures alone need masks


def test_experts_look_once_at_a_volume_for_students_that_share_them(two, tmp_path, monkeypatch):
    shutil.rmtree(two.folder / "reports" / "evaluations", ignore_errors=True)
    shutil.rmtree(features_folder(two), ignore_errors=True)
    windows = []
    run = ExpertView._run
    monkeypatch.setattr(ExpertView, "_run", lambda self, at: (windows.append(at), run(self, at)))
    counts = []
    for version in ("v0001", "v0002"):
        system = student_system(student_folder(two, version), "full", workspace=two)
        rows_of(two, system, "one")
        counts.append(len(windows))
    assert counts[0] > 0
    assert counts[1] == counts[0]
    apart = student_system(student_folder(two, "v0002"), "full")
    case = holdout_of(two, "one")[0]
    alone = apart.segmenter.segment(read_volume(case.image), case.task)
    assert len(windows) > counts[1]
    assert np.array_equal(alone, mask_of(two, system, case))


def test_history_promote_and_rollback_from_the_command_line(two, capsys):
    folder = str(two.folder)
    assert main(["promote", folder, "v0002", "--reason", "better"]) == 0
    assert capsys.readouterr().out == "v0002 is current (before: v0001)\n"
    assert main(["rollback", folder]) == 0
    assert main(["rollback", folder]) == 2
    assert main(["promote", folder, "v0042"]) == 2
    capsys.readouterr()
    assert main(["history", folder, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["versions"] == {"v0001": "current", "v0002": "was current"}
    assert [e["reason"] for e in told["events"] if e["version"] == "v0002"] == ["", "better"]
