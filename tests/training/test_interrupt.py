"""`ka2er amalgamate` and `ka2er predict`, interrupted and killed in the middle."""

import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.numpy import load_file
from tests.training.workspaces import with_one_expert

from napari_ka2er._sample_data import sample_volume
from napari_ka2er.core.io import read_labels, read_volume

LENGTHS = ["--steps", "4", "--polish-steps", "4", "--click-steps", "4", "--checkpoint-every", "1"]


def start(*words):
    command = [sys.executable, "-m", "ka2er_training", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def amalgamate(workspace, *arguments):
    return start("amalgamate", workspace.folder, *LENGTHS, *arguments)


def weights(workspace):
    (folder,) = (workspace.folder / "students").glob("v*")
    return load_file(folder / "student.safetensors")


def wait_for(path, process):
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    pytest.fail(f"no {path} after five minutes")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The weights of an amalgamation that nobody stopped."""
    workspace = with_one_expert(tmp_path_factory.mktemp("whole"))
    process = amalgamate(workspace)
    _, told = process.communicate()
    assert process.returncode == 0, told
    return weights(workspace)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "how", "status"),
    [
        ("trunk", signal.SIGINT, 130),
        ("trunk", signal.SIGKILL, -9),
        ("polish", signal.SIGINT, 130),
        ("clicks", signal.SIGKILL, -9),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_stopped_amalgamation_resumes_with_the_same_numbers(
    tmp_path, unbroken, stage, how, status
):
    cut = with_one_expert(tmp_path)
    process = amalgamate(cut)
    wait_for(cut.folder / "runs" / "amalgamate" / stage / "checkpoint.pt", process)
    process.send_signal(how)
    _, told = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in told
    assert not list((cut.folder / "students").glob("v*"))
    resumed = amalgamate(cut, "--resume")
    _, told = resumed.communicate()
    assert resumed.returncode == 0, told
    (page,) = (cut.folder / "reports").glob("amalgamation_v*.html")
    assert "data:image" in page.read_text("utf-8")
    got = weights(cut)
    assert unbroken.keys() == got.keys()
    assert all((unbroken[name] == got[name]).all() for name in unbroken)


@pytest.mark.slow
def test_a_stopped_prediction_leaves_whole_masks_and_nothing_else(tmp_path):
    """Stopped when the first mask is there, and the next volume, half a minute's work, begun."""
    out = tmp_path / "out"
    inputs = [sample_volume(name) for name in ("phantom", "icbm_t1")]
    options = ("--mode", "distilled", "--cache-dir", tmp_path / "cache", "--device", "cpu")
    process = start("predict", "sample", *inputs, "-o", out, *options)
    wait_for(out / "phantom_lungs.nii.gz", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted; nothing half-written is left"
    assert "Traceback" not in told
    assert [path.name for path in out.iterdir()] == ["phantom_lungs.nii.gz"]
    labels, geometry = read_labels(out / "phantom_lungs.nii.gz")
    assert labels.any()
    assert geometry.is_close(read_volume(inputs[0]).geometry)
