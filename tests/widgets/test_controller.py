from __future__ import annotations

import numpy as np
import pytest

from napari_ka2er.core.io import read_labels
from napari_ka2er.core.package import check_package
from napari_ka2er.core.sessions import replay
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.session_view import Tool


def idle(controller, qtbot):
    """Wait until nothing runs and nothing waits to be answered."""
    qtbot.wait(20)
    qtbot.waitUntil(
        lambda: (
            not controller.work and not controller._timer.isActive() and not controller.is_saving
        ),
        timeout=60_000,
    )
    qtbot.wait(20)


def middle(controller):
    return np.array(controller.session.volume.shape) / 2 - 0.5


def test_our_layers_lie_on_the_image_and_the_image_stays_as_it_was(started, viewer, small):
    image = viewer.layers["scan"]
    for layer in (started.view.labels, started.view.points):
        index = (3, 7, 11)
        np.testing.assert_allclose(layer.data_to_world(index), image.data_to_world(index))
    np.testing.assert_array_equal(image.data, small.data)
    assert image.data.flags.writeable
    np.testing.assert_allclose(started.session.volume.affine, small.affine)


def test_a_segmentation_is_shown_and_undone_as_one_step(started, qtbot, failures):
    started.segment()
    idle(started, qtbot)
    assert not failures
    mask = started.session.mask
    assert mask.any()
    np.testing.assert_array_equal(started.view.labels.data, mask)
    started.undo()
    assert not started.view.labels.data.any()
    started.redo()
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)
    assert started.view.labels.data.any()


def test_a_click_is_answered_in_world_coordinates_and_undone_with_its_answer(
    started, qtbot, failures
):
    at = middle(started)
    started.view.points.add(at)
    idle(started, qtbot)
    assert not failures
    [prompt] = started.session.prompts(1).values()
    np.testing.assert_allclose(prompt.position_mm, started.session.volume.geometry.to_world(at))
    assert started.session.mask[tuple(at.astype(int))] == started.label
    np.testing.assert_array_equal(started.view.labels.data, started.session.mask)
    started.undo()
    idle(started, qtbot)
    assert not started.view.labels.data.any()
    assert len(started.view.points.data) == 0
    started.redo()
    idle(started, qtbot)
    assert started.view.labels.data.any()
    np.testing.assert_allclose(started.view.points.data, [at])


def test_a_negative_click_looks_different_and_is_sent_as_negative(started, qtbot, failures):
    started.view.points.add(middle(started))
    started.view.set_tool(Tool.NEGATIVE)
    started.view.points.add(middle(started) + np.array((0, 6, 0)))
    idle(started, qtbot)
    assert not failures
    assert [p.positive for p in started.session.prompts(1).values()] == [True, False]
    first, second = started.view.points.face_color
    assert not np.allclose(first, second)
    assert len(set(map(str, started.view.points.symbol))) == 2
    at = tuple((middle(started) + np.array((0, 6, 0))).round().astype(int))
    assert started.session.mask[at] == 0


def test_points_that_are_moved_or_deleted_change_their_prompts(started, qtbot, failures):
    points = started.view.points
    points.add(middle(started))
    points.add(middle(started) + np.array((0, 4, 0)))
    idle(started, qtbot)
    points.data = points.data + np.array([[0, 0, 0], [0, 0, 2]])  # as napari tells of a drag
    idle(started, qtbot)
    positions = [p.position_mm for p in started.session.prompts(1).values()]
    index = started.session.volume.geometry.to_index(positions)
    np.testing.assert_allclose(index[1], middle(started) + np.array((0, 4, 2)), atol=1e-6)
    points.selected_data = {0}
    points.remove_selected()
    idle(started, qtbot)
    assert not failures
    assert len(started.session.prompts(1)) == 1
    np.testing.assert_allclose(points.data, [middle(started) + np.array((0, 4, 2))])
    points.selected_data = {0}
    points.remove_selected()
    idle(started, qtbot)
    assert not started.session.mask.any(), "with its last point the object's result goes"


def test_a_click_beside_the_volume_is_refused_and_drawn_away(started, qtbot, failures):
    started.view.points.add((-20.0, 0.0, 0.0))
    idle(started, qtbot)
    assert len(failures) == 1
    assert "inside the volume" in failures[0]
    assert len(started.view.points.data) == 0
    assert not started.session.state.objects


