"""What the widget says to do next, what it opens, and what its disabled controls say."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QAbstractButton
from tests.widgets.panelling import begin, idle, sections_of, write

from napari_ka2er.core.review import Status


@pytest.fixture
def sections(controller, viewer, qtbot):
    return sections_of(controller, viewer, qtbot)


def opened(sections):
    return [title for title, part in sections.parts.items() if part.is_open]


def bold(sections):
    """The visible buttons that are shown in bold: what to press next."""
    found = sections.findChildren(QAbstractButton)
    return {made.objectName() for made in found if made.font().bold() and made.isVisible()}


def test_from_nothing_to_export_the_next_step_is_told_open_and_bold(
    sections, controller, viewer, tmp_path, qtbot
):
    scan = viewer.layers["scan"]
    viewer.layers.clear()
    idle(controller, qtbot)
    assert "Open a volume" in sections.next_step.text()
    assert opened(sections) == ["Volume"]
    assert bold(sections) == {"open_volume", "open_sample"}

    viewer.add_layer(scan)
    idle(controller, qtbot)
    assert "press Start" in sections.next_step.text()
    assert opened(sections) == ["Volume", "Student", "Task and labels"]
    assert bold(sections) == {"start"}

    begin(controller, scan, tmp_path / "session")
    idle(controller, qtbot)
    assert "Press Segment all" in sections.next_step.text()
    assert opened(sections) == ["Task and labels", "Segment", "Prompt"]
    assert bold(sections) == {"segment"}

    write(controller, qtbot, (slice(2, 5),) * 3, 1, "automatic")
    assert "paint" in sections.next_step.text()
    assert opened(sections) == ["Task and labels", "Prompt", "Correct"]

    controller.review(True)
    idle(controller, qtbot)
    assert "Export package" in sections.next_step.text()
    assert opened(sections) == ["Task and labels", "Review", "Export"]
    assert bold(sections) == {"export"}

    controller._end_session()
    controller._note()
    idle(controller, qtbot)
    assert opened(sections) == ["Volume", "Student", "Task and labels"]


def test_what_the_user_folds_stays_folded(sections, controller, viewer, tmp_path, qtbot):
    begin(controller, viewer.layers["scan"], tmp_path / "session")
    idle(controller, qtbot)
    sections.parts["Prompt"].head.click()
    sections.parts["Export"].head.click()
    controller.set_label(2)
    idle(controller, qtbot)
    assert opened(sections) == ["Task and labels", "Segment", "Export"]
    assert not sections.panel("Prompt").isVisible()
    assert sections.parts["Task and labels"].head.text().startswith("▾")


def test_a_folded_part_sums_itself_up(sections, controller, viewer, tmp_path, qtbot):
    begin(controller, viewer.layers["scan"], tmp_path / "session")
    idle(controller, qtbot)
    assert "scan" in sections.parts["Volume"].head.text()
    sections.parts["Task and labels"].open(False)
    assert sections.parts["Task and labels"].head.text().endswith("organs, liver")


@pytest.mark.parametrize("state", ["nothing", "open", "started", "reviewed"])
def test_whatever_cannot_be_pressed_says_why(sections, controller, viewer, tmp_path, qtbot, state):
    if state == "nothing":
        viewer.layers.clear()
    if state in ("started", "reviewed"):
        begin(controller, viewer.layers["scan"], tmp_path / "session")
    if state == "reviewed":
        controller.review(True)
    idle(controller, qtbot)
    silent = [
        made.objectName()
        for made in sections.findChildren(QAbstractButton)
        if made.objectName() and not made.isEnabled() and "Not now: " not in made.toolTip()
    ]
    assert not silent


def test_a_flag_is_not_forgotten(sections, controller, viewer, tmp_path, qtbot):
    begin(controller, viewer.layers["scan"], tmp_path / "session")
    write(controller, qtbot, (slice(2, 5),) * 3, 1)
    controller.set_status(1, Status.FLAGGED)
    idle(controller, qtbot)
    assert "flagged" in sections.next_step.text()


def test_messages_and_failures_are_shown(sections, controller):
    controller.told.emit("Done.")
    assert sections.message.text() == "Done."
    controller.failed.emit("wanted a volume, got none")
    assert sections.message.text() == "wanted a volume, got none"
