from __future__ import annotations

import json
import time

import numpy as np
import pytest
from tests.widgets.conftest import settle

from napari_ka2er.core.io import read_labels, write_volume
from napari_ka2er.core.package import check_package
from napari_ka2er.core.review import Status
from napari_ka2er.core.sessions import replay
from napari_ka2er.core.task import Label
from napari_ka2er.core.tools import Grow, KeepLargest
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.tools import Tool

AT = np.array((6, 20, 15))  # a voxel in the ellipsoid


def stroke(controller, qtbot, *centres, size=1):
    """Paint as napari does from press to release."""
    labels = controller.view.labels
    labels.brush_size = size
    with labels.block_history():
        for centre in centres:
            labels.paint(centre, int(labels.selected_label))
    settle(controller, qtbot)


def test_our_layers_lie_on_the_image_and_the_image_stays_as_it_was(started, viewer, small):
    image = viewer.layers["scan"]
    for layer in (started.view.labels, started.view.points, started.view.shapes):
        index = (3, 7, 11)
        np.testing.assert_allclose(layer.data_to_world(index), image.data_to_world(index))
    np.testing.assert_array_equal(image.data, small.data)
    assert image.data.flags.writeable
    np.testing.assert_allclose(started.session.volume.affine, small.affine)


def test_a_segmentation_is_shown_and_undone_as_one_step(started, qtbot, failures):
    started.segment()
    assert started.work == "segmenting"
    assert started.is_long
    settle(started, qtbot)
    assert not failures
    mask = started.session.mask
    assert mask.any()
    np.testing.assert_array_equal(started.view.labels.data, mask)
    started.undo()
    settle(started, qtbot)
    assert not started.view.labels.data.any()
    started.redo()
    settle(started, qtbot)
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)
    assert started.view.labels.data.any()


def test_a_segmentation_says_how_many_reviewed_slices_it_changed(started, qtbot):
    told = []
    started.told.connect(told.append)
    for axis in (0, 1):
        started._act(lambda session, axis=axis: session.review_slice(axis, int(AT[axis])))
    started.segment()
    settle(started, qtbot)
    assert told == ["Segmented. Reviewed slices that changed, and want another look: 2."]
    started.segment()
    settle(started, qtbot)
    assert told[1:] == ["Segmented: nothing was found, or changed."]


def test_one_label_is_segmented_beside_the_others(started, qtbot, failures):
    started.segment()
    settle(started, qtbot)
    found = started.session.mask.copy()
    assert (found == 1).any()
    started.undo()
    started.set_label(2)
    stroke(started, qtbot, AT, size=3)
    painted = started.session.mask.copy()
    started.set_label(1)
    started.segment_label()
    settle(started, qtbot)
    assert not failures
    expected = painted.copy()
    expected[(found == 1) & (painted == 0)] = 1
    np.testing.assert_array_equal(started.session.mask, expected)


def test_a_click_is_answered_in_world_coordinates_and_undone_with_its_answer(
    started, qtbot, failures
):
    started.view.points.add(AT)
    settle(started, qtbot)
    assert not failures
    [prompt] = started.session.prompts(1).values()
    np.testing.assert_allclose(prompt.position_mm, started.session.volume.geometry.to_world(AT))
    assert started.session.mask[tuple(AT)] == started.label
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)
    started.undo()
    settle(started, qtbot)
    assert not started.view.labels.data.any()
    assert len(started.view.points.data) == 0
    started.redo()
    settle(started, qtbot)
    assert started.view.labels.data.any()
    np.testing.assert_allclose(started.view.points.data, [AT])


def test_clicks_on_two_labels_in_quick_succession_are_both_answered(started, qtbot, failures):
    started.view.points.add(AT)
    started.set_label(2)
    started.view.points.add(AT + np.array((0, 12, 0)))
    settle(started, qtbot)
    assert not failures
    assert {1, 2} <= set(np.unique(started.session.mask))


def test_a_click_while_another_is_answered_voids_the_older_answer(started, qtbot, failures):
    """All prompts are in the answer that counts; none is written for fewer of them."""
    started.view.points.add(AT)
    qtbot.waitUntil(lambda: started.work == "answering", timeout=5000)
    started.view.points.add(AT + np.array((0, 3, 0)))
    settle(started, qtbot)
    assert not failures
    assert len(started.session.prompts(1)) == 2
    assert not started._queue.is_waiting
    replayed = replay(started._started.folder)
    edits = [c for c in replayed.state.history.newest_first() if hasattr(c, "delta")]
    assert [edit.object_number for edit in edits] == [1], "the first answer came too late"


