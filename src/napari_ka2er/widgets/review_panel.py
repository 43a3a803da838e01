"""The panel to look where the student is unsure, and to say what was checked."""

from __future__ import annotations

from typing import Any

from qtpy.compat import isalive
from qtpy.QtWidgets import QProgressBar

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.review import Reviewed
from napari_ka2er.widgets.parts import Panel, allow, button, check, emphasise, note, row

_AXES = "ZYX"


class ReviewPanel(Panel):
    """Maps as layers, the way through the slices, and the reviewed region."""

    def __init__(self, controller: Any, viewer: Any) -> None:
        super().__init__(controller)
        self._viewer = viewer
        self._told_of: Any = None  # the session of which it was said what was lost
        show = controller.show_uncertainty, controller.show_expert_map
        self.uncertainty = button("Show uncertainty", show[0], "show_uncertainty")
        self.expert_map = button("Show expert map", show[1], "show_expert_map")
        following = controller.next_uncertain_slice
        self.next = button("Next uncertain slice", following, "next_uncertain_slice")
        self.slice = check("This slice is right", controller.mark_slice_reviewed, "review_slice")
        self.whole = check("The whole volume is right", controller.review, "review_volume")
        self.share, self.bar = note("reviewed"), QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.add(row(self.uncertainty, self.expert_map), row(self.next, self.slice))
        self.add(row(self.whole), self.share, self.bar)
        viewer.dims.events.current_step.connect(self._look)
        viewer.dims.events.order.connect(self._look)
        viewer.dims.events.ndisplay.connect(self._turn)

    def summary(self) -> str:
        """Return how much was reviewed."""
        session = self._controller.session
        if session is None:
            return ""
        share = reviewed_share(session.state.reviewed, session.volume.shape)
        return f"{100 * share:.0f} % reviewed" if share else ""

    def refresh(self) -> None:
        """See `Panel`."""
        none, gone = self.no_session(), self.no_layers()
        tip = "Show as a layer how unsure the student is: magenta is unsure."
        allow(self.uncertainty, tip, gone or self.busy())
        tip = "Show as layers how much each expert was trusted, and where."
        allow(self.expert_map, tip, gone or self.busy())
        tip = "Go to the slice the student is least sure of among those not reviewed. Key U."
        allow(self.next, tip, gone or self.busy())
        tip = "Say that the labels of the slice that is shown are right. Key Shift+K."
        allow(self.slice, tip, gone or self._no_slice())
        tip = "Say that the labels are right everywhere: training will trust them."
        allow(self.whole, tip, none)
        self._refresh_region()
        self._tell_set_aside()

    def _no_slice(self) -> str:
        return "go to 2D display first: Ctrl+Y" if self._viewer.dims.ndisplay == 3 else ""

    def _turn(self, event: Any = None) -> None:
        if isalive(self):
            self.refresh()

    def _tell_set_aside(self) -> None:
        """Say once of a session that steps of it were lost: what they made is to be looked at."""
        session = self._controller.session
        if session is None or session is self._told_of:
            return
        self._told_of = session
        if session.n_set_aside:
            got = f"damage: {session.n_set_aside} set aside in its folder (damaged-….jsonl)"
            error = UserError("all steps of the session", got, "look at the labels again")
            self._controller.failed.emit(str(error))

    def _refresh_region(self) -> None:
        session = self._controller.session
        self.bar.setVisible(session is not None)
        self.share.setVisible(session is not None)
        if session is None:
            for box in (self.slice, self.whole):
                box.setChecked(False)
            return
        reviewed, shape = session.state.reviewed, session.volume.shape
        share = reviewed_share(reviewed, shape)
        self.bar.setValue(round(100 * share))
        self.share.setText(describe(reviewed, shape))
        self.whole.setChecked(reviewed.is_whole(shape))
        emphasise(self.slice, bool(session.state.history.n_done) and not share)
        self._look()

    def _look(self, event: Any = None) -> None:
        """Say whether the slice that is shown was reviewed."""
        session = self._controller.session if isalive(self) else None
        if session is None or self.no_layers():
            return
        try:
            axis, index = self._controller.shown_slice()
        except UserError:  # in 3D no slice is shown
            self.slice.setChecked(False)
            self.slice.setText("This slice is right")
            return
        reviewed, shape = session.state.reviewed, session.volume.shape
        self.slice.setChecked(reviewed.has_slice(axis, index, shape))
        self.slice.setText(f"Slice {_AXES[axis]} {index} is right")


def reviewed_share(reviewed: Reviewed, shape: tuple[int, int, int]) -> float:
    """Return the share of a volume's voxels that was reviewed, in [0, 1], without a mask."""
    if reviewed.whole:
        return 1.0
    left = 1.0
    for slices, n in zip(reviewed.slices, shape, strict=True):
        left *= 1 - len(slices) / n
    return 1 - left


def describe(reviewed: Reviewed, shape: tuple[int, int, int]) -> str:
    """Return what was reviewed in words."""
    if reviewed.is_whole(shape):
        return "All of the volume is reviewed."
    if reviewed.is_empty():
        return "Nothing is reviewed yet; training ignores what is not."
    parts = [f"{len(s)} of {n} {a}" for s, n, a in zip(reviewed.slices, shape, _AXES, strict=True)]
    counts = ", ".join(part for part in parts if not part.startswith("0 "))
    return f"{100 * reviewed_share(reviewed, shape):.0f} % reviewed: slices {counts}."
