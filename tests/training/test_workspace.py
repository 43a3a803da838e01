from __future__ import annotations

import multiprocessing
import os
import tomllib

import pytest

from ka2er_training.cli import main
from ka2er_training.presets import PRESETS
from ka2er_training.registry import rollback
from ka2er_training.settings import parse_settings, read_settings, with_task
from ka2er_training.workspace import FOLDERS, Workspace
from napari_ka2er.core.errors import UserError


def test_init_makes_a_workspace_that_can_be_opened(tmp_path):
    assert main(["init", str(tmp_path / "w")]) == 0
    workspace = Workspace.open(tmp_path / "w")
    assert dict(workspace.tasks) == {}
    assert workspace.settings.presets == PRESETS
    assert {path.name for path in workspace.folder.iterdir()} == {
        *FOLDERS,
        "ka2er.toml",
        "holdout.json",
    }


def test_init_works_in_an_empty_folder(tmp_path):
    assert main(["init", str(tmp_path)]) == 0


@pytest.mark.parametrize("name", ["ka2er.toml", "notes.txt"])
def test_init_refuses_a_folder_with_something_in_it(tmp_path, caplog, name):
    (tmp_path / name).write_text("")
    assert main(["init", str(tmp_path)]) == 2
    assert len(caplog.records) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_init_leaves_nothing_where_it_cannot_write(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "w")]) == 2
    assert len(caplog.records) == 1


def test_a_folder_that_is_no_workspace_is_refused(tmp_path):
    with pytest.raises(UserError, match="ka2er init"):
        Workspace.open(tmp_path)


def test_the_table_of_a_task_comes_back_and_comments_stay(balls):
    text = "# mine\n" + (balls.folder / "ka2er.toml").read_text("utf-8")
    record = balls.record("balls")
    renamed = type(record).from_table("other", record.to_table())
    longer = with_task(text, renamed)
    assert longer.startswith("# mine\n")
    assert parse_settings(longer).tasks == {"balls": record, "other": renamed}


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("[gate]\nmargins = 0.1", "margins"),
        ("[presets.tiny]\nepoch = 3", "epoch"),
        ("[presets.small]\nepochs = 3", "small"),
        ("[presets.tiny]\nplans = 'x'", "plans"),
        ("colour = 'red'", "colour"),
        ("[tasks.a]\nspacing_mm = [1, 1, 1]\nlabels = [{value = 1, name = 'b'}]\nsize = 3", "size"),
        ("[presets.tiny]\nepochs = 0", "epochs"),
        ("[presets.tiny]\nepochs = '3'", "epochs"),
        ("[presets.tiny]\noptimizer = 'lion'", "optimizer"),
        ("[gate]\nmargin = 'none'", "margin"),
        ("[gate]\nmargin = -1", "margin"),
        ("[expert]\nloss = 'focal'", "focal"),
        ("[expert]\npreset = 'huge'", "huge"),
        ("gate = 3", "gate"),
        ("presets = 3", "presets"),
        ("tasks = 3", "tasks"),
        ("[tasks]\na = 3", "tasks"),
        ("[tasks.a]\nspacing_mm = [1, 1]\nlabels = 3", "tasks.a|labels"),
        ("[holdout", "TOML"),
    ],
)
def test_a_wrong_line_in_the_settings_is_named(table, named):
    with pytest.raises(UserError, match=named) as error:
        parse_settings(f"format = 1\n{table}\n")
    assert "\n" not in str(error.value)


def test_an_error_in_the_settings_names_the_file(workspace):
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8").replace("margin", "margins"))
    with pytest.raises(UserError, match=r"ka2er\.toml.*margins"):
        read_settings(path)


def test_settings_that_are_no_utf_8_are_one_line(workspace, caplog):
    path = workspace.folder / "ka2er.toml"
    path.write_bytes(path.read_bytes() + "# Größe\n".encode("latin-1"))
    assert main(["expert", "train", str(workspace.folder), "balls"]) == 2
    (record,) = caplog.records
    assert "utf-8" in record.getMessage()
    assert str(path) in record.getMessage()


def test_another_format_is_refused(workspace):
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8").replace("format = 1", "format = 2"))
    with pytest.raises(UserError, match="format"):
        Workspace.open(workspace.folder)


def test_a_preset_takes_the_users_own_numbers(workspace):
    path = workspace.folder / "ka2er.toml"
    path.write_text(path.read_text("utf-8") + "\n[presets.tiny]\nepochs = 3\nmirror = false\n")
    preset = Workspace.open(workspace.folder).settings.presets["tiny"]
    assert (preset.epochs, preset.mirror) == (3, False)
    assert preset.iterations == PRESETS["tiny"].iterations


def test_an_unknown_task_is_refused_with_the_known_ones(balls):
    with pytest.raises(UserError, match="balls"):
        balls.record("cubes")


def test_the_cases_lie_where_they_are_said_to(balls):
    training, held = balls.training_cases("balls"), balls.holdout_cases("balls")
    assert (len(training), len(held)) == (4, 1)
    assert balls.unlabelled_cases("balls") == []
    for case in (*training, *held):
        assert case.image.is_file()
        assert case.label.is_file()
        assert case.patient == case.id
    assert {case.image.parent.name for case in held} == {"imagesTs"}


def hold_lock(folder, taken, done):
    """Run in another process: take the lock until told to stop."""
    with Workspace.open(folder).lock("expert-balls"):
        taken.set()
        done.wait(30)


def test_a_lock_is_exclusive_and_freed_by_a_kill(balls):
    context = multiprocessing.get_context("fork")
    taken, done = context.Event(), context.Event()
    process = context.Process(target=hold_lock, args=(balls.folder, taken, done))
    process.start()
    assert taken.wait(30)
    with pytest.raises(UserError, match="another process"):
        balls.lock("expert-balls")
    os.kill(process.pid, 9)
    process.join()
    lock = balls.lock("expert-balls")
    with lock:
        pass
    with balls.lock("expert-balls"):  # although the first lock object still exists
        pass


def test_a_lock_that_cannot_be_written_is_one_line(workspace):
    """Also root, who may write everywhere, cannot make a file in a file."""
    (workspace.folder / "runs").rmdir()
    (workspace.folder / "runs").write_text("")
    for take in (lambda: workspace.lock("task-add"), lambda: rollback(workspace)):
        with pytest.raises(UserError, match=f"to write in {workspace.folder / 'runs'}"):
            take()


def test_the_settings_file_is_plain_toml(balls):
    table = tomllib.loads((balls.folder / "ka2er.toml").read_text("utf-8"))
    assert table["tasks"]["balls"]["spacing_mm"] == [2, 2, 2]
    assert table["tasks"]["balls"]["licence"] == "CC0"
