"""What may interrupt the model's work, and what waits for it; the student's process is real."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.widgets.conftest import settle
from tests.widgets.panelling import TASK, idle, sections_of
from tests.widgets.panelling import begin as begin_without_student

AT = np.array((6.0, 20.0, 15.0))


@pytest.fixture
def told(started):
    found = []
    started.told.connect(found.append)
    return found


def test_long_work_is_dropped_by_no_key_and_the_map_goes_on_to_its_slice(started, qtbot, told):
    started.segment()
    started.next_uncertain_slice()  # key U
    started.show_expert_map()
    assert started.work == "segmenting"
    assert len([text for text in told if "Wait for what is running" in text]) == 2
    settle(started, qtbot)
    assert started.session.state.history.n_done == 1
    started.next_uncertain_slice()
    started.next_uncertain_slice()  # the same map
    settle(started, qtbot)
    assert any(text.startswith("Slice ") for text in told)
    told.clear()
    started.show_uncertainty()
    settle(started, qtbot)
    assert told == [], "nobody asked to go anywhere"


def test_prompts_that_wait_for_the_segmentation_are_answered_though_it_is_cancelled(started, qtbot):
    gate = threading.Event()
    started._submit("segmenting", lambda report, is_cancelled: gate.wait(20))
    started.view.points.add(AT)
    qtbot.waitUntil(lambda: bool(started.objects()), timeout=5000)
    assert started.work == "segmenting"
    started.cancel()
    gate.set()
    settle(started, qtbot)
    assert started.session.state.history.last.source == "prompt"


def test_a_tool_cannot_be_cancelled_and_the_button_says_so(controller, viewer, qtbot, tmp_path):
    begin_without_student(controller, viewer.layers["scan"], tmp_path / "session", TASK)
    sections = sections_of(controller, viewer, qtbot)
    panel = sections.panel("Segment")
    idle(controller, qtbot)
    controller._n_tools = 1
    panel.refresh()
    assert not panel.cancel.isEnabled()
    assert "Undo takes it back" in panel.cancel.toolTip()
    controller._n_tools = 0


def test_a_finished_session_says_where_it_lies(controller, viewer, qtbot, tmp_path):
    begin_without_student(controller, viewer.layers["scan"], tmp_path / "session", TASK)
    idle(controller, qtbot)
    told = []
    controller.told.connect(told.append)
    controller.finish()
    [text] = told
    assert str(tmp_path / "session") in text


def test_what_is_chosen_in_a_session_is_used_when_it_is_asked_for(
    started, viewer, qtbot, student_folder, failures
):
    sections = sections_of(started, viewer, qtbot)
    panel = sections.panel("Student")
    panel.set_student(student_folder)
    panel.device.setCurrentText("cpu")
    panel.mode.setCurrentText("distilled")
    assert not panel.use.isVisibleTo(panel)
    panel.mode.setCurrentText("full")
    assert panel.use.isVisibleTo(panel)
    assert "distilled, on cpu" in panel.differs.text()
    panel.use.click()
    settle(started, qtbot)
    assert started.choice.mode == "full"
    assert started.session.state.student.mode == "full"
    assert not panel.use.isVisibleTo(panel)
    started.segment()
    settle(started, qtbot)
    assert not failures
