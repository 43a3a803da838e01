from __future__ import annotations

import os
import shutil

import pytest

from ka2er_training import scratch_experts
from ka2er_training.nnunet import Job
from ka2er_training.scratch_experts import _job
from ka2er_training.workspace import Workspace, read_json


@pytest.mark.parametrize("has_links", [True, False])
def test_nnunet_finds_the_task_s_dataset_with_links_and_without(
    balls, tmp_path, monkeypatch, has_links
):
    workspace = Workspace.open(shutil.copytree(balls.folder, tmp_path / "work"))

    def refuse(*_, **__):
        raise OSError(1314, "a required privilege is not held by the client")  # as Windows does

    if not has_links:
        monkeypatch.setattr(scratch_experts.os, "symlink", refuse)
    for _ in range(2):  # a round that was broken off asks again
        job, shadow, _ = _job(workspace, 1, "balls", "cpu")
    assert isinstance(job, Job)
    (found,) = (shadow / "datasets").iterdir()
    assert found.is_symlink() is has_links
    own = workspace.dataset_folder("balls")
    assert read_json(found / "cases.json") == read_json(own / "cases.json")
    assert sorted(os.listdir(found / "imagesTr")) == sorted(os.listdir(own / "imagesTr"))
