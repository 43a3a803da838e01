from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ka2er_training import nnunet
from ka2er_training.child import run_child
from ka2er_training.nnunet import Job, environment, fold_folder
from ka2er_training.presets import PRESETS
from napari_ka2er.core.errors import CancelledError, UserError

JOB = Job("/w", "Dataset001_balls", PRESETS["tiny"], "dice_ce", (1.0, 2.0, 3.0), "cpu", False, 0)

# A job for `run_child`: says its process group, then what it is told to do.
SCRIPT = """
import json, os, sys, time
from ka2er_training.child import reporting
report = reporting()
job = json.loads(sys.argv[1])
print("this goes to the log")
report({"pid": os.getpid(), "raw": os.environ.get("nnUNet_raw")})
if job["do"] == "fail":
    raise RuntimeError("out of memory")
if job["do"] in ("fork", "be killed") and os.fork() == 0:
    time.sleep(60)
if job["do"] == "be killed":
    os.kill(os.getpid(), 9)
if job["do"] != "end":
    time.sleep(60)
"""


@pytest.fixture
def job_module(tmp_path, monkeypatch):
    """Make the script above importable by child processes as `job_of_a_test`."""
    (tmp_path / "job_of_a_test.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "job_of_a_test"


def is_gone(group: int) -> bool:
    """Whether no process of the group is left; waits up to ten seconds for the system."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_job_reports_logs_and_has_variables_of_its_own(job_module, tmp_path):
    reports = []
    own = environment(tmp_path, "cpu")
    run_child(
        job_module, {"do": "end"}, tmp_path / "log", environment=own, on_report=reports.append
    )
    assert reports[0]["raw"] == str(tmp_path / "datasets")
    assert (tmp_path / "log").read_text("utf-8") == "this goes to the log\n"
    assert "nnUNet_raw" not in os.environ


def test_a_failing_job_is_told_in_one_line_with_its_log(job_module, tmp_path):
    with pytest.raises(UserError, match=r"out of memory.*log") as error:
        run_child(job_module, {"do": "fail"}, tmp_path / "log", environment={}, on_report=len)
    assert "\n" not in str(error.value)


def test_a_job_that_the_system_kills_is_noticed_though_its_workers_live(job_module, tmp_path):
    reports = []
    job = {"do": "be killed"}
    with pytest.raises(UserError, match="exit status -9"):
        run_child(job_module, job, tmp_path / "log", environment={}, on_report=reports.append)
    assert is_gone(reports[0]["pid"])


def test_cancelling_ends_the_job_and_what_it_started(job_module, tmp_path):
    reports = []
    with pytest.raises(CancelledError):
        run_child(
            job_module,
            {"do": "fork"},
            tmp_path / "log",
            environment={},
            on_report=reports.append,
            cancelled=lambda: bool(reports),
        )
    assert is_gone(reports[0]["pid"])


PARENT = """
import sys
from pathlib import Path
from ka2er_training.child import run_child
report = lambda message: print(message["pid"], flush=True)
run_child("job_of_a_test", {"do": "fork"}, Path(sys.argv[1]), environment={}, on_report=report)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_job_ends_when_its_parent_is_killed(job_module, tmp_path, number):
    arguments = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        group = int(parent.stdout.readline())
        parent.send_signal(number)
        parent.wait()
    assert is_gone(group)


def test_a_job_comes_back_from_json():
    assert Job.from_json(json.loads(json.dumps(JOB.to_json()))) == JOB


def test_only_the_chosen_cuda_device_is_visible(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment(tmp_path, "cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in environment(tmp_path, "cuda")
    assert "CUDA_VISIBLE_DEVICES" not in environment(tmp_path, "cpu")


def test_devices_are_counted_among_those_that_are_visible_here(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-8f3a")
    assert environment(tmp_path, "cuda:0")["CUDA_VISIBLE_DEVICES"] == "4"
    assert environment(tmp_path, "cuda:1")["CUDA_VISIBLE_DEVICES"] == "GPU-8f3a"
    with pytest.raises(UserError, match="at least 3 GPUs"):
        environment(tmp_path, "cuda:2")


def test_the_losses_have_folders_of_their_own():
    from dataclasses import replace

    folder = fold_folder(JOB)
    assert folder.parts[-4:-1] == (
        "experts",
        JOB.dataset,
        "Ka2erTrainer__ka2erTinyPlans__3d_fullres",
    )
    assert fold_folder(replace(JOB, loss="ce")) != folder


def test_every_preset_has_a_planner_and_every_loss_a_trainer():
    from ka2er_training import planners, trainers

    assert {preset.plans for preset in PRESETS.values()} == set(planners.PLANNERS)
    for name in nnunet.TRAINER_NAMES.values():
        assert getattr(trainers, name).__name__ == name


def test_the_learning_rate_rises_then_falls():
    from ka2er_training.trainers import WarmUpPolyLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule = WarmUpPolyLR(optimizer, PRESETS["tiny"])
    rates = []
    for epoch in range(PRESETS["tiny"].epochs):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    peak = int(np.argmax(rates))
    assert peak == PRESETS["tiny"].warm_up
    assert rates[0] < rates[peak] / 2
    assert np.all(np.diff(rates[peak:]) < 0)
    assert max(rates) <= PRESETS["tiny"].learning_rate


def test_a_loss_in_half_precision_is_computed_in_single():
    from ka2er_training.trainers import Float32Loss

    loss = Float32Loss(torch.nn.MSELoss())
    outputs, targets = torch.full((4,), 1.0, dtype=torch.bfloat16), torch.full((4,), 0.999)
    assert loss(outputs, targets).dtype == torch.float32
    assert loss(outputs, targets).item() == pytest.approx(1e-6, rel=0.01)


def test_the_weight_of_the_labels_falls_to_one():
    from types import SimpleNamespace

    from ka2er_training.trainers import Ka2erTrainer

    state = SimpleNamespace(
        preset=PRESETS["tiny"],
        num_epochs=PRESETS["tiny"].epochs,
        label_manager=SimpleNamespace(num_segmentation_heads=3),
        device="cpu",
    )
    weights = []
    for epoch in range(state.num_epochs):
        state.current_epoch = epoch
        background, *labels = Ka2erTrainer._weights(state).tolist()
        assert background == 1
        assert labels[0] == labels[1]
        weights.append(labels[0])
    assert weights[0] == PRESETS["tiny"].foreground_weight
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] == 1
