"""The review panel after work: what it puts forward, and marks that were lost."""

from __future__ import annotations

import pytest
from app_model.types import KeyCode, KeyMod
from tests.widgets.panelling import begin, idle, sections_of, write

from napari_ka2er.widgets.keys import bindings

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


def test_slices_that_were_ticked_outlive_the_whole_volume(panel, controller, qtbot):
    controller.mark_slice_reviewed(True)
    idle(controller, qtbot)
    ticked = controller.session.state.reviewed
    for _ in range(2):
        panel.whole.click()
        idle(controller, qtbot)
    assert not panel.whole.isChecked()
    assert panel.slice.isChecked()
    assert controller.session.state.reviewed == ticked
    assert ticked.slices[0]


def test_in_3d_no_slice_can_be_ticked_nor_changed(panel, controller, viewer, failures, qtbot):
    before, mask = controller.session.state.reviewed, controller.session.mask.copy()
    tools = sections_of(controller, viewer, qtbot).panel("Correct").tools
    viewer.dims.ndisplay = 3
    assert not panel.slice.isEnabled()
    assert "Ctrl+Y" in panel.slice.toolTip()
    controller.mark_slice_reviewed(True)
    bindings(controller)[KeyMod.Shift | KeyCode.KeyK]()
    for name in ("copy-before", "copy-after", "fill-between"):
        tools[name].click()
    idle(controller, qtbot)
    assert len(failures) == 5
    assert all("3D display; go to 2D display: Ctrl+Y" in failure for failure in failures)
    assert controller.session.state.reviewed == before
    assert (controller.session.mask == mask).all()
    viewer.dims.ndisplay = 2
    assert panel.slice.isEnabled()
    assert panel.slice.text().startswith("Slice Z ")


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
