"""Experts, features and the student as jobs, with processes killed in the middle."""

import dataclasses
import json
import os
import signal
import time

import pytest
from safetensors.numpy import load_file
from tests.model.folders import make_expert
from tests.training.conftest import write_raw

from ka2er_training.cli import main
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.executors import require_all
from ka2er_training.experts import ExpertPlan
from ka2er_training.scale import (
    amalgamate_in_jobs,
    expert_job,
    extract_features,
    jobs_folder,
    student_job,
    train_experts,
)
from ka2er_training.sources import read_source
from ka2er_training.students import AmalgamationPlan, ingredients_of
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError

PLAN = AmalgamationPlan(steps=3, polish_steps=1, click_steps=1, checkpoint_every=1)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make_workspace(folder, tasks):
    """A workspace with tasks of five balls each and two epochs of two iterations per expert."""
    workspace = Workspace.create(folder / "work")
    text = (workspace.folder / "ka2er.toml").read_text("utf-8")
    presets = "\n[presets.tiny]\nepochs = 3\niterations = 2\nval_iterations = 1\n"
    (workspace.folder / "ka2er.toml").write_text(text + presets)
    for number, name in enumerate(tasks):
        raw = write_raw(folder / name, first=10 * number)
        options = TaskOptions(name=name, spacing_mm=(2, 2, 2))
        add_task(Workspace.open(workspace.folder), read_source(raw), options)
    return Workspace.open(workspace.folder)


def with_experts(workspace):
    for number, task in enumerate(workspace.tasks):
        folder = workspace.expert_folder(task)
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_expert(folder, workspace.record(task).task, number)
    return workspace


class KillOnce:
    """Kills a job's process with -9 when the job says something; a callable for `progress`."""

    def __init__(self, workspace, name, words):
        self.path, self.words = jobs_folder(workspace) / name / "progress.json", words
        self.killed = 0

    def __call__(self, share, what):
        if self.killed or not self.path.exists():
            return
        told = json.loads(self.path.read_text("utf-8"))
        if self.words in told["what"]:
            os.kill(told["pid"], signal.SIGKILL)
            self.killed += 1


def test_a_job_knows_when_its_cases_or_its_schedule_changed(tmp_path):
    workspace = make_workspace(tmp_path, ["one"])
    before = expert_job(workspace, "one", ExpertPlan()).digest
    assert expert_job(workspace, "one", ExpertPlan(resume=True)).digest == before
    assert expert_job(workspace, "one", ExpertPlan(seed=1)).digest != before
    assert expert_job(workspace, "one", ExpertPlan(epochs=9)).digest != before
    toml = workspace.folder / "ka2er.toml"
    toml.write_text(toml.read_text("utf-8").replace("epochs = 3", "epochs = 4"))
    changed = Workspace.open(workspace.folder)
    assert expert_job(changed, "one", ExpertPlan()).digest != before
    cases = workspace.dataset_folder("one") / "cases.json"
    cases.write_text(cases.read_text("utf-8") + "\n")
    assert expert_job(workspace, "one", ExpertPlan()).digest != before


def test_tasks_are_named_or_all_meant(tmp_path, caplog):
    workspace = make_workspace(tmp_path, ["one"])
    train = ["expert", "train", str(workspace.folder)]
    assert main(train) == 2
    assert main([*train, "one", "--all"]) == 2
    assert main([*train, "two", "--executor", "local"]) == 2
    assert "names of tasks (one), or --all" in caplog.text
    assert "two" in caplog.text
    amalgamate = ["amalgamate", str(workspace.folder), "--processes", "2"]
    assert main(amalgamate) == 2
    toml = workspace.folder / "ka2er.toml"
    toml.write_text(toml.read_text("utf-8").replace("gpus = 0", "gpus = 1"))
    assert main([*amalgamate, "--executor", "local"]) == 2
    assert "at most 1 as [executor] gives so many GPUs" in caplog.text


@pytest.mark.slow
def test_kill_9_of_one_expert_leaves_the_other_and_resume_completes(tmp_path):
    workspace = make_workspace(tmp_path, ["one", "two"])
    kill = KillOnce(workspace, "expert-one", "epoch 1/3")
    one, two = train_experts(
        workspace, ["one", "two"], ExpertPlan(), executor="local", progress=kill
    )
    assert kill.killed == 1
    assert one.result is None
    assert two.result["task"] == "two"
    assert not (workspace.expert_folder("one") / "expert.json").exists()
    assert (workspace.expert_folder("two") / "expert.json").exists()
    with pytest.raises(UserError, match="expert-one"):
        require_all([one, two])
    time.sleep(1)  # nnU-Net's own process ends when it sees that the job has

    one, two = train_experts(workspace, ["one", "two"], ExpertPlan(resume=True), executor="local")
    assert two.kept
    assert not one.kept
    assert one.result["last_epoch"]["epoch"] == 3
    assert (workspace.expert_folder("one") / "expert.json").exists()
    log = (workspace.run_folder("expert-one") / "nnunet.log").read_text("utf-8")
    assert log.count("Epoch 0") == 1  # the killed training's first epoch was not done again


@pytest.mark.slow
def test_features_from_jobs_are_all_that_amalgamation_needs(tmp_path, monkeypatch):
    from ka2er_training.amalgamate import prepare_cases, task_entries
    from ka2er_training.plan import preset, student_config
    from napari_ka2er.model.experts import Expert

    workspace = with_experts(make_workspace(tmp_path, ["one", "two"]))
    ingredients = ingredients_of(workspace)
    assert extract_features(workspace, executor="local") == len(ingredients.sources) == 8
    for name in ("look", "predict_logits"):
        monkeypatch.setattr(Expert, name, lambda *_: pytest.fail("an expert ran again"))
    entries = task_entries(ingredients, preset("tiny"))
    config = student_config(entries, ingredients.experts, preset("tiny"), "attention")
    cases = prepare_cases(ingredients, config, workspace.folder / "runs" / "cache")
    assert [len(case.views) for case in cases] == [2] * 8


def weights(workspace, result):
    return load_file(workspace.folder / "students" / result["version"] / "student.safetensors")


@pytest.mark.slow
def test_a_killed_rank_fails_the_job_and_resume_gives_the_same_numbers(tmp_path):
    def amalgamate(workspace, **hooks):
        plan = hooks.pop("plan", PLAN)
        return amalgamate_in_jobs(workspace, plan, executor="local", processes=2, **hooks)

    whole, cut = (with_experts(make_workspace(tmp_path / n, ["one"])) for n in ("whole", "cut"))
    expected = weights(whole, amalgamate(whole))
    kill = KillOnce(cut, "student", "loss")
    with pytest.raises(UserError, match="student"):
        amalgamate(cut, progress=kill)
    assert kill.killed == 1
    assert not list((cut.folder / "students").glob("v*"))
    assert (cut.folder / "runs" / "amalgamate" / "trunk" / "checkpoint.pt").exists()

    got = weights(cut, amalgamate(cut, plan=dataclasses.replace(PLAN, resume=True)))
    assert expected.keys() == got.keys()
    assert all((expected[name] == got[name]).all() for name in expected)


def test_a_student_s_job_does_not_depend_on_resume(tmp_path):
    workspace = with_experts(make_workspace(tmp_path, ["one"]))
    resumed = dataclasses.replace(PLAN, resume=True)
    assert student_job(workspace, PLAN).digest == student_job(workspace, resumed).digest
    longer = dataclasses.replace(PLAN, steps=9)
    assert student_job(workspace, PLAN).digest != student_job(workspace, longer).digest
