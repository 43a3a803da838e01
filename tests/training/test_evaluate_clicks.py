"""`ka2er evaluate --clicks` as a user calls it."""

import json
import shutil

import pytest
from tests.training.conftest import write_raw

from ka2er_training import evaluate_clicks as module
from ka2er_training.cli import DONE, USER_ERROR, main
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.registry import add_version, make_current
from ka2er_training.sources import read_source
from ka2er_training.workspace import Workspace


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

    def rows(loaded, mode, case, how):
        return [{"dice": [0.5, *[0.75] * how[0]]}]

    monkeypatch.setattr(module, "load_student", noted)
    monkeypatch.setattr(module, "_rows", rows)
    return devices


def test_the_device_is_the_one_that_was_asked_for(one, pretended, monkeypatch, caplog, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    options = ["--clicks", "2", "--cases", "1", "--device", "cuda:1", "--json"]
    assert main(["evaluate", str(one.folder), *options]) == DONE
    assert pretended == ["cuda:1"]
    told = json.loads(capsys.readouterr().out)["tasks"]
    assert told == {"one": {"n_cases": 1, "dice": [0.5, 0.75, 0.75], "closed": 0.5}}
    assert "'bogus'" in refused(caplog, one, "--clicks", "2", "--device", "bogus")


def test_what_makes_no_table_is_refused_in_one_line(one, pretended, caplog):
    for number in ("0", "-1"):
        assert f"got {number} and 6" in refused(caplog, one, "--clicks", number)
        assert f"got 1 and {number}" in refused(caplog, one, "--clicks", "1", "--cases", number)
    assert "--experts" in refused(caplog, one, "--clicks", "1", "--experts")
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
