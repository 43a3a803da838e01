import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from tests.training.test_gate import BASE, rows, shifted

from ka2er_training.evaluate import LabelledCase, evaluate, summarise
from ka2er_training.scoring import System, forget_masks, mask_of, results_of, rows_of
from ka2er_training.settings import GateSettings
from ka2er_training.trying import Contest, Scored, try_gate
from ka2er_training.workspace import Case
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.task import Label, Task


def contest(tmp_path, by_share, *, corrected=("hip",), error=None):
    """A contest in which a student with a share of the new weights has the losses by_share[share].

    `by_share` maps a share to the change of hip and that of lung; 0 is the old one.
    """
    made = []
    asked.clear()

    def scorer(folder):
        share = {"old": 0.0, "new": 1.0}.get(folder.name) or float(
            folder.name.partition("-")[2] or 0
        )
        change = dict(zip(("hip", "lung"), by_share[share] if share else (0.0, 0.0), strict=True))

        def score(task):
            asked.append((share, task))
            held = {"hip": rows(hip=[0.5 + change["hip"]] * 4)} if task == "hip" else {}
            return Scored(rows(**{task: shifted(BASE, change[task])}), held)

        return score

    def between(share, out):
        if error:
            raise error
        made.append(share)
        return out

    old, new = tmp_path / "old", tmp_path / "new"
    fight = Contest(old, new, scorer, between, corrected, GateSettings(), ("lung", "hip"))
    return fight, made


asked = []  # which share was asked about which task, in order


def test_a_new_student_that_passes_is_taken_and_nothing_else_is_tried(tmp_path):
    fight, made = contest(tmp_path, {1.0: (0.05, 0.0)})
    decision = try_gate(fight, tmp_path / "work")
    assert decision.promoted
    assert decision.folder == tmp_path / "new"
    assert made == []
    assert {v.task: v.gain for v in decision.verdict.tasks}["hip"] == pytest.approx(0.05)
    assert sorted(asked) == [(share, task) for share in (0.0, 1.0) for task in ("hip", "lung")]


def test_the_interpolation_with_most_of_the_new_that_passes_is_taken(tmp_path):
    changes = {1.0: (0.05, -0.05), 0.75: (0.04, -0.02), 0.5: (0.03, -0.005), 0.25: (0.01, 0.0)}
    fight, made = contest(tmp_path, changes)
    decision = try_gate(fight, tmp_path / "work")
    assert made == [0.75, 0.5]
    assert decision.promoted
    assert decision.folder == tmp_path / "work" / "share-0.5"
    assert [verdict.share for verdict in decision.tries] == [1.0, 0.75, 0.5]
    assert decision.verdict.share == 0.5
    assert "an interpolation with 0.5 of the new weights" in decision.reason
    hip = [row for row in decision.after.holdout if row.task == "hip"]
    assert hip[0].scores.dice == pytest.approx(BASE[0] + 0.03)


def test_an_interpolation_is_asked_about_no_other_task_once_it_does_not_gain(tmp_path):
    changes = {1.0: (0.05, -0.05), 0.75: (0.0, 0.0), 0.5: (0.0, 0.0), 0.25: (0.02, 0.0)}
    fight, _ = contest(tmp_path, changes)
    decision = try_gate(fight, tmp_path / "work")
    # 1.0 was stopped by the lung, 0.75 by the hip.
    assert [a for a in asked if 0 < a[0] < 1] == [
        (0.75, "lung"), (0.75, "hip"), (0.5, "hip"), (0.25, "hip"), (0.25, "lung")
    ]  # fmt: skip
    assert decision.tries[2].reason.endswith("(not asked: lung)")
    assert [task.task for task in decision.tries[2].tasks] == ["hip"]
    assert decision.promoted
    assert {task.task for task in decision.verdict.tasks} == {"hip", "lung"}


