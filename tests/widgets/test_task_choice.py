"""Which tasks fit a volume: told at once, tried on demand; what was chosen by hand stays."""

from __future__ import annotations

import numpy as np
import pytest
from tests.widgets.conftest import settle
from tests.widgets.panelling import idle, sections_of

from napari_ka2er._sample_data import sample_layer
from napari_ka2er.core.student_card import read_student_card
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.model.ranking import TaskFit
from napari_ka2er.widgets import task_ranking
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.task_choice import TaskList, explain

FITS = (TaskFit("lungs", 0.9, "as in training", True), TaskFit("heart", 0.0, "too large", False))


@pytest.fixture
def sections(controller, viewer, qtbot):
    return sections_of(controller, viewer, qtbot)


def open_only(viewer, data, **attributes):
    viewer.layers.clear()
    return viewer.add_image(data, **attributes)


@pytest.mark.parametrize(("name", "task"), [("ct_chest", "lungs"), ("icbm_t1", "brain_tissue")])
def test_the_task_that_fits_is_marked_and_chosen(sections, controller, viewer, qtbot, name, task):
    panel = sections.panel("Task and labels")
    data, attributes, _ = sample_layer(name)
    open_only(viewer, data, **attributes)
    idle(controller, qtbot)
    assert panel.task.name == task
    assert panel.task.currentText() == f"{task} – fits"
    others = {panel.task.itemText(row) for row in range(panel.task.count())}
    assert "hippocampus – does not fit" in others
    assert panel.fits.line.text() == f"{task} fits this volume."
    assert panel.choice.task == task
    panel.task.choose("hippocampus")
    idle(controller, qtbot)
    assert panel.fits.line.text().startswith("hippocampus does not fit: ")
    assert "field of view" in panel.fits.line.text()


def test_a_volume_of_another_kind_gets_one_clear_line(sections, controller, viewer, qtbot):
    panel = sections.panel("Task and labels")
    values = np.random.default_rng(0).exponential(1e4, (8, 60, 60)).astype(np.float32)
    open_only(viewer, values, name="camera", scale=(9, 9, 9))
    idle(controller, qtbot)
    assert panel.fits.line.text().startswith("No task of this student fits this volume")
    assert panel.fits.line.toolTip().count("\n") == panel.task.count() - 1, "a reason for each"
    assert panel.start.isEnabled(), "prompts may still find something"


def test_what_was_chosen_by_hand_stays_until_another_volume_is_chosen(qtbot):
    tasks = TaskList()
    qtbot.addWidget(tasks)
    tasks.offer(["heart", "lungs"])
    tasks.mark(FITS)
    assert tasks.name == "lungs"
    tasks.choose("heart")
    tasks.mark(())
    tasks.mark(FITS)
    assert tasks.name == "heart"
    tasks.forget()
    tasks.mark(FITS[:1])
    assert tasks.name == "lungs"
    assert tasks.itemText(0) == "heart"


def test_what_is_told_of_a_task():
    assert explain("lungs", ()) == ""
    assert explain("lungs", FITS) == "lungs fits this volume."
    assert explain("heart", FITS) == "heart does not fit: too large."
    assert explain("heart", FITS[1:]).startswith("No task of this student fits")


def test_very_large_volumes_are_not_read_unasked(controller, viewer, qtbot, monkeypatch):
    monkeypatch.setattr(task_ranking, "MOST_VOXELS", 100)
    monkeypatch.setattr(task_ranking, "guessed", lambda *_: pytest.fail("it was read"))
    card = read_student_card(sample_folder() / "student")
    assert controller.task_fits(viewer.layers["scan"], card) == ()
    idle(controller, qtbot)


def test_the_student_tries_the_tasks_when_asked(
    sections, controller, viewer, qtbot, student_folder, failures
):
    panel = sections.panel("Task and labels")
    sections.panel("Student").set_student(student_folder)
    sections.panel("Student").mode.setCurrentText("distilled")
    idle(controller, qtbot)
    assert panel.fits.line.text() == "", "nobody noted what its training volumes are like"
    panel.fits.ask.click()
    assert controller.work == "ranking"
    assert panel.fits.ask.text() == "Which task fits?"
    sections.refresh()
    assert panel.fits.ask.text() == "Stop"
    assert not panel.start.isEnabled()
    settle(controller, qtbot)
    assert not failures
    known = controller.task_fits(viewer.layers["scan"], sections.panel("Student").card)
    assert {fit.task for fit in known} == {"one", "two"}
    assert all("found" in fit.reason for fit in known)
    assert panel.fits.line.text()
    assert panel.start.isEnabled()


def test_trying_can_be_stopped(controller, viewer, qtbot, student_folder, failures):
    told = []
    controller.told.connect(told.append)
    choice = Choice(student_folder, "one", "distilled", "cpu")
    controller.rank_tasks(viewer.layers["scan"], choice)
    controller.cancel()
    settle(controller, qtbot)
    assert not failures
    assert told[-1].startswith("Stopped")
