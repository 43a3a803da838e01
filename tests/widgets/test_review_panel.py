"""The review panel after work: what it puts forward, and marks that were lost."""

from __future__ import annotations

import pytest
from tests.widgets.panelling import begin, idle, sections_of, write

CUBE = (slice(3, 7), slice(10, 20), slice(8, 18))


@pytest.fixture
def panel(controller, viewer, tmp_path, qtbot):
    sections = sections_of(controller, viewer, qtbot)
    begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "one")
    write(controller, qtbot, CUBE, 1)
    return sections.panel("Review")


def test_a_slice_is_put_forward_and_not_the_whole_volume(panel, controller, qtbot):
    assert panel.slice.font().bold()
    assert not panel.whole.font().bold()
    panel.slice.click()
    idle(controller, qtbot)
    assert not panel.slice.font().bold()
    assert not panel.whole.font().bold()


def test_marks_that_undo_took_are_gone_from_the_panel(panel, controller, qtbot):
    panel.whole.click()
    idle(controller, qtbot)
    assert panel.share.text() == "All of the volume is reviewed."
    controller.undo()
    idle(controller, qtbot)
    assert not panel.whole.isChecked()
    assert panel.share.text() == "67 % reviewed: slices 8 of 12 Z."
    assert panel.bar.value() == 67


def test_a_locked_label_keeps_undo_from_it_in_one_line(panel, controller, failures, qtbot):
    controller.set_locked(1, True)
    controller.undo()
    idle(controller, qtbot)
    assert len(failures) == 1
    assert failures[0].endswith("liver, which is locked; unlock it first")
    assert controller.session.mask.any()
    controller.set_locked(1, False)
    controller.undo()
    idle(controller, qtbot)
    assert not controller.session.mask.any()
