"""What is painted is what the session has, whatever else happens to the labels layer meanwhile."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.layers import Labels
from napari.layers._layer_actions import _convert_dtype
from tests.widgets.panelling import begin, idle, sections_of, write

from napari_ka2er.core.prompts import Point
from napari_ka2er.core.sessions import replay
from napari_ka2er.widgets import jobs
from napari_ka2er.widgets.label_table import VISIBLE
from napari_ka2er.widgets.tools import Tool

ROW = (slice(6, 7), slice(6, 7), slice(0, 10))


@pytest.fixture
def session(controller, viewer, tmp_path, qtbot):
    session = begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "one")
    idle(controller, qtbot)
    return session


@pytest.fixture
def labels(session, controller):
    return controller.view.labels


@pytest.fixture
def told(controller):
    """What the user was told."""
    found = []
    controller.told.connect(found.append)
    return found


def held(controller):
    """Keep the session's thread busy until the returned event is set."""
    gate = threading.Event()
    controller._act(lambda session: gate.wait(10))
    return gate


# ------------------------------------------------ another array in the layer


def test_an_array_of_another_type_leaves_the_layer_with_the_session(
    controller, viewer, labels, session, told, failures, qtbot
):
    viewer.layers.selection.active = labels
    _convert_dtype(viewer.layers, "int64")  # napari's menu
    idle(controller, qtbot)
    assert labels.data is controller._desk.shown
    assert "keeps the session's own" in told[-1]
    write(controller, qtbot, ROW, 1)
    np.testing.assert_array_equal(labels.data, session.mask)
    assert session.state.history.n_done == 1, "the conversion changed nothing"
    assert not failures


def test_labels_that_were_assigned_are_one_step_in_the_log(
    controller, labels, session, told, failures, qtbot
):
    write(controller, qtbot, (slice(0, 12),) * 3, 2)
    controller.review(True)
    new = np.array(labels.data)
    new[3:6, 10:20, 10:20] = 1
    labels.data = new.astype(np.int32)
    new[:] = 5  # whose array it is may go on with it
    idle(controller, qtbot)
    assert (session.mask == 1).sum() == 300
    assert (session.mask == 2).sum() == 12**3 - 3 * 2 * 2
    assert labels.data is controller._desk.shown
    np.testing.assert_array_equal(labels.data, session.mask)
    np.testing.assert_array_equal(replay(session.folder).mask, session.mask)
    assert "one step" in told[-1]
    assert not session.state.reviewed.whole, "nobody saw what it changed elsewhere"
    controller.undo()
    idle(controller, qtbot)
    assert not (session.mask == 1).any()
    assert not failures


@pytest.mark.parametrize(
    ("make", "why"),
    [(lambda shown: np.zeros((2, 2, 2), int), "shape"), (lambda shown: shown + 77, "77")],
)
def test_what_cannot_be_the_tasks_labels_is_refused_in_a_line(
    controller, labels, session, failures, qtbot, make, why
):
    labels.data = make(np.array(labels.data, np.int32))
    idle(controller, qtbot)
    assert len(failures) == 1
    assert why in failures[0]
    assert "keeps the session's labels" in failures[0]
    assert labels.data is controller._desk.shown
    assert not session.mask.any()
    assert not labels.data.any()


# ----------------------------------------------------------- Segment all


@pytest.mark.parametrize("only", [None, 1])
def test_what_is_painted_while_all_is_segmented_stays(
    controller, labels, session, qtbot, monkeypatch, only
):
    write(controller, qtbot, (slice(8, 9),) * 3, 5)
    found = np.zeros(session.mask.shape, np.uint8)
    found[1:3], found[6, 6, :20] = 2, 1

    class Service:
        def segment(self, *args, **kwargs):
            session.write(ROW, np.full((1, 1, 10), 5, np.uint8), "brush")  # before it is prepared
            return type("Found", (), {"labels": found, "seconds": 1.0})

    act = jobs.segmenting(session, only)
    result = act(Service(), lambda *_: None, lambda: False)
    labels.paint((10, 20, 20), 1)  # and after
    idle(controller, qtbot)
    controller._take(result)
    idle(controller, qtbot)
    assert (session.mask[ROW] == 5).all()
    assert (session.mask[6, 6, 10:20] == 1).all(), "nobody painted there"
    assert session.mask[10, 20, 20] == 1
    assert session.mask[8, 8, 8] == (0 if only is None else 5), "painted before it began"
    np.testing.assert_array_equal(labels.data, session.mask)
    controller.undo()
    idle(controller, qtbot)
    assert session.mask[10, 20, 20] == 1
    assert not session.mask[6, 6, 10:20].any()


# ------------------------------------------------------ what is refused


