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
from tests.model.folders import make_expert
from tests.training.packages import THREE_SLICES, correction, package
from tests.training.test_experts import SHORT, run_tool, short_copy

from ka2er_training.expert_job import ExpertJob, frozen_plans
from ka2er_training.expert_retraining import candidate_folder, job_for, loss_of, retrain_expert
from ka2er_training.experts import train_expert
from ka2er_training.ingest import ingest
from ka2er_training.ingest_plan import plan_ingest
from ka2er_training.presets import PRESETS
from ka2er_training.trainers import repeated
from ka2er_training.workspace import Workspace, read_json
from napari_ka2er.core.package import read_package


def take(workspace: Workspace, path: Path) -> None:
    """Ingest a package as round 1."""
    ingest(workspace, plan_ingest(workspace, [read_package(path)], 1))


@pytest.fixture(scope="module")
def corrected(balls, tmp_path_factory):
    """A workspace with a briefly trained expert and two partial corrections, and its expert."""
    folder = tmp_path_factory.mktemp("corrected")
    workspace = short_copy(balls, folder / "work", 2)
    train_expert(workspace, "balls")
    before = {p.name: p.read_bytes() for p in workspace.expert_folder("balls").iterdir()}
    corrections = [correction(workspace, seed, reviewed=THREE_SLICES) for seed in (10, 11)]
    take(workspace, package(folder / "Dataset007_balls", *corrections))
    return workspace, before


@pytest.mark.parametrize(
    ("n_old", "n_new", "share"), [(8, 2, 0.5), (3, 5, 0.5), (10, 1, 0.25), (7, 3, 0.6)]
)
def test_corrected_cases_are_listed_so_often_that_they_make_up_their_share(n_old, n_new, share):
    old, new = [f"old{i}" for i in range(n_old)], [f"new{i}" for i in range(n_new)]
    found = repeated(old + new, set(new), share)
    assert set(found) == {*old, *new}
    assert sum(case in new for case in found) / len(found) == pytest.approx(share, abs=0.02)


def test_without_corrections_every_case_is_listed_once_and_the_ends_leave_one_kind():
    assert repeated(["a", "b"], set(), 0.5) == ["a", "b"]
    assert repeated(["a", "b"], {"b"}, 1) == ["b"]
    assert repeated(["a", "b"], {"b"}, 0) == ["a"]


@pytest.mark.parametrize(
    ("source", "loss"),
    [
        ("Ka2erTrainerCE__ka2erTinyPlans__3d_fullres", "ce"),
        ("Ka2erTrainer__retrain__3d_fullres", "dice_ce"),
        ("nnUNetTrainer__nnUNetPlans__3d_fullres", "as set"),
        (None, "as set"),
    ],
)
def test_an_expert_keeps_the_loss_that_it_was_trained_with(tmp_path, source, loss):
    entry = {} if source is None else {"source": source}
    (tmp_path / "expert.json").write_text(json.dumps(entry))
    assert loss_of(tmp_path, "as set") == loss


def test_a_retraining_s_job_has_the_loss_of_its_expert(balls, tmp_path):
    workspace = Workspace.open(shutil.copytree(balls.folder, tmp_path / "work"))
    expert = workspace.expert_folder("balls")
    expert.parent.mkdir(parents=True)
    make_expert(expert, workspace.record("balls").task, 0)
    entry = read_json(expert / "expert.json")
    source = "Ka2erTrainerCE__ka2erTinyPlans__3d_fullres"
    (expert / "expert.json").write_text(json.dumps({**entry, "source": source}))
    assert workspace.settings.expert.loss == "dice_ce"
    assert job_for(workspace, 1, "balls").loss == "ce"


@pytest.mark.slow
def test_an_expert_goes_on_from_all_its_weights_with_its_own_plans(corrected):
    from napari_ka2er.model.experts import Expert

    workspace, before = corrected
    result = retrain_expert(workspace.folder, 1, "balls")
    out = candidate_folder(workspace, 1, "balls")
    old, new = Expert.load(workspace.expert_folder("balls")), Expert.load(out)
    assert (old.digest, new.digest) == (result["parent"], result["digest"])
    assert old.digest != new.digest
    assert read_json(out / "plans.json") == read_json(
        workspace.expert_folder("balls") / "plans.json"
    )
    # One short epoch from the old weights moves every tensor a little; a new head would differ
    # from the old one by as much as the old one is large.
    weights = new.network.state_dict()
    for name, tensor in old.network.state_dict().items():
        if tensor.ndim > 1:
            assert (weights[name] - tensor).norm() < 0.3 * tensor.norm(), name
    assert any("seg_layers" in name for name in weights)
    after = {p.name: p.read_bytes() for p in workspace.expert_folder("balls").iterdir()}
    assert after == before
    assert (result["cases"], result["corrected"]) == (6, 2)
    assert retrain_expert(workspace.folder, 1, "balls") == result  # done, so not done again


