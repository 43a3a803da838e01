"""`ka2er amalgamate` under torchrun: two processes do what one does with all windows."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.training.workspaces import with_one_expert

from ka2er_training.plan import preset

STAGES = ("trunk", "polish", "clicks")
LENGTHS = ["--steps", "3", "--polish-steps", "2", "--click-steps", "3", "--device", "cpu"]
# On a port that is free, as two tests may run at once.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def amalgamate(workspace, *launcher):
    """Amalgamate in processes of one thread each: more add in another order."""
    words = [sys.executable, *launcher, "-m", "ka2er_training", "amalgamate", workspace.folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, words), *LENGTHS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def scalars(workspace, stage):
    """What a stage's log says, term by term; steps count from 1."""
    text = (workspace.folder / "runs" / "amalgamate" / stage / "scalars.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return {(line["step"], name): value for line in lines for name, value in line.items()}


def weights(workspace):
    (folder,) = (workspace.folder / "students").glob("v*")
    return load_file(folder / "student.safetensors")


@pytest.mark.slow
def test_two_processes_of_torchrun_log_and_keep_what_one_does(tmp_path):
    # Two windows a step in every stage: one for each process, or both for the only one.
    sizes = preset("tiny")
    assert {sizes.schedule.batch, sizes.polish.batch, sizes.clicks.batch} == {2}
    one, two = (with_one_expert(tmp_path / name) for name in ("one", "two"))
    amalgamate(one)
    amalgamate(two, *TORCHRUN)
    for stage, n_steps in zip(STAGES, (3, 2, 3), strict=True):
        expected, got = scalars(one, stage), scalars(two, stage)
        assert max(step for step, _ in got) == n_steps
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-6), stage
    expected, got = weights(one), weights(two)
    assert expected.keys() == got.keys()
    # Other windows in one of the stages would be off by the rate, 1e-3: AdamW's first steps are of
    # that size whatever the gradient.
    assert max(np.abs(expected[name] - got[name]).max() for name in expected) < 1e-6
