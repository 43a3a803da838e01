"""`ka2er expert add` with folders that cannot be taken: one line, exit status 2, nothing left."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
from tests.model.trained_models import Model, make_model_folder

from ka2er_training.cli import main
from ka2er_training.workspace import Workspace

LABELS = {"background": 0, "bright": 1, "dim": 2}
TINY = Model(patch=(8, 8, 8), features=(2, 3, 4), labels=LABELS)
REGIONS = {"background": 0, "bright": [1, 2], "dim": 2}
POSIX = pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")


@pytest.fixture
def work(balls, tmp_path):
    """A workspace of one's own with the task balls."""
    return Workspace.open(shutil.copytree(balls.folder, tmp_path / "work"))


def arguments(work, folder):
    return ["expert", "add", str(work.folder), "balls", str(folder)]


def armed(folder, made):
    """Return a model folder whose plans make the file `made` when their network is built."""
    path = make_model_folder(folder, TINY) / "plans.json"
    plans = json.loads(path.read_text("utf-8"))
    plans["configurations"]["3d_base"]["architecture"]["arch_kwargs"] |= {
        "nonlin": "subprocess.Popen",
        "nonlin_kwargs": {"args": ["touch", str(made)]},
    }
    path.write_text(json.dumps(plans))
    return folder


def test_plans_from_a_stranger_run_nothing(work, tmp_path, caplog):
    ran = tmp_path / "ran"
    folder = armed(tmp_path / "model", ran)
    for trust in ([], ["--trust"]):
        caplog.clear()
        assert main([*arguments(work, folder), *trust]) == 2
        (record,) = caplog.records
        assert "subprocess.Popen" in record.getMessage()
    assert not ran.exists()
    assert not work.expert_folder("balls").exists()


def test_an_expert_of_overlapping_regions_is_refused_when_it_is_added(work, tmp_path, caplog):
    regions = Model(patch=(8, 8, 8), features=(2, 3, 4), labels=REGIONS, regions_class_order=(1, 2))
    assert main(arguments(work, make_model_folder(tmp_path / "model", regions))) == 2
    (record,) = caplog.records
    assert "labels do not overlap" in record.getMessage()
    assert not work.expert_folder("balls").exists()


def test_an_expert_whose_labels_are_named_otherwise_is_taken_with_one_warning(
    work, tmp_path, caplog
):
    named = Model(patch=(8, 8, 8), features=(2, 3, 4))
    assert main(arguments(work, make_model_folder(tmp_path / "model", named))) == 0
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "front for bright, back for dim" in record.getMessage()


@POSIX
def test_a_full_disk_is_one_line_and_leaves_nothing(work, tmp_path):
    """The limit lets text files pass and stops the weights."""
    folder = make_model_folder(tmp_path / "model", TINY)
    limited = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "from ka2er_training.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-B", "-c", limited, *arguments(work, folder)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    assert process.stderr.strip().splitlines()[-1].startswith("error: wanted a place to write")
    assert not work.expert_folder("balls").exists()
    assert not list(work.expert_folder("balls").parent.iterdir())
