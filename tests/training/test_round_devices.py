"""Where a round of `ka2er retrain --executor` works: jobs decide where they run, gates here."""

from __future__ import annotations

import pytest
import torch
from tests.training.rounds import LENGTHS, make_workspace

from ka2er_training import round_student
from ka2er_training.cli import main
from ka2er_training.round_state import REFUSED, new_round
from ka2er_training.scoring import expert_system, student_system


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_workspace(tmp_path_factory.mktemp("devices"))


@pytest.fixture
def handed_on(monkeypatch):
    """What `retrain` was told; it is not run."""
    told = []

    def pretend(*_, device, executor, **__):
        told.append((device, executor))
        return {"status": REFUSED, "reason": "", "report": ""}

    monkeypatch.setattr("ka2er_training.retrain.retrain", pretend)
    monkeypatch.setattr("napari_ka2er.model.device._best", lambda: "mps")
    return told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], ("mps", "")),
        (["--executor", "slurm"], ("auto", "slurm")),
        (["--executor", "local", "--device", "cpu"], ("cpu", "local")),
    ],
)
def test_with_an_executor_the_jobs_decide_about_their_device(made, handed_on, options, told):
    assert main(["retrain", str(made.folder), "package", *options]) == 3
    assert handed_on == [told]


def test_a_device_that_the_gates_here_have_not_is_refused_before_anything(made, handed_on, caplog):
    command = ["retrain", str(made.folder), "package", "--executor", "slurm", "--device", "cuda:9"]
    assert main(command) == 2
    assert "device cuda:9" in caplog.text
    assert handed_on == []


def test_a_student_s_job_decides_where_it_trains(made, monkeypatch):
    class Began(Exception):
        pass

    def began(*_, device, **__):
        raise Began(device)

    monkeypatch.setattr("napari_ka2er.model.device._best", lambda: "cpu")
    monkeypatch.setattr(round_student, "reamalgamate", began)
    new_round(made, LENGTHS, [], "v0001")
    experts = {name: str(made.expert_folder(name)) for name in made.tasks}
    with pytest.raises(Began, match=r"^cpu$"):
        round_student.make_student(made.folder, 1, "v0001", experts, "auto")


def test_gates_decide_where_they_work(made, monkeypatch):
    monkeypatch.setattr("napari_ka2er.model.device._best", lambda: "cpu")
    student = student_system(made.folder / "students" / "v0001", "sparse", "auto")
    assert student.segmenter.loaded.device == torch.device("cpu")
    expert_system(made.expert_folder("balls"), "auto")
