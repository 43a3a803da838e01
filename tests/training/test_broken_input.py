"""Input that cannot be used, by the command line: status 2, one line, and nothing left behind."""

from __future__ import annotations

import logging
import os
import pickle
import resource
import shutil
import warnings

import numpy as np
import pytest
from tests.core.io.broken_files import MAKERS
from tests.model.folders import blob, make_expert

from ka2er_training.cli import USER_ERROR, main
from ka2er_training.workspace import Workspace
from napari_ka2er.core.io import read_labels, write_volume


@pytest.fixture
def ka2er(monkeypatch, capfd):
    """A function that runs a command as a shell does, and returns status, stdout and stderr.

    pytest's own handlers of log records are put aside: with them `main` would print no line.
    Warnings are counted as lines, those that Python shows by default.
    """

    def run(*words):
        capfd.readouterr()
        level = logging.root.level
        with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as warned:
            warnings.resetwarnings()
            for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
                warnings.simplefilter("ignore", hidden)
            warnings.simplefilter("ignore", ResourceWarning)
            patched.setattr(logging.root, "handlers", [])
            status = main([str(word) for word in words])
        logging.root.setLevel(level)
        printed, told = capfd.readouterr()
        return status, printed, told + "".join(f"{each.message}\n" for each in warned)

    return run


def assert_refused(answer, *words):
    """Status 2, and on stderr nothing but one line, with these words."""
    status, printed, told = answer
    assert (status, printed) == (USER_ERROR, "")
    assert told.startswith("error: wanted ")
    assert told.count("\n") == 1
    assert told.endswith("\n")
    assert all(word in told for word in (", got ", *words))


def everything_in(folder):
    """Every path, and of a file its size and when it was written; locks are meant to stay."""
    found = set()
    for path in folder.rglob("*"):
        stat = path.stat() if path.is_file() else None
        if path.suffix != ".lock":
            name = str(path.relative_to(folder))
            found.add((name, stat and (stat.st_size, stat.st_mtime_ns)))
    return found


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_volume_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, make, ka2er):
    path = make(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = everything_in(tmp_path)
    assert_refused(ka2er("info", path))
    assert everything_in(tmp_path) == before


def test_a_folder_of_unusable_volumes_is_a_line_for_each_and_one_for_all(
    tmp_path, student_folder, ka2er
):
    """What `predict` reads on its own thread is told like what `info` reads."""
    (tmp_path / "in").mkdir()
    makers = [make for make in MAKERS if make.__name__ in ("nan_voxels", "zero_spacing")]
    for make in makers:
        make(tmp_path / "in")
    before = everything_in(tmp_path)
    words = ("--mode", "distilled", "--cache-dir", tmp_path / "cache", "-o", tmp_path / "out")
    status, printed, told = ka2er("predict", student_folder, tmp_path / "in", *words)
    first, second, last = told.splitlines()
    assert (status, printed) == (USER_ERROR, "")
    assert "nan.nii.gz: wanted" in second + first
    assert "flat.nii: wanted" in first + second
    assert last == "error: wanted 2 volumes to segment, got 2 that cannot be, above"
    assert everything_in(tmp_path) == before


@pytest.fixture
def own_balls(balls, tmp_path):
    """A workspace of its own, with the task balls."""
    shutil.copytree(balls.folder, tmp_path / "work")
    return Workspace.open(tmp_path / "work")


@pytest.mark.parametrize("command", [["history"], ["expert", "train", "--all"], ["amalgamate"]])
def test_an_unknown_key_in_the_settings_is_named(own_balls, command, ka2er):
    toml = own_balls.folder / "ka2er.toml"
    toml.write_text(toml.read_text("utf-8").replace("[expert]\n", "[expert]\nepoch = 3\n"))
    before = everything_in(own_balls.folder)
    first, *rest = command
    words = [first, *rest[:1], own_balls.folder, *rest[1:]]
    assert_refused(ka2er(*words), str(toml), "epoch")
    assert everything_in(own_balls.folder) == before


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])  # of the latter PyTorch warns
def test_a_pickle_is_no_foundation(own_balls, tmp_path, protocol, ka2er):
    make_expert(own_balls.expert_folder("balls"), own_balls.record("balls").task, 0)
    weights, ran = tmp_path / "model_swinvit.pt", tmp_path / "ran"
    weights.write_bytes(pickle.dumps({"state_dict": Bomb(ran)}, protocol))
    assert_refused(
        ka2er("amalgamate", own_balls.folder, "--foundation", weights, "--device", "cpu"),
        weights.name,
    )
    assert not ran.exists()
    assert not list((own_balls.folder / "students").glob("v*"))
    assert not list((own_balls.folder / "runs").rglob("*.npy"))


def test_a_pickle_is_no_expert(own_balls, tmp_path, ka2er):
    task, model, ran = own_balls.record("balls").task, tmp_path / "model", tmp_path / "ran"
    make_expert(tmp_path / "taken", task, 0)
    shutil.copytree(tmp_path / "taken-nnunet", model)
    before = everything_in(own_balls.folder)
    content = {"network_weights": {}, "init_args": Bomb(ran)}
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(pickle.dumps(content))
    assert_refused(ka2er("expert", "add", own_balls.folder, "balls", model), "checkpoint")
    assert not ran.exists()
    assert everything_in(own_balls.folder) == before


@pytest.fixture
def small_disk():
    """A disk on which files of more than 8 KiB do not fit, from the call on."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, old[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_disk_that_fills_up_leaves_the_old_mask(tmp_path, student_folder, small_disk, ka2er):
    image, out = tmp_path / "blob.nii.gz", tmp_path / "out" / "mask.nii"
    write_volume(image, blob())
    options = ("--task", "two", "--mode", "distilled", "--cache-dir", tmp_path / "cache")
    words = ("predict", student_folder, image, "-o", out, *options)
    assert ka2er(*words)[0] == 0
    assert out.stat().st_size > 8192
    before, labels = everything_in(tmp_path / "out"), read_labels(out)[0]
    small_disk()
    assert_refused(ka2er(*words), str(out.parent))
    assert everything_in(tmp_path / "out") == before
    np.testing.assert_array_equal(read_labels(out)[0], labels)