def test_a_stroke_on_a_locked_label_says_so(controller, labels, session, told, failures, qtbot):
    write(controller, qtbot, ROW, 2)
    controller.set_locked(2, True)
    labels.data_setitem((np.array([6]), np.array([6]), np.array([3])), 1)
    idle(controller, qtbot)
    assert told == ["Nothing was painted: spleen is locked."]
    np.testing.assert_array_equal(labels.data, session.mask)
    labels.data_setitem((np.array([6, 7]), np.array([6, 6]), np.array([3, 3])), 1)
    idle(controller, qtbot)
    assert len(told) == 1, "what was painted beside it is seen"
    assert session.mask[7, 6, 3] == 1
    np.testing.assert_array_equal(labels.data, session.mask)
    assert not failures


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (((1e6, 2e6), None), "intensities 1e+06 to 2e+06"),
        ((None, 2), "spleen"),
        (((1e6, 2e6), 0), "intensities 1e+06 to 2e+06 and the background"),
    ],
)
def test_a_stroke_that_the_limits_keep_away_says_so(
    controller, labels, session, told, qtbot, limits, what
):
    controller.set_brush_limits(*limits)
    labels.data_setitem((np.array([6, 6]), np.array([6, 6]), np.array([6, 7])), 1)
    idle(controller, qtbot)
    assert told == [f"Nothing was painted: the brush is limited to {what}."]
    assert not labels.data.any()


def test_a_label_of_another_task_is_refused_with_what_to_do(controller, labels, failures, qtbot):
    labels.data_setitem((np.array([6]), np.array([6]), np.array([6])), 77)
    idle(controller, qtbot)
    assert failures[0].endswith("{77}; choose a label in the table (keys 1–9)")
    assert not labels.data.any()


@pytest.mark.parametrize(("other", "advice"), [(0, "eraser"), (3, "choose one in the table")])
def test_what_napari_picks_and_is_no_label_is_not_painted_with(
    controller, viewer, labels, told, qtbot, other, advice
):
    table = sections_of(controller, viewer, qtbot).panel("Task and labels").table
    controller.set_label(2)
    idle(controller, qtbot)
    labels.selected_label = other  # the picker, or the keys M = −
    idle(controller, qtbot)
    assert labels.selected_label == controller.label == 2
    assert table.currentRow() == 1
    assert len(told) == 1
    assert "spleen stays chosen" in told[0]
    assert advice in told[0]


# --------------------------------------------------------- what is hidden


@pytest.mark.parametrize("tool", [Tool.BRUSH, Tool.ERASER])
def test_brush_and_eraser_show_the_labels_they_work_on(controller, labels, qtbot, tool):
    controller.set_tool(tool)
    controller.hide()
    idle(controller, qtbot)
    controller.set_tool(tool)
    assert labels.visible
    assert controller.view.tool == tool
    controller.hide()
    controller.set_tool(Tool.POSITIVE)
    assert not labels.visible, "points need no labels"


@pytest.mark.parametrize("how", ["brush", "stroke", "prompt"])
def test_a_hidden_label_that_is_worked_on_is_shown(
    controller, viewer, labels, session, told, qtbot, how
):
    table = sections_of(controller, viewer, qtbot).panel("Task and labels").table
    controller._model = lambda *_: None  # there is no student to answer
    controller.set_label_visible(1, False)
    controller.set_label_visible(2, False)
    idle(controller, qtbot)
    match how:
        case "brush":
            controller.set_tool(Tool.BRUSH)
        case "stroke":
            labels.paint((6, 6, 6), 1)
        case _:
            at = session.volume.geometry.to_world((5, 10, 10))
            controller.add_prompt(Point(tuple(float(p) for p in at)))
    idle(controller, qtbot)
    assert controller.view.hidden == {2}
    assert labels.get_color(1)[3] > 0
    assert [table.item(row, VISIBLE).checkState().value for row in range(3)] == [2, 0, 2]
    assert told == ["liver is shown again, as it is worked on."]


# --------------------------------------------------- while the mouse is down


def test_a_second_stroke_stays_on_the_screen_while_it_is_drawn(controller, labels, session, qtbot):
    labels.paint((6, 10, 10), 1)
    labels._block_history = True  # the mouse goes down again
    labels.paint((6, 10, 12), 2)
    drawn = np.array(labels.data)
    qtbot.waitUntil(lambda: (session.mask == 1).any(), timeout=5000)
    idle(controller, qtbot)
    np.testing.assert_array_equal(labels.data, drawn)
    labels._block_history = False
    labels._commit_staged_history()
    idle(controller, qtbot)
    np.testing.assert_array_equal(labels.data, session.mask)
    assert (session.mask == 2).sum() == (drawn == 2).sum()