def test_a_stroke_is_one_step_of_the_same_history(started, qtbot):
    labels = started.view.labels
    n_before = started.session.state.history.n_done
    started.set_tool(Tool.BRUSH)
    labels.n_edit_dimensions = 3
    stroke(started, qtbot, (5, 10, 10), (5, 14, 10))
    assert started.session.state.history.n_done == n_before + 1
    np.testing.assert_array_equal(labels.data, started.session.mask)
    n_painted = np.count_nonzero(labels.data)
    assert n_painted == 2
    started.undo()
    settle(started, qtbot)
    assert not labels.data.any()
    started.redo()
    settle(started, qtbot)
    assert np.count_nonzero(labels.data) == n_painted


def test_naparis_own_undo_is_the_sessions(started, qtbot):
    """Whoever calls it: the key, the menu or a script."""
    started.view.bind({})  # without the widget, nothing is bound ...
    stroke(started, qtbot, (5, 10, 10))
    started.view.points.add(AT)
    settle(started, qtbot)
    from napari_ka2er.widgets.session_view import REDO, UNDO

    started.view.bind({UNDO: started.undo, REDO: started.redo})  # ... with it, the session's are
    started.view.labels.undo()
    settle(started, qtbot)
    assert len(started.view.points.data) == 0, "the newest step was the click"
    assert np.count_nonzero(started.session.mask) == 1
    started.view.labels.undo()
    settle(started, qtbot)
    assert not started.view.labels.data.any()
    started.view.labels.redo()
    settle(started, qtbot)
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)
    assert np.count_nonzero(started.session.mask) == 1


def test_fifty_steps_of_all_kinds_go_back_and_forth(started, qtbot):
    for n in range(40):
        stroke(started, qtbot, (n % 12, 2 + n % 30, 3))
    for n in range(5):
        started.view.points.add(AT + np.array((0, n, n)))
        settle(started, qtbot)
    started.run_tool(Grow(1, mm=2.0))
    started.segment()
    for n in range(4):
        stroke(started, qtbot, (1, 30, 20 + n), size=3)
    settle(started, qtbot)
    done = started.session.mask.copy()
    n_steps = started.session.state.history.n_done
    assert n_steps >= 50
    for _ in range(n_steps):
        started.undo()
    settle(started, qtbot)
    assert not started.session.mask.any()
    assert not started.view.labels.data.any()
    for _ in range(n_steps):
        started.redo()
    settle(started, qtbot)
    np.testing.assert_array_equal(started.session.mask, done)
    np.testing.assert_array_equal(started.view.labels.data, done)


def test_a_stroke_with_a_value_that_is_no_label_is_refused(started, qtbot, failures):
    started.view.labels.paint((5, 10, 10), 77)
    settle(started, qtbot)
    assert len(failures) == 1
    assert not started.view.labels.data.any()
    assert not started.session.mask.any()


def test_a_refused_stroke_goes_back_however_busy_the_window_is(started, qtbot, failures):
    """Outside of a drag napari tells of a stroke before it writes it."""
    labels = started.view.labels
    labels.events.paint.connect(lambda event: time.sleep(0.3), position="last")
    labels.paint((5, 10, 10), 77)
    settle(started, qtbot)
    assert len(failures) == 1
    assert not labels.data.any()


def test_a_stroke_is_taken_before_what_is_done_after_it(started, qtbot):
    started.view.labels.paint(tuple(AT), 1)
    started.undo()
    settle(started, qtbot)
    assert not started.session.mask.any()
    assert started.session.state.history.n_undone == 1


def test_a_stroke_keeps_within_intensities_and_off_other_labels(started, qtbot, small):
    low, high = 3.0, 6.0
    started.set_brush_limits(intensity_range=(low, high))
    stroke(started, qtbot, AT, size=15)
    inside = (small.data >= low) & (small.data <= high)
    first = started.session.mask.copy()
    assert first.any()
    assert not (first.astype(bool) & ~inside).any()
    np.testing.assert_array_equal(started.view.labels.data, first)
    started.set_brush_limits(only_over=0)
    started.set_label(2)
    stroke(started, qtbot, AT, size=15)
    assert (started.session.mask[first == 1] == 1).all()
    assert (started.session.mask == 2).any()


