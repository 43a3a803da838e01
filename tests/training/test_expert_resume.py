"""What `ka2er expert train --resume` goes on from; nothing is trained here but in the slow test."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ka2er_training import experts
from ka2er_training.cli import main
from ka2er_training.expert_resume import (
    INPUTS,
    epoch_of,
    inputs_of,
    latest_checkpoint,
    make_final,
    write_inputs,
)
from ka2er_training.experts import ExpertPlan, train_expert
from ka2er_training.nnunet import fold_folder
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError

RESUMED = ExpertPlan(device="cpu", resume=True)


class Strange:
    """Nothing that may be unpickled without an explicit word."""


def write_checkpoint(folder: Path, kind: str, epoch: int, log: object = None) -> Path:
    """Write what `latest_checkpoint` reads of a checkpoint, with NumPy's numbers as nnU-Net's."""
    path = folder / f"checkpoint_{kind}.pth"
    log = {"train_losses": [np.float32(1), np.float64(2)]} if log is None else log
    weights = {"a": torch.zeros(3)}
    init = {"device": torch.device("cpu"), "fold": "all"}
    told = {"network_weights": weights, "init_args": init, "_best_ema": np.float64(0.5)}
    torch.save({**told, "logging": log, "current_epoch": epoch}, path)
    return path


@pytest.fixture
def begun(balls, tmp_path):
    """A workspace in which a training of balls has written a checkpoint and its inputs."""
    shutil.copytree(balls.folder, tmp_path / "work")
    workspace = Workspace.open(tmp_path / "work")
    job, _ = experts._job(workspace, "balls", RESUMED)
    write_inputs(fold_folder(job), job)
    write_checkpoint(fold_folder(job), "latest", 3)
    return workspace


@pytest.fixture
def started(monkeypatch):
    """What nnU-Net would have been told to do; it is not started."""
    jobs = []

    def take_note(_workspace, _task, job, *_):
        jobs.append(job)
        raise UserError("no training", "one")

    monkeypatch.setattr(experts, "_run", take_note)
    return jobs


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data))


def set_preset(workspace: Workspace, lines: str) -> None:
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8") + f"\n[presets.tiny]\n{lines}\n")


def drop_case(workspace: Workspace) -> None:
    first = workspace.training_cases("balls")[0]
    first.image.unlink()
    first.label.unlink()

    def drop(data):
        data["cases"] = [case for case in data["cases"] if case["id"] != first.id]

    edit(workspace.dataset_folder("balls") / "cases.json", drop)


def redraw(workspace: Workspace) -> None:
    def change(data):
        for case in data["cases"]:
            case["label"] = "0" * 64

    edit(workspace.dataset_folder("balls") / "cases.json", change)


CHANGES = {
    "a case gone": (drop_case, RESUMED, r"case p\d_a gone"),
    "labels redrawn": (redraw, RESUMED, r"cases p\d_a, p\d_a, p\d_a and 1 more changed"),
    "iterations": (lambda w: set_preset(w, "iterations = 7"), RESUMED, "iterations 7, was 20"),
    "mirroring": (lambda w: set_preset(w, "mirror = false"), RESUMED, "mirror False, was True"),
    "spacing": (
        lambda w: (w.folder / "ka2er.toml").write_text(
            (w.folder / "ka2er.toml").read_text("utf-8").replace("2.0,", "3.0,").replace("2,", "3,")
        ),
        RESUMED,
        "spacing_mm",
    ),
    "names": (
        lambda w: edit(
            w.dataset_folder("balls") / "dataset.json",
            lambda data: data["labels"].update(dim=3),
        ),
        RESUMED,
        "labels",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_data_or_settings_are_not_resumed(begun, started, caplog, name):
    change, _, words = CHANGES[name]
    change(begun)
    with pytest.raises(UserError, match=f"{words}.*train without --resume"):
        train_expert(Workspace.open(begun.folder), "balls", RESUMED)
    assert not started
    assert main(["expert", "train", str(begun.folder), "balls", "--resume", "--device", "cpu"]) == 2
    assert "\n" not in caplog.records[-1].getMessage()


def licence(workspace: Workspace) -> None:
    edit(workspace.dataset_folder("balls") / "dataset.json", lambda data: data.update(licence="?"))


def queue_more(workspace: Workspace) -> None:
    more = {"id": "p9_a", "patient": "p9", "split": "queued", "image": "a", "label": "b"}
    for folder, name in (("imagesQu", "p9_a_0000.nii.gz"), ("labelsQu", "p9_a.nii.gz")):
        path = workspace.dataset_folder("balls") / folder / name
        path.parent.mkdir()
        path.touch()
    edit(workspace.dataset_folder("balls") / "cases.json", lambda data: data["cases"].append(more))


def forget(workspace: Workspace) -> None:
    drop_case(workspace)
    next(workspace.experts_folder.rglob(INPUTS)).unlink()


HARMLESS = {
    "nothing": lambda _: None,
    "more epochs": lambda w: set_preset(w, "epochs = 80"),
    "more checkpoints": lambda w: set_preset(w, "save_every = 5"),
    "licence": licence,
    "corrections that wait": queue_more,
    "a fold of an older version": forget,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_the_training_does_not_depend_on_may_change(begun, started, name):
    HARMLESS[name](begun)
    with pytest.raises(UserError, match="no training"):
        train_expert(Workspace.open(begun.folder), "balls", RESUMED)
    assert started[0].resume


def test_without_resume_everything_may_change(begun, started):
    drop_case(begun)
    with pytest.raises(UserError, match="no training"):
        train_expert(begun, "balls", replace(RESUMED, resume=False))
    assert started


def test_without_a_checkpoint_there_is_nothing_to_refuse(begun, started, caplog):
    caplog.set_level("INFO")
    next(begun.experts_folder.rglob("checkpoint_latest.pth")).unlink()
    drop_case(begun)
    with pytest.raises(UserError, match="no training"):
        train_expert(begun, "balls", RESUMED)
    assert "no checkpoint" in caplog.text


def test_inputs_come_back_from_their_file(begun):
    job, _ = experts._job(begun, "balls", RESUMED)
    assert json.loads((fold_folder(job) / INPUTS).read_text("utf-8")) == inputs_of(job)


@pytest.mark.parametrize(
    ("epochs", "kind"),
    [
        ({}, None),
        ({"best": 4}, "best"),
        ({"best": 4, "latest": 9}, "latest"),
        ({"final": 40, "best": 31}, "final"),
        ({"final": 40, "latest": 60, "best": 55}, "latest"),  # an extension that was killed
        ({"final": 40, "latest": 40}, "final"),
    ],
)
def test_the_checkpoint_of_the_highest_epoch_is_taken(tmp_path, epochs, kind):
    for number, (name, epoch) in enumerate(epochs.items()):
        path = write_checkpoint(tmp_path, name, epoch)
        os.utime(path, ns=(0, 10**9 * (10 - number)))  # times that say otherwise
    found = latest_checkpoint(tmp_path)
    assert (found and found.name) == (kind and f"checkpoint_{kind}.pth")


def test_checkpoints_that_cannot_be_read_safely_go_by_time(tmp_path):
    final = write_checkpoint(tmp_path, "final", 40, log=Strange())
    latest = write_checkpoint(tmp_path, "latest", 9)
    assert (epoch_of(final), epoch_of(latest)) == (None, 9)
    for path, second in ((final, 1), (latest, 2)):
        os.utime(path, ns=(0, 10**9 * second))
    assert latest_checkpoint(tmp_path) == latest
    latest.write_bytes(b"")
    assert epoch_of(latest) is None


@pytest.mark.parametrize("kind", ["latest", "best"])
def test_a_kill_before_the_final_checkpoint_is_made_good(tmp_path, kind):
    write_checkpoint(tmp_path, "final", 20)  # of the shorter schedule
    last = write_checkpoint(tmp_path, kind, 40)
    make_final(latest_checkpoint(tmp_path))
    final = tmp_path / "checkpoint_final.pth"
    assert epoch_of(final) == 40
    assert final.read_bytes() == last.read_bytes()
    make_final(latest_checkpoint(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([final.name, last.name])


@pytest.mark.slow
def test_a_training_killed_after_its_last_epoch_is_finished(balls, tmp_path):
    shutil.copytree(balls.folder, tmp_path / "work")
    workspace = Workspace.open(tmp_path / "work")
    set_preset(workspace, "epochs = 1\niterations = 2\nval_iterations = 1")
    workspace = Workspace.open(workspace.folder)
    first = train_expert(workspace, "balls", RESUMED)
    fold = Path(first["model_folder"]) / "fold_all"
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_latest.pth")
    assert train_expert(workspace, "balls", RESUMED)["digest"] == first["digest"]
    assert (fold / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_a_finished_training_is_extended_but_not_with_other_data(balls, tmp_path):
    shutil.copytree(balls.folder, tmp_path / "work")
    workspace = Workspace.open(tmp_path / "work")
    set_preset(workspace, "epochs = 1\niterations = 2\nval_iterations = 1")
    workspace = Workspace.open(workspace.folder)
    first = train_expert(workspace, "balls", RESUMED)
    fold = Path(first["model_folder"]) / "fold_all"
    assert epoch_of(fold / "checkpoint_final.pth") == 1
    longer = train_expert(workspace, "balls", replace(RESUMED, epochs=2))
    assert longer["last_epoch"]["epoch"] == 2
    assert longer["digest"] != first["digest"]
    drop_case(workspace)
    with pytest.raises(UserError, match="gone"):
        train_expert(workspace, "balls", replace(RESUMED, epochs=3))
