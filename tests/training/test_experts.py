from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ka2er_training.cli import main
from ka2er_training.experts import ExpertPlan, _job, add_expert, train_expert
from ka2er_training.nnunet import environment
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import read_labels

SHORT = "\n[presets.tiny]\nepochs = {epochs}\niterations = 2\nval_iterations = 1\n"
TRAINER = "Ka2erTrainer__ka2erTinyPlans__3d_fullres"


def short_copy(workspace: Workspace, folder: Path, epochs: int) -> Workspace:
    """Copy a workspace and shorten its tiny preset."""
    shutil.copytree(workspace.folder, folder)
    path = folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8") + SHORT.format(epochs=epochs))
    return Workspace.open(folder)


@pytest.fixture(scope="module")
def trained(balls, tmp_path_factory):
    """A workspace whose expert was trained for two epochs, with what was reported."""
    workspace = short_copy(balls, tmp_path_factory.mktemp("trained") / "work", 2)
    shares = []
    outcome = train_expert(workspace, "balls", progress=lambda share, _: shares.append(share))
    return workspace, outcome, shares


def run_tool(workspace: Workspace, name: str, *arguments: str, **variables: str) -> None:
    """Run one of nnU-Net's own commands on the workspace."""
    tool = Path(sys.executable).with_name(name)
    own = {**environment(workspace.folder, "cpu"), **variables}
    process = subprocess.run(
        [tool, *arguments], env={**os.environ, **own}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "WORK", "cubes"], "cubes"),
        (["train", "WORK", "balls", "--preset", "huge"], "preset"),
        (["train", "WORK", "balls", "--loss", "focal"], "loss"),
        (["train", "WORK", "balls", "--device", "tpu"], "device"),
        (["train", "WORK/datasets", "balls"], "workspace"),
        (["train", "WORK", "balls", "--epochs", "0"], "epochs of at least 1"),
        (["add", "WORK", "cubes", "WORK"], "cubes"),
        (["add", "WORK", "balls", "WORK/datasets"], "model folder"),
        (["add", "WORK", "balls", "nowhere"], "model folder"),
    ],
)
def test_wrong_arguments_are_one_line(balls, caplog, arguments, words):
    assert main(["expert", *(text.replace("WORK", str(balls.folder)) for text in arguments)]) == 2
    (record,) = caplog.records
    assert words in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_second_training_of_the_same_expert_is_refused(balls):
    with balls.lock("expert-balls"), pytest.raises(UserError, match="another process"):
        train_expert(balls, "balls", ExpertPlan(device="cpu"))


def test_a_plan_s_epochs_take_the_place_of_the_preset_s(balls):
    usual = balls.settings.presets[balls.settings.expert.preset].epochs
    jobs = [_job(balls, "balls", ExpertPlan(device="cpu", epochs=n))[0] for n in (None, usual + 7)]
    assert [job.preset.epochs for job in jobs] == [usual, usual + 7]


@pytest.mark.slow
def test_training_leaves_nnunets_folder_and_a_safe_expert(trained):
    from napari_ka2er.model.experts import Expert

    workspace, outcome, shares = trained
    assert outcome["digest"] == Expert.load(workspace.expert_folder("balls")).digest
    assert Path(outcome["model_folder"]) == workspace.experts_folder / "Dataset001_balls" / TRAINER
    assert Expert.load(workspace.expert_folder("balls")).task == workspace.record("balls").task
    assert outcome["last_epoch"]["epoch"] == 2
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.slow
def test_the_hold_out_never_reached_training(trained):
    workspace, _, _ = trained
    held = {case.id for case in workspace.holdout_cases("balls")}
    seen = {
        path.name.split(".")[0].removesuffix("_seg")
        for path in (workspace.folder / "preprocessed").rglob("*.b2nd")
    }
    assert seen == {case.id for case in workspace.training_cases("balls")}
    assert held
    assert not held & seen
    for path in workspace.folder.rglob("dataset_fingerprint.json"):
        assert len(json.loads(path.read_text("utf-8"))["spacings"]) == 4


@pytest.mark.slow
def test_the_tiny_plans_keep_to_the_students_grid_and_the_budget(trained):
    workspace, _, _ = trained
    plans = json.loads(
        (workspace.folder / "preprocessed/Dataset001_balls/ka2erTinyPlans.json").read_text("utf-8")
    )
    plan = plans["configurations"]["3d_fullres"]
    assert plan["spacing"] == [2, 2, 2]
    assert plan["batch_size"] >= 2
    assert np.prod(plan["patch_size"]) <= 90_000
    assert plan["architecture"]["arch_kwargs"]["features_per_stage"][0] == 16


@pytest.mark.slow
def test_training_again_with_resume_has_nothing_to_do(trained, caplog):
    workspace, outcome, _ = trained
    path = Path(outcome["model_folder"]) / "fold_all" / "checkpoint_final.pth"
    before = path.stat().st_mtime_ns
    again = train_expert(workspace, "balls", ExpertPlan(resume=True))
    assert (again["digest"], again["last_epoch"]) == (outcome["digest"], None)
    assert path.stat().st_mtime_ns == before


