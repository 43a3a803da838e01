"""`ka2er amalgamate`, interrupted and killed in the middle, then resumed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.numpy import load_file
from tests.model.folders import make_expert
from tests.training.conftest import write_raw

from ka2er_training.workspace import Workspace

LENGTHS = ["--steps", "4", "--polish-steps", "2", "--click-steps", "2", "--checkpoint-every", "1"]


@pytest.fixture
def with_expert(tmp_path):
    """A function that makes a workspace with one small task and its untrained expert."""

    def make(name):
        from ka2er_training.dataset import TaskOptions, add_task
        from ka2er_training.sources import read_source

        workspace = Workspace.create(tmp_path / name)
        raw = tmp_path / "raw"
        source = read_source(raw if raw.exists() else write_raw(raw))
        add_task(workspace, source, TaskOptions(spacing_mm=(2, 2, 2)))
        workspace = Workspace.open(workspace.folder)
        (task,) = workspace.tasks
        folder = workspace.expert_folder(task)
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_expert(folder, workspace.record(task).task, 0)
        return workspace

    return make


def start(workspace, *arguments):
    command = [sys.executable, "-m", "ka2er_training", "amalgamate", str(workspace.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *LENGTHS, *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def weights(workspace):
    (folder,) = (workspace.folder / "students").glob("v*")
    return load_file(folder / "student.safetensors")


def wait_for(path, process):
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    pytest.fail(f"no {path} after two minutes")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["SIGINT", "kill -9"]
)
def test_a_stopped_amalgamation_resumes_with_the_same_numbers(with_expert, how, status):
    whole, cut = with_expert("whole"), with_expert("cut")
    assert start(whole).wait() == 0
    process = start(cut)
    wait_for(cut.folder / "runs" / "amalgamate" / "trunk" / "checkpoint.pt", process)
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in told
    assert not list((cut.folder / "students").glob("v*"))
    assert start(cut, "--resume").wait() == 0
    (page,) = (cut.folder / "reports").glob("amalgamation_v*.html")
    assert "data:image" in page.read_text("utf-8")
    expected, got = weights(whole), weights(cut)
    assert expected.keys() == got.keys()
    assert all((expected[name] == got[name]).all() for name in expected)
