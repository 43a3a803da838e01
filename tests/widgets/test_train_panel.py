from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qtpy.QtCore import Qt
from tests.training.packages import correction, package
from tests.training.rounds import make_workspace
from tests.widgets.panelling import begin, idle, sections_of

from ka2er_training.registry import current, student_folder
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import file_digest
from napari_ka2er.core.session_exports import Export
from napari_ka2er.core.task import Label, Task
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.widgets.results import Uncertainty
from napari_ka2er.widgets.retraining import Retraining, RoundStatus, _reason
from napari_ka2er.widgets.train_panel import TrainPanel, outcome

if TYPE_CHECKING:
    from ka2er_training.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A workspace with two tasks, an untrained student and experts."""
    return make_workspace(tmp_path)


@pytest.fixture
def panel(controller, qtbot) -> TrainPanel:
    made = TrainPanel(controller)
    qtbot.addWidget(made)
    made.refresh()
    return made


def test_a_folder_that_is_no_workspace_is_told_and_nothing_can_be_started(panel, tmp_path):
    panel.set_workspace(tmp_path)
    assert "ka2er.toml" in panel.told.text()
    assert not panel.start.isEnabled()
    assert "choose a workspace" in panel.start.toolTip()


def test_without_packages_nothing_can_be_started(panel, workspace):
    panel.set_workspace(workspace.folder)
    assert "add a package first" in panel.start.toolTip()
    with pytest.raises(UserError, match="at least one package"):
        Retraining(workspace.folder).start([])


def test_a_package_that_cannot_be_taken_is_told_with_the_reason(panel, workspace, qtbot, failures):
    panel.set_workspace(workspace.folder)
    panel.take_package(workspace.folder / "no_package")
    panel.start.click()
    qtbot.waitUntil(lambda: bool(failures), timeout=120_000)
    assert "no_package" in failures[0]
    assert panel.packages.count() == 1
    assert current(workspace) == "v0001"


@pytest.mark.slow
def test_a_round_survives_the_window_and_is_found_again(
    panel, workspace, qtbot, controller, failures
):
    balls = correction(workspace, 10)
    given = package(workspace.folder.parent / "Dataset007_balls", balls)
    panel.set_workspace(workspace.folder)
    panel.take_package(given)
    panel.start.click()
    first = panel._retraining
    qtbot.waitUntil(lambda: first.status().what not in ("", "starting"), timeout=240_000)
    later = TrainPanel(controller)  # as in a window that was opened later
    qtbot.addWidget(later)
    later.set_workspace(workspace.folder)
    assert later.stop.isEnabled()
    assert later.bar.value() >= 0
    with pytest.raises(UserError, match="one round at a time"):
        Retraining(workspace.folder).start([given])
    later.stop.click()
    qtbot.waitUntil(lambda: not first.is_running, timeout=120_000)
    later._look()
    assert not failures, "it was asked to stop"
    assert "broken off" in later.told.text()
    assert later.start.text() == "Go on"
    assert current(workspace) == "v0001"


BEGIN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from napari_ka2er.widgets.retraining import Retraining
Retraining(Path(sys.argv[1])).start([Path(sys.argv[2])])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_round_outlives_the_process_that_began_it(workspace, qtbot):
    given = package(workspace.folder.parent / "Dataset007_balls", correction(workspace, 10))
    command = [sys.executable, "-c", BEGIN_AND_DIE, str(workspace.folder), str(given)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    later = Retraining(workspace.folder)
    qtbot.waitUntil(lambda: later.status().what not in ("", "starting"), timeout=240_000)
    assert later.is_running
    later.stop()
    qtbot.waitUntil(lambda: not later.is_running, timeout=120_000)
    assert later.status().is_broken


@pytest.mark.slow
def test_a_killed_round_can_go_on(workspace, qtbot):
    given = package(workspace.folder.parent / "Dataset007_balls", correction(workspace, 10))
    retraining = Retraining(workspace.folder)
    retraining.start([given])
    qtbot.waitUntil(lambda: retraining.status().what not in ("", "starting"), timeout=240_000)
    os.killpg(retraining._process.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: not retraining.is_running, timeout=60_000)
    again = Retraining(workspace.folder)
    assert again.status().is_broken
    again.start([], resume=True)
    qtbot.waitUntil(lambda: again.status().what not in ("", "starting"), timeout=240_000)
    again.stop()
    qtbot.waitUntil(lambda: not again.is_running, timeout=120_000)
    assert again.status().error == ""


def test_a_session_goes_on_with_another_student(
    controller, viewer, qtbot, workspace, tmp_path, failures
):
    task = workspace.record("balls").task
    session = begin(controller, viewer.layers["scan"], tmp_path / "session", task)
    controller.set_filling(False)
    controller.use_student(student_folder(workspace, "v0001"))
    idle(controller, qtbot)
    assert not failures
    assert session.state.student.version == "v0001"
    assert controller.student_card.version == "v0001"
    controller.use_student(tmp_path)
    assert "student.json" in failures[0]
    assert controller.student_card.version == "v0001"


def test_what_to_press_first_is_bold_and_nothing_empty_is_shown(panel, workspace, tmp_path):
    bold = lambda made: made.font().bold()  # noqa: E731
    assert bold(panel.choose)
    assert not panel.bar.isVisibleTo(panel)
    assert not panel.log.isVisibleTo(panel)
    assert "Choose a workspace" in panel.told.text()
    panel.set_workspace(workspace.folder)
    assert not bold(panel.choose)
    assert bold(panel.add_package)
    assert not panel.bar.isVisibleTo(panel)
    panel._controller.exported.emit(tmp_path / "Dataset001_x")
    panel._controller.exported.emit(tmp_path / "Dataset001_x")
    assert panel.packages.count() == 1, "what was just exported is offered, once"
    assert bold(panel.start)
    assert "1 package;" in panel.told.text()
    assert not bold(panel.add_package)


def test_of_a_traceback_only_the_last_line_is_told():
    lines = ("round 1: plan", "Traceback (most recent call last):", "  ^^^^", "OSError: full")
    assert _reason(lines) == "OSError: full"
    assert _reason(("error: wanted a", "remedy: b")) == "error: wanted a remedy: b"
    assert _reason(()) == "it ended without a word"


def test_what_broke_a_round_is_told_but_not_that_it_was_stopped():
    broken = RoundStatus(is_broken=True, error="no room on the disk")
    assert outcome(broken) == (
        "A round was broken off: no room on the disk. Go on takes it up where it was."
    )
    stopped = RoundStatus(is_broken=True)
    assert outcome(stopped) == "A round was broken off. Go on takes it up where it was."


HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def sleeping():
    """Start processes that wait; they end with the test."""
    started = []

    def start(*words):
        command = [sys.executable, "-c", *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        return started[-1], command

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def bare(tmp_path):
    """What is a workspace to the window."""
    (tmp_path / "runs" / "window").mkdir(parents=True)
    (tmp_path / "ka2er.toml").write_text("")
    return tmp_path


def test_stop_ends_no_process_but_the_rounds(bare, sleeping, panel, failures):
    job = bare / "runs" / "window" / "job.json"
    other, _ = sleeping("import time; time.sleep(60)")
    held, _ = sleeping(HOLD, str(bare / "runs" / "retrain.lock"))
    held.stdout.readline()
    panel.set_workspace(bare)
    for left in (
        {"pid": other.pid, "command": ["python", "-m", "ka2er_training", "retrain"]},
        {"pid": other.pid},
        {"pid": 2**40, "command": []},
        {},
    ):
        job.write_text(json.dumps(left))
        panel.stop.click()
        assert "stop it where it was started" in failures.pop()
    ended, command = sleeping("pass")
    ended.wait()
    panel._retraining._process = ended  # ours, before one was begun elsewhere
    job.write_text(json.dumps({"pid": ended.pid, "command": command}))
    panel._look()
    assert not job.exists(), "its number may become another's"
    panel.stop.click()
    assert "stop it where it was started" in failures.pop()
    assert other.poll() is None
    assert held.poll() is None


def test_a_round_that_another_window_began_is_stopped(bare, sleeping):
    held, command = sleeping(HOLD, str(bare / "runs" / "retrain.lock"))
    held.stdout.readline()
    job = {"pid": held.pid, "command": command}
    (bare / "runs" / "window" / "job.json").write_text(json.dumps(job))
    Retraining(bare).stop()
    assert held.wait(timeout=20) != 0


def test_a_round_that_cannot_be_reached_is_told(bare, sleeping, monkeypatch):
    held, command = sleeping(HOLD, str(bare / "runs" / "retrain.lock"))
    held.stdout.readline()
    job = {"pid": held.pid, "command": command}
    (bare / "runs" / "window" / "job.json").write_text(json.dumps(job))

    def refuse(pid, sign):
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", refuse)
        with pytest.raises(UserError, match="not permitted"):
            Retraining(bare).stop()


def test_the_next_session_begins_with_the_new_student_too(
    controller, viewer, qtbot, tmp_path, monkeypatch, failures
):
    sections = sections_of(controller, viewer, qtbot)
    begin(controller, viewer.layers["scan"], tmp_path / "session", Task("lungs", (Label(1, "l"),)))
    idle(controller, qtbot)
    controller._started = replace(
        controller._started, choice=replace(controller._started.choice, mode="sparse")
    )
    values = np.zeros(controller.session.volume.shape, np.float16)
    means = tuple(np.zeros(n) for n in values.shape)
    controller._maps.show_uncertainty(Uncertainty(values, means))
    student = sections.panel("Student")
    student.mode.setCurrentText("full")
    folder = tmp_path / "students" / "v0002"
    folder.mkdir(parents=True)
    shutil.copy(sample_folder() / "student" / "student.json", folder)
    controller.use_student(folder)
    idle(controller, qtbot)
    assert not failures
    choice = sections.panel("Task and labels").choice
    assert choice.student == folder
    assert choice.mode == "distilled" == controller._started.choice.mode, "it has no experts"
    assert controller._maps.uncertainty is None, "that was the old student's"
    assert not [layer for layer in viewer.layers if "uncertainty" in layer.name]


def test_what_earlier_windows_exported_is_offered_until_a_round_has_taken_it(
    bare, panel, qtbot, tmp_path
):
    first, second = tmp_path / "Dataset001_a", tmp_path / "Dataset002_b"
    exports = [Export(second, "b" * 64, 3, 200.0), Export(first, "a" * 64, 2, 100.0)]
    panel._offer(exports)
    assert panel.packages.folders == [second, first]
    assert panel.packages.ticked == []
    panel.packages.item(0).setCheckState(Qt.CheckState.Checked)
    assert panel.told.text().startswith("Choose the workspace")
    panel.packages.item(0).setCheckState(Qt.CheckState.Unchecked)
    panel.set_workspace(bare)
    assert "tick a package first" in panel.start.toolTip()
    assert "Tick what was exported before" in panel.told.text()
    panel.packages.item(1).setCheckState(Qt.CheckState.Checked)
    assert panel.packages.ticked == [first]
    assert panel.start.isEnabled()
    (bare / "packages" / ("b" * 16)).mkdir(parents=True)
    panel.set_workspace(bare)
    assert panel.packages.folders == [first], "the other has been in a round"
    panel.take_package(first)
    panel.take_package(second)
    assert panel.packages.ticked == [first, second], "who adds it again means it"


def test_after_a_round_what_it_took_is_gone_and_the_rest_stays(bare, panel, tmp_path):
    """Also what was exported while the round ran, though it is ticked."""
    panel._offer([Export(tmp_path / "Dataset001_a", "a" * 64, 2, 100.0)])
    taken, later = tmp_path / "Dataset002_b", tmp_path / "Dataset003_c"
    panel.set_workspace(bare)
    for folder in (taken, later):
        folder.mkdir()
        (folder / "manifest.json").write_text(folder.name)
        panel.take_package(folder)
    digest = file_digest(taken / "manifest.json")
    (bare / "packages" / digest[:16]).mkdir(parents=True)
    panel._status = RoundStatus(result={"status": "refused", "round": 1})
    panel._ended()
    assert panel.packages.folders == [tmp_path / "Dataset001_a", later]
    assert panel.packages.ticked == [later]


def test_no_line_of_a_rounds_log_is_cut(bare, panel, qtbot):
    (bare / "runs" / "window" / "log.txt").write_text("\n".join(f"epoch {n}" for n in range(40)))
    panel.set_workspace(bare)
    panel.show()
    qtbot.wait(20)
    log = panel.log
    top = log.cursorForPosition(log.viewport().rect().topLeft())
    assert log.cursorRect(top).top() >= 0
    last = log.textCursor()
    last.movePosition(last.MoveOperation.End)
    assert log.cursorRect(last).bottom() <= log.viewport().rect().bottom()