@pytest.mark.slow
def test_plain_nnunet_predicts_with_our_model(trained, tmp_path):
    workspace, outcome, _ = trained
    case = workspace.holdout_cases("balls")[0]
    model = outcome["model_folder"]
    shutil.copytree(case.image.parent, tmp_path / "in")
    arguments = [
        "-i",
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "-m",
        model,
        "-f",
        "all",
        "-device",
        "cpu",
    ]
    run_tool(
        workspace,
        "nnUNetv2_predict_from_modelfolder",
        *map(str, arguments),
        "-npp",
        "1",
        "-nps",
        "1",
    )
    labels, _ = read_labels(tmp_path / "out" / f"{case.id}.nii.gz")
    assert labels.shape == read_labels(case.label)[0].shape


@pytest.mark.slow
def test_plain_nnunet_plans_trains_and_its_model_is_taken(balls, tmp_path):
    workspace = short_copy(balls, tmp_path / "work", 1)
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "short.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class Short(nnUNetTrainer):\n"
        "    def __init__(self, plans, configuration, fold, dataset_json, device):\n"
        "        super().__init__(plans, configuration, fold, dataset_json, device)\n"
        "        self.num_epochs = self.num_iterations_per_epoch = 1\n"
        "        self.num_val_iterations_per_epoch = 1\n"
    )
    plan = ("-d", "1", "-c", "3d_fullres", "-np", "1", "-npfp", "1", "--verify_dataset_integrity")
    run_tool(workspace, "nnUNetv2_plan_and_preprocess", *plan)
    trainers = {"nnUNet_extTrainer": str(tmp_path / "trainers")}
    run_tool(
        workspace,
        "nnUNetv2_train",
        "1",
        "3d_fullres",
        "all",
        "-tr",
        "Short",
        "-device",
        "cpu",
        **trainers,
    )
    model = workspace.experts_folder / "Dataset001_balls" / "Short__nnUNetPlans__3d_fullres"
    outcome = add_expert(workspace, "balls", model)
    assert (workspace.expert_folder("balls") / "expert.safetensors").is_file()
    assert len(outcome["digest"]) == 64


@pytest.mark.slow
def test_the_papers_loss_trains_beside_the_other(trained):
    workspace, outcome, _ = trained
    paper = train_expert(workspace, "balls", ExpertPlan(loss="ce"))
    assert Path(paper["model_folder"]).name.startswith("Ka2erTrainerCE__")
    assert Path(outcome["model_folder"]).is_dir()
    assert paper["digest"] != outcome["digest"]


@pytest.mark.slow
def test_cancelling_keeps_the_checkpoint_to_resume_from(balls, tmp_path):
    workspace = short_copy(balls, tmp_path / "work", 30)
    shares = []
    with pytest.raises(CancelledError):
        train_expert(
            workspace,
            "balls",
            progress=lambda share, _: shares.append(share),
            cancelled=lambda: bool(shares) and shares[-1] > 0.1,
        )
    assert list(workspace.experts_folder.rglob("checkpoint_latest.pth"))
    assert not workspace.expert_folder("balls").exists()


def start(workspace: Workspace, *options: str) -> subprocess.Popen[str]:
    """Start `ka2er expert train` in a process of its own."""
    arguments = [
        "-m",
        "ka2er_training",
        "expert",
        "train",
        str(workspace.folder),
        "balls",
        *options,
    ]
    return subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(workspace: Workspace, process: subprocess.Popen[str], since: float) -> None:
    """Return once a checkpoint is younger than `since`."""
    while process.poll() is None:
        found = workspace.experts_folder.rglob("checkpoint_latest.pth")
        if any(path.stat().st_mtime > since for path in found):
            return
        time.sleep(0.5)  # looking more often would slow what is waited for
    pytest.fail(f"ended before its first checkpoint: {process.stderr.read()}")


@pytest.mark.slow
def test_interrupted_then_killed_then_resumed_training_finishes(balls, tmp_path):
    workspace = short_copy(balls, tmp_path / "work", 15)
    with start(workspace) as process:
        wait_for_checkpoint(workspace, process, 0)
        process.send_signal(signal.SIGINT)
        output = process.communicate()[1]
    assert process.returncode == 130
    assert output.strip().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in output
    with start(workspace, "--resume") as process:
        wait_for_checkpoint(workspace, process, time.time())
        process.kill()
        output = process.communicate()[1]
    first = next(line for line in output.splitlines() if line.startswith("resuming at epoch"))
    with start(workspace, "--resume") as process:
        output = process.communicate()[1]
    assert process.returncode == 0, output
    second = next(line for line in output.splitlines() if line.startswith("resuming at epoch"))
    assert int(first.split()[3]) < int(second.split()[3])
    assert "epoch 15/15" in output
    assert (workspace.expert_folder("balls") / "expert.json").is_file()
    assert not list(workspace.experts_folder.rglob("*.part"))