def test_clicks_on_two_labels_in_quick_succession_are_both_answered(started, qtbot, failures):
    started.view.points.add(middle(started))
    started.set_label(2)
    started.view.points.add(middle(started) + np.array((0, 12, 0)))
    idle(started, qtbot)
    assert not failures
    assert {1, 2} <= set(np.unique(started.session.mask))


def test_a_stroke_is_one_step_of_the_same_history(started, qtbot):
    labels = started.view.labels
    n_before = started.session.state.history.n_done
    started.view.set_tool(Tool.BRUSH)
    labels.n_edit_dimensions = 3
    with labels.block_history():  # as napari does from press to release
        labels.paint((5, 10, 10), 1)
        labels.paint((5, 14, 10), 1)
    assert started.session.state.history.n_done == n_before + 1
    np.testing.assert_array_equal(labels.data, started.session.mask)
    n_painted = np.count_nonzero(labels.data)
    assert n_painted
    started.undo()
    assert not labels.data.any()
    started.redo()
    assert np.count_nonzero(labels.data) == n_painted


def test_a_stroke_with_a_value_that_is_no_label_is_refused(started, failures):
    started.view.labels.paint((5, 10, 10), 77)
    assert len(failures) == 1
    assert not started.view.labels.data.any()
    assert not started.session.mask.any()


def test_keys_of_our_layers_undo_in_our_history(started):
    labels = started.view.labels
    started.view.bind({"Control-Z": started.undo})
    labels.paint((5, 10, 10), 1)
    labels.keymap[next(key for key in labels.keymap if "Z" in str(key))](labels)
    assert not started.session.mask.any()


def test_layers_that_were_removed_come_back_with_everything(started, viewer, qtbot):
    started.view.points.add(middle(started))
    idle(started, qtbot)
    mask = started.session.mask.copy()
    viewer.layers.remove(started.view.labels)
    viewer.layers.remove(started.view.points)
    assert not started.view.is_complete
    started.undo()
    started.redo()
    started.show_layers()
    assert started.view.is_complete
    idle(started, qtbot)
    np.testing.assert_array_equal(started.view.labels.data, mask)
    assert len(started.view.points.data) == 1
    started.view.labels.paint((5, 2, 2), 1)
    assert started.session.mask[5, 2, 2] == 1


def test_labels_and_package_are_written_in_the_volumes_place(started, qtbot, tmp_path, failures):
    started.view.labels.paint((5, 10, 10), 2)
    started.save_labels(tmp_path / "labels.nii.gz")
    idle(started, qtbot)
    labels, geometry = read_labels(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(labels, started.session.mask)
    assert geometry.is_close(started.session.volume.geometry)
    started.review(True)
    started.export(tmp_path / "Dataset001_one")
    idle(started, qtbot)
    assert not failures
    assert check_package(tmp_path / "Dataset001_one") == []


def test_an_unreviewed_volume_is_not_exported_and_the_remedy_is_told(
    started, qtbot, tmp_path, failures
):
    started.export(tmp_path / "Dataset001_one")
    idle(started, qtbot)
    assert "reviewed" in failures[0]
    assert not (tmp_path / "Dataset001_one").exists()


def test_the_log_replays_to_the_same_mask(started, qtbot):
    started.view.points.add(middle(started))
    idle(started, qtbot)
    started.view.labels.paint((5, 10, 10), 2)
    started.undo()
    np.testing.assert_array_equal(replay(started._started.folder).mask, started.session.mask)


def test_a_cancelled_segmentation_leaves_nothing(started, qtbot):
    told = []
    started.told.connect(told.append)
    started.segment()
    started.cancel()
    idle(started, qtbot)
    assert any("Stopped" in text for text in told)
    assert not started.session.mask.any()
    assert started.session.state.history.n_done == 0


@pytest.mark.parametrize("task", ["nonsense", "one"])
def test_what_cannot_start_is_told_and_what_was_there_stays(
    started, viewer, student_folder, qtbot, failures, task
):
    before = started.session
    image = viewer.add_image(np.zeros((4, 4, 4, 4)), name="film")
    layer = image if task == "one" else viewer.layers["scan"]
    started.start(layer, Choice(student_folder, task, "distilled"))
    idle(started, qtbot)
    assert len(failures) == 1
    assert started.session is before


def test_without_a_session_nothing_raises_and_the_remedy_is_told(controller, failures, tmp_path):
    controller.segment()
    controller.undo()
    controller.review(True)
    controller.save_labels(tmp_path / "x.nii")
    controller.new_object()
    assert len(failures) == 5
    assert all("Start" in text for text in failures)
