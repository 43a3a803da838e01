"""The stage of a round that asks whether labels belong to their images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.training.conftest import phantom
from tests.training.packages import correction, package
from tests.training.rounds import FLAGS, LENGTHS, make_workspace

from ka2er_training import belonging_stage, retrain_stages
from ka2er_training.cli import main
from ka2er_training.registry import versions
from ka2er_training.retrain import dry_run, retrain
from ka2er_training.round_state import STAGES, refused_packages, unfinished
from ka2er_training.scoring import System
from ka2er_training.workspace import Workspace, read_json
from napari_ka2er.core.errors import CancelledError

SEEDS = (10, 11, 12, 13)
TRUTH = {seed: phantom(seed)[1] for seed in SEEDS}


class Thresholds:
    """A stand-in for the student, which knows how bright the balls are."""

    name = "thresholds"

    def __init__(self, broken=False):
        self.asked = 0
        self.broken = broken

    def segment(self, volume, task):
        self.asked += 1
        if self.broken:
            return np.random.default_rng(0).integers(0, 3, volume.shape)
        return np.array([0, 2, 1])[np.digitize(volume.data, (25, 75))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("labels"))


@pytest.fixture
def work(made, tmp_path):
    """A copy of the workspace."""
    shutil.copytree(made.folder, tmp_path / "work")
    return Workspace.open(tmp_path / "work")


@pytest.fixture
def student(monkeypatch):
    """The stand-in in the current student's place; experts whose training tells that it began."""
    eyes = Thresholds()

    def system(folder, mode, device, workspace):
        return System(f"thresholds-{mode}", eyes, ("balls", "others"))

    monkeypatch.setattr(belonging_stage, "student_system", system)
    monkeypatch.setattr(retrain_stages, "retrain_expert", _began)
    return eyes


class ExpertBeganError(Exception):
    """Training began."""


def _began(*_, **__):
    raise ExpertBeganError


def made_of(workspace, path, labels):
    """A package of four cases with these labels, a function of the number."""
    drawn = [
        correction(workspace, seed, labels=labels(i).astype(np.uint8))
        for i, seed in enumerate(SEEDS)
    ]
    return package(path / "Dataset007_balls", *drawn)


def others_labels(i):
    return TRUTH[SEEDS[(i + 1) % len(SEEDS)]]


def own_labels(i):
    return TRUTH[SEEDS[i]]


def data(workspace):
    """What trainings, the gate and users read of a workspace."""
    found = [p for part in ("students", "experts") for p in (workspace.folder / part).rglob("*")]
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "labelsHe", "imagesHe"):
        found += (workspace.folder / "datasets").glob(f"*/{name}/*")
    return {str(p): p.read_bytes() for p in found if p.is_file()}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (others_labels, "labels of 4 of 4 cases fit"),
        (lambda i: np.roll(own_labels(i), (3, 4, 3), (0, 1, 2)), "are they displaced?"),
        (lambda i: 0 * own_labels(i), "4 of 4 cases have no labels"),
    ],
    ids=["shuffled", "shifted", "emptied"],
)
def test_a_package_with_wrong_labels_is_refused_before_any_training(
    work, student, tmp_path, capsys, labels, words
):
    bad = made_of(work, tmp_path, labels)
    before = data(work)
    assert main(["retrain", str(work.folder), str(bad), "--json", *FLAGS]) == 3
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["refused_by"]) == ("refused", "labels")
    assert (result["version"], result["current"]) == (None, "v0001")
    assert words in result["reason"]
    assert "--accept-labels" in result["reason"]
    assert len(result["withdrawn"]) == 4
    assert set(result["stages"]) == set(STAGES) - {"experts", "expert_gate", "student", "gate"}
    assert data(work) == before
    assert versions(work) == ["v0001"]
    assert unfinished(work) is None
    (kept,) = refused_packages(work)
    assert sum(dry_run(work.folder, [kept], LENGTHS)["cases"]["balls"].values()) == 4
    page = Path(result["report"]).read_text("utf-8")
    assert "Do the labels belong to their images?" in page
    assert "strange" in page
    record = read_json(work.folder / "runs" / "round-0001" / "round.json")
    assert [fit["verdict"] for fit in record["labels"]["balls"]] == ["strange"] * 4


def test_good_labels_go_on_to_training(work, student, tmp_path):
    with pytest.raises(ExpertBeganError):
        retrain(work.folder, [made_of(work, tmp_path, own_labels)], LENGTHS)
    found = unfinished(work).result("labels")
    assert found["stopped"] == ""
    fits = found["tasks"]["balls"]["cases"]
    assert len(fits) == 4  # held ones too
    assert all(len(fit["others"]) == 5 for fit in fits)
    assert {fit["verdict"] for fit in fits} <= {"belongs", "unclear"}


def test_a_single_wrong_case_is_named_and_refuses_nothing(work, student, tmp_path, caplog):
    mixed = made_of(work, tmp_path, lambda i: own_labels(i) if i else others_labels(i))
    with pytest.raises(ExpertBeganError):
        retrain(work.folder, [mixed], LENGTHS)
    assert "balls, case case10_" in caplog.text
    assert "look at its labels" in caplog.text


def test_accepted_labels_are_trained_on_and_still_named(work, student, tmp_path, caplog):
    options = dataclasses.replace(LENGTHS, accept_labels=True)
    with pytest.raises(ExpertBeganError):
        retrain(work.folder, [made_of(work, tmp_path, others_labels)], options)
    assert unfinished(work).result("labels")["tasks"]["balls"]["refusal"]
    assert "are they in the right files" in caplog.text


def test_a_student_that_sees_nothing_refuses_nothing(work, student, tmp_path):
    student.broken = True
    with pytest.raises(ExpertBeganError):
        retrain(work.folder, [made_of(work, tmp_path, others_labels)], LENGTHS)
    fits = unfinished(work).result("labels")["tasks"]["balls"]["cases"]
    assert {fit["verdict"] for fit in fits} == {"undecided"}


def test_a_stage_that_was_broken_off_goes_on_and_segments_nothing_twice(work, student, tmp_path):
    path = made_of(work, tmp_path, own_labels)
    with pytest.raises(CancelledError):
        retrain(work.folder, [path], LENGTHS, cancelled=lambda: student.asked == 2)
    assert "labels" not in unfinished(work).stages
    told = []
    with pytest.raises(ExpertBeganError):
        retrain(
            work.folder, [], LENGTHS, resume=True, progress=lambda share, text: told.append(text)
        )
    assert student.asked == 4
    assert any(text.startswith("labels: case") for text in told)
