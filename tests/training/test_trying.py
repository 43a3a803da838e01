from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from tests.training.test_gate import BASE, rows, shifted

from ka2er_training.evaluate import LabelledCase, evaluate
from ka2er_training.scoring import System, rows_of
from ka2er_training.settings import GateSettings
from ka2er_training.trying import Contest, Scored, try_gate
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.task import Label, Task


def contest(tmp_path, by_share, *, corrected=("hip",), error=None):
    """A contest in which a student with a share of the new weights has the losses by_share[share].

    `by_share` maps a share to the change of hip and that of lung; 0 is the old one.
    """
    made = []

    def score(folder):
        share = {"old": 0.0, "new": 1.0}.get(folder.name) or float(
            folder.name.partition("-")[2] or 0
        )
        hip, lung = by_share[share] if share else (0.0, 0.0)
        found = rows(hip=shifted(BASE, hip), lung=shifted(BASE, lung))
        held = rows(hip=[0.5 + hip] * 4)
        return Scored(found, {"hip": held})

    def between(share, out):
        if error:
            raise error
        made.append(share)
        return out

    old, new = tmp_path / "old", tmp_path / "new"
    fight = Contest(old, new, score, between, corrected, GateSettings(), ("hip", "lung"))
    return fight, made


def test_a_new_student_that_passes_is_taken_and_nothing_else_is_tried(tmp_path):
    fight, made = contest(tmp_path, {1.0: (0.05, 0.0)})
    decision = try_gate(fight, tmp_path / "work")
    assert decision.promoted
    assert decision.folder == tmp_path / "new"
    assert made == []
    assert decision.verdict.tasks[0].gain == pytest.approx(0.05)


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
    assert decision.after.holdout[0].scores.dice == pytest.approx(BASE[0] + 0.03)


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

    def score(folder):
        return replace(fight.score(folder), held={"hip": held[folder.name == "new"]})

    decision = try_gate(replace(fight, score=score), tmp_path / "work")
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


@pytest.fixture
def fresh(balls):
    """The workspace of balls without any kept evaluation."""
    for path in (balls.folder / "reports").glob("evaluation-*"):
        path.unlink()
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


def test_a_corrected_hold_out_is_evaluated_anew(fresh, monkeypatch):
    threshold = Threshold()
    system = System("digest-a", threshold, ("balls",))
    rows_of(fresh, system, "balls")
    known = fresh.manifest("balls")
    changed = [{**case, "label": "another"} for case in known]
    monkeypatch.setattr(type(fresh), "manifest", lambda self, task: changed)
    rows_of(fresh, system, "balls")
    assert threshold.n_calls == 2 * len(fresh.holdout_cases("balls"))


def test_an_evaluation_that_is_cancelled_keeps_nothing(fresh):
    system = System("digest-a", Threshold(), ("balls",))
    with pytest.raises(CancelledError):
        rows_of(fresh, system, "balls", cancelled=lambda: True)
    assert not list((fresh.folder / "reports").glob("evaluation-*"))


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