def test_what_was_drawn_over_a_stroke_before_it_was_written_is_drawn_anew(
    controller, labels, session, qtbot
):
    gate = held(controller)
    # An answer that waits, and comes before the stroke.
    values = np.full((1, 1, 10), 2, np.uint8)
    controller._act(lambda session: session.write(ROW, values, "automatic"))
    labels.data_setitem((np.array([6] * 3), np.array([6] * 3), np.arange(3)), 1)
    qtbot.wait(20)
    gate.set()
    idle(controller, qtbot)
    assert session.mask[6, 6, :10].tolist() == [1] * 3 + [2] * 7
    np.testing.assert_array_equal(labels.data, session.mask)


def test_what_is_refused_goes_back_and_the_next_stroke_stays(controller, labels, session, qtbot):
    write(controller, qtbot, ROW, 2)
    controller.set_locked(2, True)
    idle(controller, qtbot)
    labels.data_setitem((np.array([6, 7]), np.array([6, 6]), np.array([3, 4])), 1)
    labels._block_history = True
    labels.data_setitem((np.array([7]), np.array([6]), np.array([3])), 5)
    qtbot.waitUntil(lambda: session.mask[7, 6, 4] == 1, timeout=5000)
    idle(controller, qtbot)
    assert labels.data[6, 6, 3] == 2
    assert labels.data[7, 6, 3:5].tolist() == [5, 1]


def test_an_answer_that_lands_while_the_mouse_is_down_leaves_the_stroke_on_the_screen(
    controller, labels, session, qtbot
):
    labels._block_history = True
    labels.paint((6, 6, 6), 1)
    drawn = labels.data == 1
    write(controller, qtbot, (slice(6, 7), slice(0, 12), slice(0, 12)), 2)
    assert (labels.data[drawn] == 1).all()
    assert (labels.data == 2).any()
    assert not (session.mask == 1).any()  # nothing is written before the mouse is up
    labels._block_history = False
    labels._commit_staged_history()
    idle(controller, qtbot)
    np.testing.assert_array_equal(session.mask == 1, drawn)
    np.testing.assert_array_equal(labels.data, session.mask)


@pytest.mark.skipif(not hasattr(Labels, "_abort_stroke"), reason="napari 0.9 aborts strokes")
def test_a_stroke_that_napari_gives_up_leaves_the_screen_as_the_session_is(
    controller, labels, session, qtbot
):
    labels._begin_stroke()
    labels.data_setitem((np.array([6] * 5), np.array([6] * 5), np.arange(5)), 1)
    write(controller, qtbot, ROW, 2)  # an answer lands meanwhile
    labels._abort_stroke()
    idle(controller, qtbot)
    assert (session.mask[ROW] == 2).all()
    np.testing.assert_array_equal(labels.data, session.mask)
    controller.close()
    assert "_abort_stroke" not in vars(labels)


# ---------------------------------------------------------------- the keys


def test_the_sign_of_the_brush_is_the_eraser(controller, labels, qtbot):
    controller.set_tool(Tool.BRUSH)
    controller.flip_sign()
    assert controller.view.tool == Tool.ERASER
    controller.flip_sign()
    assert controller.view.tool == Tool.BRUSH


# ----------------------------------------------------------- pasted shapes


def test_a_pasted_shape_is_a_prompt_and_undo_is_drawn(controller, session, labels, failures, qtbot):
    controller._model = lambda *_: None  # there is no student to answer
    shapes, prompts = controller.view.shapes, controller.view._prompts["shapes"]
    shapes.add(np.array([[5, 5, 5], [5, 5, 12], [5, 12, 12]]), shape_type="path")
    qtbot.waitUntil(lambda: len(controller.objects()) == 1, timeout=5000)
    shapes.mode = "select"
    shapes.selected_data = {0}
    shapes._copy_data()
    shapes._paste_data()  # napari tells nobody
    qtbot.waitUntil(lambda: len(controller.objects()[0].prompts) == 2, timeout=5000)
    controller.undo()
    qtbot.waitUntil(lambda: len(shapes.data) == 1, timeout=5000)
    controller.undo()
    qtbot.waitUntil(lambda: len(shapes.data) == 0, timeout=5000)
    qtbot.waitUntil(lambda: not prompts._timer.isActive(), timeout=5000)
    assert not failures


def test_a_shape_that_is_being_drawn_is_waited_for(controller, session, labels, qtbot):
    controller._model = lambda *_: None  # there is no student to answer
    shapes, prompts = controller.view.shapes, controller.view._prompts["shapes"]
    shapes._is_creating = True  # as napari does from press to release
    shapes.add(np.array([[5, 5, 5], [5, 5, 12], [5, 12, 12]]), shape_type="path", gui=True)
    controller.view.show_prompts()
    qtbot.wait(150)
    assert len(shapes.data) == 1
    assert not controller.objects()
    assert prompts._timer.isActive()
    shapes._is_creating = False
    qtbot.waitUntil(lambda: len(controller.objects()) == 1, timeout=5000)