@pytest.mark.slow
def test_unreviewed_voxels_reach_nnunet_as_its_ignore_label(corrected):
    import blosc2

    workspace, _ = corrected
    job = job_for(workspace, 1, "balls")
    retrain_expert(workspace.folder, 1, "balls")
    folder = Path(job.preprocessed, job.dataset, job.data_identifier)
    for name in job.cases:
        values = set(np.unique(blosc2.open(str(folder / f"{name}_seg.b2nd"))[:]).tolist())
        assert (3 in values) == (name in job.corrected)


BRIEF = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerBrief(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "dataset"), [("1", "Dataset001_balls"), ("7", "Dataset007_balls")]
)
def test_plain_nnunet_trains_on_the_dataset_after_ingest_and_on_the_package(
    corrected, tmp_path, number, dataset
):
    """Its own planner and trainer, only short, and with few features for the CPU's sake."""
    workspace, _ = corrected
    folder = tmp_path / "plain"
    shutil.copytree(workspace.folder / "datasets", folder / "datasets")
    (kept,) = (workspace.folder / "packages").iterdir()
    shutil.copytree(kept, folder / "datasets" / "Dataset007_balls")
    (folder / "trainers").mkdir()
    (folder / "trainers" / "nnUNetTrainerBrief.py").write_text(BRIEF)
    plain = Workspace(folder, workspace.settings)
    run_tool(
        plain, "nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", "1",
        "-npfp", "1", "--verify_dataset_integrity",
    )  # fmt: skip
    plans = folder / "preprocessed" / dataset / "nnUNetPlans.json"
    smaller = read_json(plans)
    arguments = smaller["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [4] * len(arguments["features_per_stage"])
    plans.write_text(json.dumps(smaller))
    run_tool(
        plain, "nnUNetv2_train", number, "3d_fullres", "all", "-tr", "nnUNetTrainerBrief",
        "-device", "cpu", nnUNet_n_proc_DA="0", nnUNet_extTrainer=str(folder / "trainers"),
    )  # fmt: skip
    model = folder / "experts" / dataset / "nnUNetTrainerBrief__nnUNetPlans__3d_fullres"
    assert (model / "fold_all" / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_an_expert_that_came_as_files_is_retrained_too(balls, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(balls.folder, folder)
    standard = SHORT.format(epochs=2).replace("tiny", "standard")  # the preset of its plans
    (folder / "ka2er.toml").write_text((folder / "ka2er.toml").read_text("utf-8") + standard)
    workspace = Workspace.open(folder)
    expert = workspace.expert_folder("balls")
    expert.parent.mkdir(parents=True)
    old = make_expert(expert, workspace.record("balls").task, 0)
    take(workspace, package(tmp_path / "p", correction(workspace, 10)))
    result = retrain_expert(folder, 1, "balls")
    assert result["parent"] == old.digest
    assert result["digest"] != old.digest


@pytest.mark.slow
def test_a_killed_retraining_goes_on_from_its_checkpoint(balls, tmp_path):
    workspace = short_copy(balls, tmp_path / "work", 2)
    train_expert(workspace, "balls")
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8").replace("epochs = 2", "epochs = 80"))
    workspace = Workspace.open(workspace.folder)
    take(workspace, package(tmp_path / "p", correction(workspace, 10)))
    code = "import sys; from ka2er_training.expert_retraining import retrain_expert as r; "
    command = [sys.executable, "-c", code + f"r({str(workspace.folder)!r}, 1, 'balls')"]
    started = time.time()
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        work = workspace.folder / "runs" / "round-0001" / "experts_work"
        while not list(work.rglob("checkpoint_latest.pth")):
            assert process.poll() is None
            assert time.time() < started + 240
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    assert not candidate_folder(workspace, 1, "balls").exists()
    stages = []
    retrain_expert(workspace.folder, 1, "balls", progress=lambda _, text: stages.append(text))
    assert "resuming" in stages
    assert candidate_folder(workspace, 1, "balls").is_dir()


@pytest.mark.parametrize("named", [{}, {"overwrite_image_reader_writer": "NibabelIO"}])
def test_an_expert_is_retrained_with_the_reader_that_its_dataset_names(tmp_path, named):
    for folder in ("dataset", "expert"):
        (tmp_path / folder).mkdir()
    plans = {"image_reader_writer": "SimpleITKIO", "configurations": {"3d_fullres": {"a": 1}}}
    (tmp_path / "expert" / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "expert" / "expert.json").write_text('{"configuration": "3d_fullres"}')
    (tmp_path / "dataset" / "dataset.json").write_text(json.dumps(named))
    given = {"dataset_folder": str(tmp_path / "dataset"), "expert": str(tmp_path / "expert")}
    rest = dict.fromkeys(("preprocessed", "results", "loss", "device"), "")
    job = ExpertJob(
        **given, **rest, preset=PRESETS["tiny"], cases={}, corrected=(), oversampling=0.5, seed=0
    )
    found = frozen_plans(job)
    assert found["image_reader_writer"] == ("NibabelIO" if named else "SimpleITKIO")
    assert found["configurations"]["3d_fullres"]["a"] == 1
