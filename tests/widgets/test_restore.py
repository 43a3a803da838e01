"""Nothing that was committed is lost: unfinished sessions are offered and continued."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image
from tests.widgets.conftest import settle
from tests.widgets.panelling import TASK, idle, sections_of, write
from tests.widgets.panelling import begin as begin_without_student

from napari_ka2er.core.io import read_labels
from napari_ka2er.core.log import SessionLog
from napari_ka2er.core.package import check_package
from napari_ka2er.core.review import Status
from napari_ka2er.core.sessions import create_session, restore_session
from napari_ka2er.widgets import files, restore
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.layers import Source, source_of

AT = np.array((6, 20, 15))


def offered(controller, layer, qtbot):
    controller.restorable(layer)
    settle(controller, qtbot)
    return controller.restorable(layer)


def crash(controller):
    """End without a word, as far as this process can: the log is closed, nothing is marked."""
    controller.close()


def test_a_session_that_was_not_finished_is_offered_and_continued_with_everything(
    started, viewer, new_controller, student_folder, qtbot
):
    started.view.points.add(AT)
    settle(started, qtbot)
    clicked = started.session.mask.copy()
    started.view.labels.paint((1, 2, 3), 2)
    settle(started, qtbot)
    started.review(True)
    settle(started, qtbot)
    mask, folder = started.session.mask.copy(), started._started.folder
    again = new_controller(viewer)
    assert offered(again, viewer.layers["scan"], qtbot) == [], "it is open in a window"
    crash(started)

    again = new_controller(viewer)
    failures = []
    again.failed.connect(failures.append)
    [summary] = offered(again, viewer.layers["scan"], qtbot)
    assert summary.folder == folder
    choice = Choice(student_folder, "two", "distilled", "cpu")  # its own task counts
    again.restore(viewer.layers["scan"], summary.folder, choice)
    settle(again, qtbot)
    assert not failures
    assert again.session.task.name == "one"
    np.testing.assert_array_equal(again.session.mask, mask)
    np.testing.assert_array_equal(again.view.labels.data, mask)
    assert len(again.view.points.data) == 1
    assert again.session.state.reviewed.whole
    again.undo()
    settle(again, qtbot)
    assert mask[1, 2, 3] == 2
    np.testing.assert_array_equal(again.session.mask, clicked, "what was done before can be undone")
    again.view.points.add(AT + np.array((0, 4, 4)))
    settle(again, qtbot)
    assert again.session.mask[tuple(AT + np.array((0, 4, 4)))] == 1


def test_finished_exported_empty_and_other_sessions_are_not_offered(
    started, viewer, small, new_controller, begin, qtbot, tmp_path, failures
):
    scan = viewer.layers["scan"]
    other = viewer.add_image(np.array(small.data) + 1, name="other", affine=small.affine)
    begin(started, scan)  # the fixture's, without any work, is left behind
    started.view.labels.paint((1, 2, 3), 1)
    settle(started, qtbot)
    started.finish()
    settle(started, qtbot)
    begin(started, scan)
    started.view.labels.paint((1, 2, 3), 1)
    started.review(True)
    settle(started, qtbot)
    started.export(tmp_path / "Dataset001_one")
    settle(started, qtbot)
    folder = started._started.folder
    crash(started)
    later = new_controller(viewer)
    assert offered(later, scan, qtbot) == []
    assert offered(later, other, qtbot) == []
    assert not failures
    mark = json.loads((folder / "finished.json").read_text("utf-8"))
    (folder / "finished.json").write_text(json.dumps({"n_actions": mark["n_actions"] - 1}))
    later = new_controller(viewer)
    assert len(offered(later, scan, qtbot)) == 1, "work after the export is offered"


def test_a_session_of_another_volume_is_refused_in_words(
    started, viewer, small, new_controller, student_folder, qtbot
):
    started.view.labels.paint((1, 2, 3), 1)
    settle(started, qtbot)
    folder = started._started.folder
    crash(started)
    other = viewer.add_image(np.array(small.data) + 1, name="other", affine=small.affine)
    again, failures = new_controller(viewer), []
    again.failed.connect(failures.append)
    again.restore(other, folder, Choice(student_folder, "one", "distilled", "cpu"))
    settle(again, qtbot)
    assert "open that volume first" in failures[0]
    assert again.session is None


def test_the_mask_is_saved_beside_the_log_when_it_changed(started, qtbot):
    path = started._started.folder / files.AUTOSAVED
    started._autosave()
    settle(started, qtbot)
    assert not path.exists(), "nothing was done yet"
    started.view.labels.paint((1, 2, 3), 2)
    settle(started, qtbot)
    started._autosave_timer.timeout.emit()
    settle(started, qtbot)
    labels, geometry = read_labels(path)
    np.testing.assert_array_equal(labels, started.session.mask)
    assert geometry.is_close(started.session.volume.geometry)
    before = path.stat().st_mtime_ns
    started._autosave()
    settle(started, qtbot)
    assert path.stat().st_mtime_ns == before, "nothing new to save"
    started.set_autosave(0)
    assert not started._autosave_timer.isActive()
    started.set_autosave(30)
    assert started._autosave_timer.interval() == 30_000


@pytest.mark.parametrize("end", ["finish", "begin", "close"])
def test_what_was_to_be_saved_is_saved_whatever_comes_next(
    controller, viewer, qtbot, tmp_path, failures, end
):
    scan = viewer.layers["scan"]
    begin_without_student(controller, scan, tmp_path / "sessions" / "one")
    write(controller, qtbot, (slice(1, 3),) * 3, 1)
    controller.review(True)
    wait = threading.Event()
    controller._files.do(lambda: wait.wait(20))  # such as the autosave of a large mask
    controller.save_labels(tmp_path / "labels.nii.gz")
    controller.write_volumes(tmp_path / "sizes.json")
    controller.export(tmp_path / "Dataset001_organs")
    threading.Timer(0.2, wait.set).start()
    match end:
        case "finish":
            controller.finish()
        case "begin":
            begin_without_student(controller, scan, tmp_path / "sessions" / "two")
        case _:
            controller.close()
    if end != "close":
        idle(controller, qtbot)
    assert not failures
    assert np.count_nonzero(read_labels(tmp_path / "labels.nii.gz")[0]) == 8
    assert (tmp_path / "sizes.json").is_file()
    assert check_package(tmp_path / "Dataset001_organs") == []
    SessionLog(tmp_path / "sessions" / "one").close()  # nobody has it open any more


def source_like(volume, **changes):
    source = source_of(Image(np.array(volume.data), affine=volume.affine))
    return replace(source, **changes)


def test_a_volume_is_not_read_unless_a_session_lies_where_it_lies(small, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(Source, "read", lambda self: read.append(self.name) or small)
    session = create_session(tmp_path / "one", small, TASK)
    session.set_status(1, Status.DONE)
    session.close()
    moved = small.affine + np.diag([0, 0, 0.5, 0])
    assert restore.of_source(tmp_path, source_like(small, affine=moved)).sessions == []
    assert (
        restore.of_source(tmp_path, source_like(small, data=small.channels[0][1:])).sessions == []
    )
    assert read == []
    [found] = restore.of_source(tmp_path, source_like(small)).sessions
    assert found.folder == tmp_path / "one"
    assert len(read) == 1
    monkeypatch.setattr(restore, "MOST_VOXELS", 10)
    [found] = restore.of_source(tmp_path, source_like(small)).sessions
    assert found.folder == tmp_path / "one", "it is offered; whether it is that volume shows later"
    assert len(read) == 1


def test_what_nobody_asked_for_is_left_behind_when_the_window_closes(controller, qtbot):
    """A volume on a slow network disk is read for minutes: the window does not wait for it."""
    wait, running, read, told = threading.Event(), threading.Event(), [], []
    controller._scan(lambda: running.set() or wait.wait(20), told.append)
    controller._scan(lambda: read.append(1), told.append)
    assert running.wait(10)
    start = time.perf_counter()
    controller.close()
    assert time.perf_counter() - start < 1
    wait.set()
    qtbot.wait(100)
    assert read == [], "what waited is dropped"
    assert told == []


def test_a_volume_that_was_read_when_the_window_closes_is_not_digested(
    controller, viewer, small, tmp_path, qtbot, monkeypatch
):
    create_session(tmp_path / "sessions" / "one", small, TASK).close()
    wait, reading, digested = threading.Event(), threading.Event(), []

    def read(self):
        reading.set()
        wait.wait(20)
        return small

    monkeypatch.setattr(Source, "read", read)
    monkeypatch.setattr(type(small), "digest", lambda self: digested.append(1) or "")
    controller.earlier(viewer.layers["scan"])
    assert reading.wait(10)
    controller.close()
    wait.set()
    controller._scans._pool.shutdown(wait=True)
    assert digested == []


def test_a_session_that_cannot_be_read_is_told_and_the_others_are_offered(
    controller, viewer, small, tmp_path, qtbot
):
    for name in ("good", "newer", "torn"):
        session = create_session(tmp_path / "sessions" / name, small, TASK)
        session.set_status(1, Status.DONE)
        session.close()
    header = tmp_path / "sessions" / "newer" / "session.json"
    header.write_text(json.dumps({**json.loads(header.read_text("utf-8")), "version": 99}))
    (tmp_path / "sessions" / "torn" / "session.json").write_text("{")
    panel = sections_of(controller, viewer, qtbot).panel("Task and labels")
    idle(controller, qtbot)
    assert panel.earlier.count() == 1
    assert panel.can_continue
    told = panel.about_earlier
    assert told.isVisibleTo(panel)
    assert "Session newer cannot be read, so it is not offered" in told.text()
    assert "update napari-ka2er (1 more" in told.text()
    assert str(tmp_path) not in told.text(), "the long path is in the tool tip"
    assert str(tmp_path / "sessions" / "torn") in told.toolTip()


def test_a_log_that_cannot_be_read_now_is_told(small, tmp_path):
    session = create_session(tmp_path / "one", small, TASK)
    session.set_status(1, Status.DONE)
    session.close()
    (tmp_path / "one" / "actions.jsonl").unlink()
    (tmp_path / "one" / "actions.jsonl").mkdir()  # refused to whoever runs the tests
    earlier = restore.of_source(tmp_path, source_like(small))
    assert earlier.sessions == []
    [line] = earlier.lines()
    assert line.startswith("Session one cannot be read, so it is not offered: ")
    assert "try again" in line


def test_a_later_window_knows_what_was_exported(
    controller, viewer, new_controller, qtbot, tmp_path, failures
):
    scan, one = viewer.layers["scan"], tmp_path / "sessions" / "one"
    begin_without_student(controller, scan, one)
    write(controller, qtbot, (slice(1, 3),) * 3, 1)
    controller.review(True)
    controller.export(tmp_path / "Dataset001_organs")
    idle(controller, qtbot)
    assert controller.is_exported
    controller.close()

    again = new_controller(viewer)
    sections = sections_of(again, viewer, qtbot)
    idle(again, qtbot)
    assert "Exported before: Dataset001_organs, " in (
        sections.panel("Task and labels").about_earlier.text()
    )
    train, export = sections.panel("Train"), sections.panel("Export")
    assert train.packages.folders == [tmp_path / "Dataset001_organs"]
    assert train.packages.ticked == [], "whether it is for this workspace is the user's to say"
    export.add_more(one)
    assert export.others.count() == 1
    assert export.more_sessions == (), "it is in a package already"
    assert "exported" in export.others.item(0).text()

    session = restore_session(one, source_of(scan).read())
    session.set_student("v0008", "full")
    again.failed.connect(failures.append)
    begin_without_student(again, scan, one, session=session)
    idle(again, qtbot)
    assert again.is_exported, "the choice of a student is no work"
    again.mark_slice_reviewed(False)
    idle(again, qtbot)
    assert not again.is_exported, "there is something new"
    assert not failures


def test_finished_work_is_not_offered_again_in_the_same_window(controller, viewer, qtbot, tmp_path):
    scan = viewer.layers["scan"]
    begin_without_student(controller, scan, tmp_path / "sessions" / "one")
    write(controller, qtbot, (slice(1, 3),) * 3, 1)
    assert offered(controller, scan, qtbot) == []
    wait = threading.Event()
    controller._files.do(lambda: wait.wait(20))  # such as a large mask that is being saved
    controller.finish()
    assert controller.restorable(scan) == []
    threading.Timer(0.2, wait.set).start()
    assert offered(controller, scan, qtbot) == []