def test_a_corrected_task_that_the_student_does_not_know_is_refused(tmp_path):
    fight, _ = contest(tmp_path, {1.0: (0.05, 0.0), **dict.fromkeys((0.75, 0.5, 0.25), (0.01, 0))})
    decision = try_gate(replace(fight, corrected=("hip", "spine")), tmp_path / "work")
    assert not decision.promoted
    assert "spine has no hold-out case" in decision.reason


def test_if_none_passes_the_new_one_is_refused_for_its_own_reasons(tmp_path):
    changes = {1.0: (0.05, -0.05), 0.75: (0.04, -0.04), 0.5: (0.03, -0.03), 0.25: (0.01, -0.02)}
    fight, _ = contest(tmp_path, changes)
    decision = try_gate(fight, tmp_path / "work")
    assert not decision.promoted
    assert decision.folder == tmp_path / "new"
    assert len(decision.tries) == 4
    assert decision.verdict == decision.tries[0]
    assert decision.reason.startswith("lung may lose more than 0.010: lower bound -0.0500")
    assert decision.reason.endswith("no interpolation passed either")


def test_less_of_something_wrong_is_not_tried(tmp_path):
    """Hip fell in every case although its corrections are said to be good."""
    fight, made = contest(tmp_path, {1.0: (-0.02, 0.0)})
    held = rows(hip=[0.5] * 4), rows(hip=[0.6] * 4)

    def scorer(folder):
        ask = fight.scorer(folder)
        return lambda task: replace(ask(task), held={"hip": held[folder.name == "new"]})

    decision = try_gate(replace(fight, scorer=scorer), tmp_path / "work")
    assert not decision.promoted
    assert made == []
    assert "contradict" in decision.reason


def test_students_that_cannot_be_interpolated_are_refused_and_told_why(tmp_path):
    fight, _ = contest(tmp_path, {1.0: (0.05, -0.05)}, error=UserError("the same width", "another"))
    decision = try_gate(fight, tmp_path / "work")
    assert not decision.promoted
    assert decision.reason.endswith("no interpolation: wanted the same width, got another")


class Threshold:
    """Finds the bright ball and the dim one of the phantom by their grey; counts its work."""

    name = "threshold"

    def __init__(self):
        self.n_calls = 0

    def segment(self, volume, task):
        self.n_calls += 1
        return np.digitize(volume.channels[0], (25, 75)).astype(np.uint8)[...] % 3


class Bright(Threshold):
    """Finds the bright ball alone."""

    def segment(self, volume, task):
        return (volume.channels[0] > 75).astype(np.uint8)


@pytest.fixture
def fresh(balls):
    """The workspace of balls without any kept evaluation."""
    shutil.rmtree(balls.folder / "reports" / "evaluations", ignore_errors=True)
    return balls


def test_an_evaluation_is_made_once_per_student_and_hold_out(fresh):
    threshold = Threshold()
    system = System("digest-a", threshold, ("balls",))
    first = rows_of(fresh, system, "balls")
    n_cases = len(fresh.holdout_cases("balls"))
    assert n_cases >= 1
    assert threshold.n_calls == n_cases
    again = rows_of(fresh, replace(system, segmenter=threshold), "balls")
    assert again == first
    assert threshold.n_calls == n_cases
    rows_of(fresh, replace(system, identity="digest-b"), "balls")
    assert threshold.n_calls == 2 * n_cases


def test_the_first_partial_correction_makes_no_case_evaluated_anew(fresh, monkeypatch):
    """It gives the dataset an ignore label, which the hold-out does not have."""
    threshold = Threshold()
    system = System("digest-a", threshold, ("balls",))
    before = rows_of(fresh, system, "balls")
    n_calls = threshold.n_calls
    monkeypatch.setattr("ka2er_training.evaluate_workspace.ignore_value", lambda *_: 3)
    assert rows_of(fresh, system, "balls") == before
    assert threshold.n_calls == n_calls


