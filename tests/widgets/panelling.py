"""A session in a viewer without a student, for panels: everything but the model is real."""

from __future__ import annotations

import numpy as np

from napari_ka2er.core.sessions import create_session
from napari_ka2er.core.student_card import StudentCard
from napari_ka2er.core.task import Label, Task
from napari_ka2er.widgets.jobs import Started
from napari_ka2er.widgets.layers import source_of
from napari_ka2er.widgets.panels import panels
from napari_ka2er.widgets.sections import Sections
from napari_ka2er.widgets.services import Choice
from napari_ka2er.widgets.session_view import Place

TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen"), Label(5, "vessel")))


def idle(controller, qtbot):
    """Wait until nothing waits or runs."""
    qtbot.wait(5)
    qtbot.waitUntil(lambda: controller.is_idle, timeout=60_000)
    qtbot.wait(5)


def begin(controller, layer, folder, task=TASK, session=None):
    """Begin a session on a layer as `start` does, or go on with one, but for the student."""
    source = source_of(layer)
    session = session or create_session(folder, source.read(), task)
    choice = Choice(folder, task.name, "distilled")
    card = StudentCard(folder, "v0007", (task,), (), ())
    controller._begun_on = Place(layer, source.place, source.is_oblique)
    controller._begin(Started(session, choice, card, task, folder, np.array(session.mask)))
    return session


def sections_of(controller, viewer, qtbot):
    """All panels, shown and refreshed as in the widget."""
    sections = Sections(controller, panels(controller, viewer))
    qtbot.addWidget(sections)
    controller.changed.connect(sections.refresh)
    sections.refresh()
    sections.show()
    return sections


def write(controller, qtbot, region, value, source="brush"):
    """Write a label into a box of the session, as the brush does."""

    def act(session):
        session.write(region, np.full(session.mask[region].shape, value, np.uint8), source)

    controller._act(act)
    idle(controller, qtbot)
