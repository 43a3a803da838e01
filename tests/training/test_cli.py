import argparse
import json
import os
import pickle
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from ka2er_training import cli
from ka2er_training.cli import (
    DONE,
    INTERRUPTED,
    READER_GONE,
    USER_ERROR,
    build_parser,
    main,
    parse,
)
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import CancelledError, UserError

PHANTOM = str(files("ka2er_sample_data").joinpath("volumes") / "phantom.nii.gz")


def test_info_prints_shape_and_spacing_along_z_y_x(capsys):
    assert main(["info", PHANTOM]) == 0
    printed = capsys.readouterr().out
    assert "shape: [36, 88, 104]" in printed
    assert "spacing_mm: [6.0, 3.0, 3.5]" in printed


def test_info_as_json_is_one_object(capsys):
    assert main(["info", PHANTOM, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == [36, 88, 104]


def test_a_missing_file_ends_with_its_name_not_a_traceback(caplog, tmp_path):
    assert main(["info", str(tmp_path / "none.nii.gz")]) == 2
    assert "none.nii.gz" in caplog.text


def run_it(monkeypatch, run):
    """Let `ka2er` have one command, with --json."""
    parsed = argparse.Namespace(json=True, log_level="INFO", run=run)
    parser = argparse.Namespace(parse_known_args=lambda argv: (parsed, []))
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    return main([])


def raising(error):
    def run(args):
        raise error

    return run


def test_an_error_may_bring_a_result_that_json_prints_all_the_same(monkeypatch, capsys, caplog):
    error = UserError("two volumes", "one", "look at b", result=[{"input": "a"}])
    assert run_it(monkeypatch, raising(error)) == USER_ERROR
    assert json.loads(capsys.readouterr().out) == [{"input": "a"}]
    assert caplog.messages == ["error: wanted two volumes, got one; look at b"]
    assert run_it(monkeypatch, raising(UserError("two volumes", "one"))) == USER_ERROR
    assert capsys.readouterr().out == ""


def test_an_error_travels_to_another_process_with_its_result():
    error = pickle.loads(pickle.dumps(UserError("two", "one", "look", result={"n": 1})))
    assert (str(error), error.result) == ("wanted two, got one; look", {"n": 1})


def test_ctrl_c_during_the_imports_is_no_traceback(monkeypatch, caplog):
    monkeypatch.setattr(cli, "build_parser", lambda: raising(KeyboardInterrupt())(None))
    assert main(["info", PHANTOM]) == INTERRUPTED
    assert len(caplog.records) == 1


def test_cancelled_work_ends_as_with_ctrl_c(monkeypatch):
    assert run_it(monkeypatch, raising(CancelledError())) == INTERRUPTED


@pytest.mark.parametrize("size", [1, 1_000_000], ids=["little", "much"])
def test_a_reader_that_has_gone_is_no_traceback(size):
    code = (
        "from argparse import Namespace; from ka2er_training import cli\n"
        f"args = Namespace(json=True, log_level='INFO', run=lambda args: 'x' * {size})\n"
        "cli.build_parser = lambda: Namespace(parse_known_args=lambda argv: (args, []))\n"
        "raise SystemExit(cli.main([]))"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (READER_GONE, b"")


def test_a_broken_pipe_to_another_process_is_not_hushed_up(monkeypatch):
    with pytest.raises(BrokenPipeError):
        run_it(monkeypatch, raising(BrokenPipeError()))


def test_commands_without_a_table_say_in_one_line_what_they_did(tmp_path, raw, caplog):
    caplog.set_level("INFO", "ka2er_training.commands")
    folder = str(tmp_path / "w")
    assert main(["init", folder]) == DONE
    assert main(["history", folder]) == DONE
    told = [f"workspace {folder}, without tasks so far", f"{folder}: no students so far"]
    assert caplog.messages == told
    caplog.clear()
    assert main(["task", "add", folder, str(raw), "--spacing", "2,1,1.5"]) == DONE
    kept = Workspace.open(folder)
    n_training, n_holdout = len(kept.training_cases("balls")), len(kept.holdout_cases("balls"))
    assert n_training + n_holdout == 5
    counts = f"{n_training} training, {n_holdout} held-out and 0 unlabelled cases"
    assert caplog.messages == [f"task balls: {counts}, spacing 2 x 1 x 1.5 mm"]
    caplog.clear()
    assert main(["cache", "rm", "--all", "--cache-dir", str(tmp_path / "cache")]) == DONE
    assert caplog.messages == ["0.0 MiB freed"]


@pytest.mark.parametrize(
    ("typed", "name", "wanted"),
    [
        ("retrain w --dry-run a", "packages", [Path("a")]),
        ("retrain w --preset tiny a --dry-run b c", "packages", [Path(x) for x in "abc"]),
        ("retrain w", "packages", []),
        ("expert train w --epochs 1 hip lungs", "tasks", ["hip", "lungs"]),
        ("task add w --name other data", "dataset", Path("data")),
        ("task add w data --name other", "dataset", Path("data")),
        ("predict sample a -o out b", "inputs", [Path("a"), Path("b")]),
        ("cache rm --cache-dir c key", "key", ["key"]),
    ],
)
def test_a_commands_list_may_stand_behind_options(typed, name, wanted):
    assert getattr(parse(build_parser(), typed.split()), name) == wanted


@pytest.mark.parametrize(
    ("command", "typed", "left"),
    [
        ("retrain", "retrain w --dry-run a --bogus", "a --bogus"),
        ("predict", "predict sample a -o out -x b", "-x b"),
        ("task add", "task add w a --name other b", "b"),
        ("task add", "task add w --name other a b", "a b"),
        ("diff", "diff w v0001 v0002 v0003", "v0003"),
        ("info", "--bogus info sample", "--bogus"),
    ],
)
def test_what_fits_nowhere_is_refused_with_the_commands_usage(command, typed, left, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(build_parser(), typed.split())
    assert ended.value.code == USER_ERROR
    told = capsys.readouterr().err
    assert told.startswith(f"usage: ka2er {command} [-h]")
    assert told.endswith(f"unrecognized arguments: {left}\n")


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_cache_that_keeps_nothing_says_so(tmp_path, caplog, place):
    caplog.set_level("INFO", "ka2er_training.commands")
    folder = tmp_path / "cache"
    if place == "file":
        folder.write_text("")
    assert main(["cache", "ls", "--cache-dir", str(folder)]) == DONE
    assert caplog.messages == [f"{folder}: nothing is kept there"]


def test_a_sample_build_without_its_data_leaves_no_workspace(tmp_path, raw, caplog):
    folder, absent = tmp_path / "w", str(tmp_path / "absent")
    for hippocampus, lungs in ((absent, str(raw)), (str(raw), absent)):
        data = ["--hippocampus", hippocampus, "--lungs", lungs]
        assert main(["sample", "build", str(folder), *data]) == USER_ERROR
        assert absent in caplog.messages[-1]
        assert not folder.exists()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("demo --mode full", "wanted --headless with --mode, got none"),
        ("demo --out x", "wanted --headless with --out, got none"),
        ("demo --device cpu", "wanted --headless with --device, got none"),
        ("demo --cache-dir x", "wanted --headless with --cache-dir, got none"),
        ("evaluate w --boxed", "wanted --clicks N with --boxed, got none"),
        ("evaluate w --cases 3", "wanted --clicks N with --cases, got none"),
        ("evaluate w --perfect-mm 3", "wanted --clicks N with --perfect-mm, got none"),
        ("evaluate w --clicks 1 --perfect-mm 0", "wanted --perfect-mm of more than 0 mm, got 0"),
        ("evaluate w --experts --student v0001", "wanted --student or --experts, got both"),
        ("evaluate w --experts --mode full", "wanted --mode or --experts, got both"),
        ("diff w v0001 v0002 --cases -1", "wanted --cases of at least 0, got -1"),
    ],
)
def test_options_that_would_not_count_are_refused(typed, told, caplog):
    assert main(typed.split()) == USER_ERROR
    assert caplog.messages[-1].startswith(f"error: {told}")


@pytest.mark.parametrize(("level", "shown"), [("INFO", 0), ("DEBUG", 1)])
def test_libraries_say_nothing_between_our_lines(tmp_path, level, shown):
    code = (
        "import logging; from ka2er_training.cli import main;"
        f"main(['info', 'nowhere', '--log-level', '{level}']);"
        "logging.getLogger('numexpr.utils').info('threads');"
        "logging.getLogger('ka2er_training').info('ours')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("threads") == shown
    assert done.stderr.count("ours") == 1