def test_a_corrected_hold_out_is_evaluated_anew(fresh, monkeypatch):
    threshold = Threshold()
    system = System("digest-a", threshold, ("balls",))
    rows_of(fresh, system, "balls")
    known = fresh.manifest("balls")
    changed = [{**case, "label": "another"} for case in known]
    monkeypatch.setattr(type(fresh), "manifest", lambda self, task: changed)
    rows_of(fresh, system, "balls")
    assert threshold.n_calls == 2 * len(fresh.holdout_cases("balls"))


def test_of_an_evaluation_that_is_cancelled_finished_cases_are_kept(fresh, monkeypatch):
    (real,) = fresh.holdout_cases("balls")[:1]
    cases = [Case(f"c{i}", real.image, real.label, f"p{i}") for i in range(3)]
    known = [{"id": c.id, "image": c.id, "label": "l", "split": "holdout"} for c in cases]
    monkeypatch.setattr(type(fresh), "holdout_cases", lambda self, task: cases)
    monkeypatch.setattr(type(fresh), "manifest", lambda self, task: known)
    threshold = Threshold()
    system = System("digest-a", threshold, ("balls",))
    with pytest.raises(CancelledError):
        rows_of(fresh, system, "balls", cancelled=lambda: threshold.n_calls == 2)
    assert len({row.case for row in rows_of(fresh, system, "balls")}) == 3
    assert threshold.n_calls == 3
    known[1]["label"] = "corrected"  # that case alone is evaluated anew
    rows_of(fresh, system, "balls")
    assert threshold.n_calls == 4


def test_masks_are_those_of_the_evaluation_until_they_are_forgotten(fresh):
    threshold = Threshold()
    system = System("digest-a", threshold, ("balls",))
    found = results_of(fresh, system, "balls")
    n_cases = threshold.n_calls
    mask = mask_of(fresh, system, found[0].case)
    assert threshold.n_calls == n_cases
    image = read_volume(found[0].case.image)
    assert np.array_equal(mask, threshold.segment(image, found[0].case.task))
    forget_masks(fresh, ["digest-a"])
    mask_of(fresh, system, found[0].case)
    assert threshold.n_calls == n_cases + 1  # the one just above
    forget_masks(fresh, ["digest-b"])
    assert np.array_equal(mask, mask_of(fresh, system, found[0].case))
    assert threshold.n_calls == n_cases + 2
    assert len(results_of(fresh, system, "balls")) == len(found)
    assert threshold.n_calls == n_cases + 2


def test_the_gate_measures_dice_alone(fresh):
    rows = rows_of(fresh, System("digest-a", Bright(), ("balls",)), "balls")
    rows = [row for row in rows if row.label == "bright"]
    assert {row.scores.status for row in rows} == {"scored"}
    assert {(row.scores.nsd, row.scores.hd95_mm) for row in rows} == {(None, None)}
    assert min(row.scores.dice for row in rows) > 0.5
    assert summarise(rows)[0].to_json()["nsd"]["mean"] is None


def test_voxels_that_nobody_reviewed_count_neither_for_nor_against(tmp_path):
    """Half of a box is unreviewed; there the prediction finds things, in the other half all.

    Along X:   truth 1 1 1 ? ? ?      prediction 1 1 1 1 1 0
    """
    truth = np.zeros((8, 10, 12), np.uint8)
    truth[2:6, 3:7, 2:5], truth[2:6, 3:7, 5:8] = 1, 3
    image = np.zeros_like(truth, dtype=np.float32)
    image[2:6, 3:7, 2:7] = 50
    paths = [tmp_path / f"{name}.nii.gz" for name in ("image", "labels")]
    for path, data in zip(paths, (image, truth), strict=True):
        nib.save(nib.Nifti1Image(data.T, np.diag([2.0, 1.0, 1.5, 1.0])), path)
    case = LabelledCase("a", Task("box", (Label(1, "box"),)), *paths)
    assert evaluate(Threshold(), [case])[0].scores.dice == pytest.approx(2 * 3 / (3 + 5))
    reviewed = replace(case, ignore=3)
    assert evaluate(Threshold(), [reviewed])[0].scores.dice == 1.0