def test_a_locked_label_is_not_painted_over_and_the_screen_shows_so(started, qtbot):
    stroke(started, qtbot, AT, size=5)
    started.set_locked(1, True)
    started.set_label(2)
    stroke(started, qtbot, AT, size=3)
    assert set(np.unique(started.session.mask)) == {0, 1}
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)


def test_a_tool_is_one_step_with_what_was_asked_for(started, qtbot, failures):
    stroke(started, qtbot, AT, size=5)
    stroke(started, qtbot, (1, 3, 3))
    started.run_tool(KeepLargest(1))
    assert started.work == "tool"
    settle(started, qtbot)
    assert not failures
    assert started.session.mask[1, 3, 3] == 0
    edit = started.session.state.history.last
    assert (edit.source, edit.detail) == ("tool", {"tool": "keep-largest", "label": 1})
    started.undo()
    settle(started, qtbot)
    assert started.session.mask[1, 3, 3] == 1


def test_a_tool_without_anything_to_work_on_tells_so(started, qtbot, failures):
    started.run_tool(KeepLargest(1))
    settle(started, qtbot)
    assert len(failures) == 1
    assert started.work == ""


def test_a_label_is_added_colored_hidden_locked_and_given_a_status(started, qtbot, failures):
    started.define_label(Label(300, "new", "#123456"))
    started.set_status(1, Status.FLAGGED)
    started.set_label_visible(1, False)
    settle(started, qtbot)
    assert not failures
    started.set_label(300)
    stroke(started, qtbot, AT)
    labels = started.view.labels
    assert started.session.mask[tuple(AT)] == 300, "the map grew wide enough"
    assert labels.data[tuple(AT)] == 300
    np.testing.assert_allclose(labels.get_color(300), (18 / 255, 52 / 255, 86 / 255, 1), atol=1e-3)
    assert labels.get_color(1)[3] == 0
    assert labels.get_color(2)[3] == 1
    assert started.session.state.statuses[1] == Status.FLAGGED
    started.view.points.add(AT + np.array((0, 2, 2)))  # the student does not know this label
    settle(started, qtbot)
    assert not failures
    assert started.session.mask[tuple(AT + np.array((0, 2, 2)))] == 300


def test_changes_are_told_once_in_a_turn_of_the_event_loop(started, qtbot):
    told = []
    started.changed.connect(lambda: told.append(1))
    for value in (1, 2, 1, 2, 1):
        started.set_label(value)
    assert told == []
    qtbot.wait(20)
    assert told == [1]


