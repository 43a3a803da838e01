"""`ka2er evaluate --clicks` as a user calls it."""

import json
import shutil

import numpy as np
import pytest
from tests.training.conftest import write_raw

from ka2er_training import evaluate_clicks as module
from ka2er_training.bench import clicks
from ka2er_training.cli import DONE, USER_ERROR, main
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.registry import add_version, make_current
from ka2er_training.sources import read_source
from ka2er_training.workspace import Workspace
from napari_ka2er.core.volume import Geometry


@pytest.fixture(scope="module")
def one(tmp_path_factory, student_folder):
    """A workspace with the student's task "one", of whose five cases some are held out."""
    folder = tmp_path_factory.mktemp("one")
    workspace = Workspace.create(folder / "work")
    source = read_source(write_raw(folder / "raw"))
    add_task(workspace, source, TaskOptions(name="one", spacing_mm=(2, 2, 2)))
    workspace = Workspace.open(workspace.folder)
    make_current(workspace, add_version(workspace, student_folder, {}))
    return workspace


def refused(caplog, workspace, *options):
    caplog.clear()
    assert main(["evaluate", str(workspace.folder), *options]) == USER_ERROR
    (line,) = caplog.messages
    return line


@pytest.fixture
def pretended(monkeypatch):
    """Devices that students were loaded on; clicks and students are pretended."""
    devices = []
    load = module.load_student

    def noted(folder, device):
        devices.append(device)
        return load(folder)

    def rows(loaded, case, plan):
        dice, predicted = [0.5, *[0.75] * plan.n_clicks], [0.85] * plan.n_clicks
        return [{"dice": dice, "predicted": predicted}]

    monkeypatch.setattr(module, "load_student", noted)
    monkeypatch.setattr(module, "_rows", rows)
    return devices


def test_the_device_is_the_one_that_was_asked_for(one, pretended, monkeypatch, caplog, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    options = ["--clicks", "2", "--cases", "1", "--device", "cuda:1", "--json"]
    assert main(["evaluate", str(one.folder), *options]) == DONE
    assert pretended == ["cuda:1"]
    told = json.loads(capsys.readouterr().out)["tasks"]
    off = pytest.approx(0.1)
    wanted = {"n_cases": 1, "n_objects": 1, "dice": [0.5, 0.75, 0.75], "closed": 0.5}
    assert told == {"one": {**wanted, "predicted_off": off}}
    assert "'bogus'" in refused(caplog, one, "--clicks", "2", "--device", "bogus")


def test_what_makes_no_table_is_refused_in_one_line(one, pretended, caplog):
    for number in ("0", "-1"):
        assert f"got {number} and 6" in refused(caplog, one, "--clicks", number)
        assert f"got 1 and {number}" in refused(caplog, one, "--clicks", "1", "--cases", number)
    assert "--experts" in refused(caplog, one, "--clicks", "1", "--experts")
    assert "--unnamed" in refused(caplog, one, "--unnamed")
    assert "both" in refused(caplog, one, "--clicks", "1", "--unnamed", "--perfect-mm", "3")
    assert "--unnamed" in refused(caplog, one, "--clicks", "1", "--boxed")
    assert pretended == []


@pytest.fixture
def copied(one, tmp_path):
    """A copy of the workspace."""
    return Workspace.open(shutil.copytree(one.folder, tmp_path / "work"))


def hold_nothing_out(workspace):
    """Take the held-out cases of task "one" away."""
    path = workspace.dataset_folder("one") / "cases.json"
    data = json.loads(path.read_text("utf-8"))
    data["cases"] = [case for case in data["cases"] if case["split"] != "holdout"]
    path.write_text(json.dumps(data))


def test_a_workspace_that_holds_nothing_out_is_refused(copied, pretended, caplog):
    hold_nothing_out(copied)
    assert main(["evaluate", str(copied.folder), "--clicks", "1"]) == USER_ERROR
    left_out, error = caplog.messages
    assert left_out.startswith("one: left out")
    assert "wanted held-out cases" in error


def test_a_task_that_holds_nothing_out_is_left_out(copied, pretended, tmp_path, caplog, capsys):
    source = read_source(write_raw(tmp_path / "raw", first=10))
    add_task(copied, source, TaskOptions(name="two", spacing_mm=(4, 4, 4)))
    hold_nothing_out(copied)
    caplog.clear()
    assert main(["evaluate", str(copied.folder), "--clicks", "1"]) == DONE
    assert [line.split(":")[0] for line in caplog.messages] == ["one"]
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["task", "two"]


def test_clicks_of_a_real_student_are_answered(one, capsys):
    options = ["--clicks", "1", "--cases", "1", "--device", "cpu", "--mode", "distilled", "--json"]
    assert main(["evaluate", str(one.folder), *options]) == DONE
    (task,) = json.loads(capsys.readouterr().out)["tasks"].values()
    assert (task["n_cases"], len(task["dice"])) == (1, 2)
    assert all(0 <= value <= 1 for value in task["dice"])


def test_a_student_from_elsewhere_is_asked_for_what_it_has_no_name_for(
    copied, student_folder, tmp_path, capsys
):
    """The task is unknown to it, and so has no label that it could be asked for."""
    folder = shutil.copytree(student_folder, tmp_path / "elsewhere")
    source = read_source(write_raw(tmp_path / "raw", first=10))
    add_task(copied, source, TaskOptions(name="two", spacing_mm=(4, 4, 4)))
    options = ["--clicks", "2", "--cases", "1", "--mode", "distilled", "--device", "cpu", "--json"]
    command = ["evaluate", str(copied.folder), "--student", str(folder), *options]
    assert main([*command, "--unnamed"]) == DONE
    told = json.loads(capsys.readouterr().out)["tasks"]
    assert set(told) == {"one", "two"}
    assert told["two"]["dice"][0] == 0
    assert len(told["two"]["dice"]) == 3
    assert 0 <= told["two"]["predicted_off"] <= 1
    assert main([*command, "--unnamed", "--boxed"]) == DONE
    told = json.loads(capsys.readouterr().out)["tasks"]
    assert told["two"]["dice"][0] > 0  # the boxes have been answered


def test_a_piece_is_boxed_in_its_first_and_its_last_slice():
    affine = np.array([[0, 3, 0, 5], [1, 0, 0, -7], [0, 0, -1.5, 9], [0, 0, 0, 1.0]])
    grid = Geometry((10, 12, 14), affine)  # slices lie 3 mm apart across the second axis
    piece = np.zeros(grid.shape, bool)
    piece[2:5, 4:9, 6:8] = True
    first, last = clicks.end_boxes(piece, grid)
    corners = grid.to_index([first.low_mm, first.high_mm, last.low_mm, last.high_mm])
    np.testing.assert_allclose(corners, [(2, 4, 6), (4, 4, 7), (2, 8, 6), (4, 8, 7)], atol=1e-9)


def test_every_piece_is_an_object_the_largest_first():
    mask = np.zeros((8, 20, 20), bool)
    mask[1:3, 1:5, 1:6] = True  # 40 voxels
    mask[4:7, 8:14, 8:12] = True  # 72
    mask[7, 18, 18] = True  # too small
    pieces = clicks._pieces(mask, 3)
    assert [int(piece.sum()) for piece in pieces] == [72, 40]
    assert len(clicks._pieces(mask, 1)) == 1
    assert clicks._pieces(np.zeros_like(mask), 3) == []
