"""The panel to choose a task, begin or continue a session, and care for its labels."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.sessions import SessionSummary
from napari_ka2er.model.ranking import TaskFit
from napari_ka2er.widgets.label_sizes import counting
from napari_ka2er.widgets.label_table import LabelTable
from napari_ka2er.widgets.parts import (
    Panel,
    allow,
    button,
    caption,
    combo,
    emphasise,
    line,
    note,
    row,
    small,
)
from napari_ka2er.widgets.restore import Earlier
from napari_ka2er.widgets.runner import LatestRunner
from napari_ka2er.widgets.services import Choice
from napari_ka2er.widgets.student_panel import StudentPanel
from napari_ka2er.widgets.task_choice import TaskFits, TaskList
from napari_ka2er.widgets.volume_panel import VolumePanel

_COUNT_MS = 700  # after the last change: counting voxels is for when nothing else happens


class LabelPanel(Panel):
    """Lets people choose what to segment, and shows what the labels of the session are like.

    Parameters
    ----------
    controller : AnnotateController
        Does it.
    volume, student : VolumePanel, StudentPanel
        What was chosen there.

    Signals
    -------
    chosen()
        What Start would begin has changed.
    """

    chosen = Signal()

    def __init__(self, controller: Any, volume: VolumePanel, student: StudentPanel) -> None:
        super().__init__(controller)
        self._volume, self._student = volume, student
        self._layer = volume.layer
        self._earlier: list[SessionSummary] = []
        self._filled: object = None  # the session that the table shows
        self._counted: tuple[Any, ...] = ()  # what the sizes in it are of
        self.task, self.fits = TaskList(), TaskFits(controller)
        self.start = small(button("Start", self._start, "start"))
        self.earlier = combo("earlier", "Sessions on this volume that were not finished.")
        self.restore = small(button("Continue", self._restore, "restore"))
        self.about_earlier = note("about_earlier")
        self.table = LabelTable()
        self.new_name = line("new_label", "The name of a label to add.", "another label")
        self.add_label = small(button("Add", self._add_label, "add_label"))
        self.finish = small(button("Finish", controller.finish, "finish"))
        self._runner = LatestRunner(self)
        self._timer = QTimer(self, singleShot=True, interval=_COUNT_MS)
        self._lay_out()
        self._connect()
        self._list_tasks()

    def _lay_out(self) -> None:
        self.add(row(caption("Task"), self.task, self.start, self.finish), self.fits)
        self.add(row(self.earlier, self.restore), self.about_earlier)
        self.add(self.table, row(self.new_name, self.add_label))

    def _connect(self) -> None:
        controller = self._controller
        self._volume.chosen.connect(self._choose_volume)
        self._student.chosen.connect(self._list_tasks)
        self.task.chosen.connect(self.chosen)
        self.new_name.returnPressed.connect(self._add_label)
        self.table.chosen.connect(controller.set_label)
        self.table.edited.connect(controller.define_label)
        self.table.shown.connect(controller.set_label_visible)
        self.table.locked.connect(controller.set_locked)
        self.table.status.connect(controller.set_status)
        self._timer.timeout.connect(self._count)
        self._runner.finished.connect(self.table.show_sizes)
        self.destroyed.connect(self._runner.close)

    # -------------------------------------------------------------- refresh

    @property
    def choice(self) -> Choice | None:
        """The chosen student, task, mode and device, or None if there is no student."""
        student = self._student
        if student.card is None or not self.task.name:
            return None
        mode, device = student.mode.currentText(), student.device.currentText()
        return Choice(student.card.folder, self.task.name, mode, device)

    def obstacle(self) -> str:
        """Return why no session can begin, or nothing."""
        return self.busy() or self._volume.obstacle() or self._student.obstacle()

    @property
    def can_continue(self) -> bool:
        """Whether there is an earlier session to go on with."""
        return bool(self._earlier)

    def summary(self) -> str:
        """Return the task and the label that is worked on."""
        session = self._controller.session
        if session is None:
            return self.task.name
        labels = {label.value: label.name for label in session.task.labels}
        return f"{session.task.name}, {labels.get(self._controller.label, '')}"

    def refresh(self) -> None:
        """See `Panel`."""
        session, obstacle = self._controller.session, self.obstacle()
        is_idle = session is None
        self.start.setText("Start" if is_idle else "Start anew")
        allow(self.start, "Load the student and begin a session on this volume.", obstacle)
        emphasise(self.start, is_idle and not obstacle)
        allow(self.finish, "End the session; every step of it is kept.", self.no_session())
        allow(self.add_label, "Add a label of this name to the session.", self.no_session())
        self.finish.setVisible(not is_idle)
        self._refresh_fits(is_idle, obstacle)
        self._refresh_earlier(is_idle, obstacle)
        for part in (self.table, self.new_name, self.add_label):
            part.setVisible(not is_idle)
        if session is not None:
            self._refresh_labels(session)

    def _refresh_fits(self, is_idle: bool, obstacle: str) -> None:
        layer, card = self._volume.layer, self._student.card
        fits: tuple[TaskFit, ...] = ()
        if layer is not None and card is not None and not self._volume.obstacle():
            fits = tuple(self._controller.task_fits(layer, card))
        self.task.mark(fits)
        self.fits.setVisible(is_idle)
        self.fits.refresh(self.task.name, fits, self._rank, obstacle)

    def _refresh_earlier(self, is_idle: bool, obstacle: str) -> None:
        if is_idle:
            self._list_earlier()
        self.about_earlier.setVisible(is_idle and bool(self.about_earlier.text()))
        is_shown = is_idle and bool(self._earlier)
        self.earlier.setVisible(is_shown)
        self.restore.setVisible(is_shown)
        allow(self.restore, "Go on with this session; everything in it is there.", obstacle)
        if is_shown:
            emphasise(self.restore, not obstacle)

    def _refresh_labels(self, session: Any) -> None:
        state = session.state
        if session is not self._filled:
            self._filled = session
            self.table.forget()
        self.table.hidden = set(getattr(self._controller.view, "hidden", ()))
        self.table.show_labels(session.task.labels, state.statuses, state.locked)
        self.table.show_chosen(self._controller.label)
        if self._controller.drawn != self._counted:
            self._timer.start()

    def _count(self) -> None:
        """Count the labels' voxels in the background."""
        session, view = self._controller.session, self._controller.view
        if session is None or view is None or view.labels is None:
            return
        self._counted, shown = self._controller.drawn, np.asarray(view.labels.data)
        self._runner.submit(counting(shown, session.volume.geometry, session.task.values))

    # -------------------------------------------------------------- actions

    def _start(self) -> None:
        layer, choice = self._volume.layer, self.choice
        if layer is not None and choice is not None:
            self._controller.start(layer, choice)

    def _restore(self) -> None:
        layer, choice, index = self._volume.layer, self.choice, self.earlier.currentIndex()
        if layer is not None and choice is not None and 0 <= index < len(self._earlier):
            self._controller.restore(layer, self._earlier[index].folder, choice)

    def _rank(self) -> None:
        layer, choice = self._volume.layer, self.choice
        if layer is not None and choice is not None:
            self._controller.rank_tasks(layer, choice)

    def _choose_volume(self) -> None:
        if self._volume.layer is not self._layer:
            self._layer = self._volume.layer
            self.task.forget()
        self.chosen.emit()

    def _list_tasks(self) -> None:
        card = self._student.card
        self.task.offer(() if card is None else [task.name for task in card.tasks])
        self.chosen.emit()

    def _list_earlier(self) -> None:
        layer = self._volume.layer
        usable = layer is not None and not self._volume.obstacle()
        known = self._controller.earlier(layer) if usable else Earlier()
        self.about_earlier.setText("\n".join(known.lines()))
        unread = [f"{folder}: {why}" for folder, why in known.unreadable.items()]
        self.about_earlier.setToolTip("\n".join(unread))
        earlier = known.sessions
        if earlier != self._earlier:
            self._earlier = earlier
            self.earlier.clear()
            self.earlier.addItems([introduce(summary) for summary in earlier])

    def _add_label(self) -> None:
        name = self.new_name.text().strip()
        if self._controller.session is None or not name:
            self.new_name.setFocus()
            return
        self._controller.add_label(name)
        self.new_name.clear()


def introduce(summary: SessionSummary) -> str:
    """Return what to tell about an earlier session in a few words."""
    when = datetime.fromtimestamp(summary.time_s) if summary.time_s else None
    begun = f"{when:%d %b %H:%M}, " if when else ""
    state = " (open elsewhere)" if summary.is_open else ""
    return f"{begun}{summary.task}, {summary.n_actions} steps{state}"