def test_labels_sizes_and_package_are_written_in_the_volumes_place(
    started, qtbot, tmp_path, failures
):
    started.set_label(2)
    stroke(started, qtbot, (5, 10, 10), (5, 11, 10), (5, 12, 10))
    started.save_labels(tmp_path / "labels.nii.gz")
    started.write_volumes(tmp_path / "sizes.json")
    started.review(True)
    started.export(tmp_path / "Dataset001_one", reviewer="ann", patient="p7")
    assert started.is_saving
    settle(started, qtbot)
    assert not failures
    labels, geometry = read_labels(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(labels, started.session.mask)
    assert geometry.is_close(started.session.volume.geometry)
    sizes = json.loads((tmp_path / "sizes.json").read_text("utf-8"))["labels"]
    assert sizes == {"a": 0.0, "b": pytest.approx(3 * 3.0 * 2.1 * 2.7 / 1000, abs=1e-3)}
    assert check_package(tmp_path / "Dataset001_one") == []
    line = json.loads((tmp_path / "Dataset001_one" / "corrections.jsonl").read_text("utf-8"))
    assert (line["reviewer"], line["patient"]) == ("ann", "p7")
    assert started.is_exported
    stroke(started, qtbot, (7, 10, 10))
    assert not started.is_exported, "there is something new"


def test_several_sessions_go_into_one_package(
    started, viewer, small, begin, qtbot, tmp_path, failures
):
    other = np.array(small.data) + 1
    volume = type(small)(other, small.affine, name="other")
    write_volume(tmp_path / "other.nii.gz", volume)
    from napari_ka2er._reader import get_reader

    [(data, attributes, _)] = get_reader(str(tmp_path / "other.nii.gz"))(
        str(tmp_path / "other.nii.gz")
    )
    first = started._started.folder
    session = started.session
    source = tmp_path / "scan.nii.gz"
    write_volume(source, session.volume)
    header = json.loads((first / "session.json").read_text("utf-8"))
    header["volume"]["source"] = str(source)
    (first / "session.json").write_text(json.dumps(header))
    stroke(started, qtbot, AT)
    started.review(True)
    settle(started, qtbot)
    layer = viewer.add_image(data, **attributes)
    begin(started, layer)
    stroke(started, qtbot, AT)
    started.mark_slice_reviewed(True)
    started.export(tmp_path / "Dataset001_two", more_sessions=[first])
    settle(started, qtbot)
    assert not failures
    assert check_package(tmp_path / "Dataset001_two") == []
    assert len(list((tmp_path / "Dataset001_two" / "labelsTr").iterdir())) == 2


def test_an_unreviewed_volume_is_not_exported_and_the_remedy_is_told(
    started, qtbot, tmp_path, failures
):
    started.export(tmp_path / "Dataset001_one")
    settle(started, qtbot)
    assert "reviewed" in failures[0]
    assert not (tmp_path / "Dataset001_one").exists()


def test_the_log_replays_to_the_same_mask(started, qtbot):
    started.view.points.add(AT)
    settle(started, qtbot)
    started.set_label(2)
    stroke(started, qtbot, (5, 10, 10))
    started.undo()
    settle(started, qtbot)
    np.testing.assert_array_equal(replay(started._started.folder).mask, started.session.mask)


def test_a_cancelled_segmentation_leaves_nothing(started, qtbot):
    told = []
    started.told.connect(told.append)
    started.segment()
    started.cancel()
    settle(started, qtbot)
    assert any("Stopped" in text for text in told)
    assert not started.session.mask.any()
    assert started.session.state.history.n_done == 0


def test_an_answer_that_comes_after_finish_is_written_nowhere(started, qtbot, failures):
    started.view.points.add(AT)
    qtbot.waitUntil(lambda: started.work == "answering", timeout=5000)
    session, folder = started.session, started._started.folder
    started.finish()
    qtbot.waitUntil(lambda: not started._runner.is_busy, timeout=30_000)
    settle(started, qtbot)
    assert not failures
    assert started.session is None
    assert not session.mask.any()
    assert not replay(folder).mask.any()


@pytest.mark.parametrize("task", ["nonsense", "one"])
def test_what_cannot_start_is_told_and_what_was_there_stays(
    started, viewer, student_folder, qtbot, failures, task
):
    before = started.session
    image = viewer.add_image(np.zeros((4, 4, 4, 4)), name="film")
    layer = image if task == "one" else viewer.layers["scan"]
    started.start(layer, Choice(student_folder, task, "distilled", "cpu"))
    settle(started, qtbot)
    assert len(failures) == 1
    assert started.session is before
    stroke(started, qtbot, AT)
    assert started.session.mask.any(), "it can still be worked on"


def test_without_a_session_nothing_raises_and_the_remedy_is_told(controller, failures, tmp_path):
    calls = (
        controller.segment,
        controller.segment_label,
        controller.undo,
        controller.show_uncertainty,
        controller.show_expert_map,
        controller.next_uncertain_slice,
        controller.new_object,
        controller.accept,
        lambda: controller.review(True),
        lambda: controller.mark_slice_reviewed(True),
        lambda: controller.save_labels(tmp_path / "x.nii"),
        lambda: controller.write_volumes(tmp_path / "x.json"),
        lambda: controller.export(tmp_path / "x"),
        lambda: controller.run_tool(KeepLargest(1)),
        lambda: controller.set_status(1, Status.DONE),
        lambda: controller.set_locked(1, True),
    )
    for call in calls:
        call()
    assert len(failures) == len(calls)
    assert all("Start" in text for text in failures)
    controller.finish()
    controller.cancel()
    controller.show_layers()


def test_closing_while_something_runs_keeps_what_was_committed(started, qtbot, new_controller):
    stroke(started, qtbot, AT)
    folder = started._started.folder
    started.segment()
    started.close()
    started.close()
    qtbot.wait(50)
    assert np.count_nonzero(replay(folder).mask) == 1
