"""The panel to segment automatically, and to see how far long work is."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QProgressBar

from napari_ka2er.widgets.parts import Panel, allow, button, check, emphasise, note, row

WORKS = {
    "starting": "Starting",
    "segmenting": "Segmenting",
    "answering": "Answering",
    "tool": "Correcting",
    "map": "Making the map",
    "ranking": "Trying the tasks",
    "filling": "Preparing",
}


class SegmentPanel(Panel):
    """Lets the student segment all labels of the task, or only the one that is worked on."""

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        self.segment = button("Segment all", controller.segment, "segment")
        self.one = button("Only this label", controller.segment_label, "segment_label")
        self.cancel = button("Cancel", controller.cancel, "cancel")
        self.bar, self.prepared = QProgressBar(), note("prepared")
        self.prepare = check("Prepare in the background", controller.set_filling, "prepare")
        self.bar.setRange(0, 100)
        self.bar.setObjectName("progress")
        self.add(row(self.segment, self.one, self.cancel), self.bar)
        self.add(row(self.prepare, self.prepared))
        controller.progressed.connect(self._progress)

    def summary(self) -> str:
        """Return what is under way."""
        work = str(self._controller.work)
        return WORKS.get(work, work)

    def refresh(self) -> None:
        """See `Panel`."""
        controller = self._controller
        obstacle, work = self.no_session() or self.busy(), controller.work
        tip = "Segment all labels anew; what you draw meanwhile stays. Undo takes it back."
        allow(self.segment, tip, obstacle)
        session = controller.session
        is_first = session is not None and not session.state.history.n_done
        emphasise(self.segment, is_first and not obstacle)
        tip = "Let the student segment the chosen label only; other labels stay as they are."
        allow(self.one, tip, obstacle)
        tip = "Encode the volume while nothing else runs, so that prompts are answered at once."
        allow(self.prepare, tip, self.no_session())
        self.prepare.setChecked(bool(controller.is_filling))
        share = controller.filled_share if session is not None else 0.0
        self.prepared.setText(f"{100 * share:.0f} % prepared" if share else "")
        allow(self.cancel, "Stop what is running; what was computed is kept.", _unstoppable(work))
        self.bar.setVisible(bool(controller.is_long))
        if not work:
            self.bar.setValue(0)
            self.bar.setFormat("")

    def _progress(self, share: float, what: str) -> None:
        if not self._controller.work:  # it prepares, and says so below
            self.prepared.setText(f"{100 * share:.0f} % prepared")
            return
        self.bar.setValue(round(100 * share))
        self.bar.setFormat(f"{what}  %p %")


def _unstoppable(work: str) -> str:
    """Return why there is nothing to cancel, or nothing."""
    if work == "tool":
        return "a tool cannot be stopped; Undo takes it back"
    return "" if work else "nothing is running"
