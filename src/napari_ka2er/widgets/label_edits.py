"""What people do to a session's labels, to the reviewed region, and with the mouse."""

from __future__ import annotations

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.review import Status
from napari_ka2er.core.task import Label
from napari_ka2er.widgets.looking import slice_axis, slice_index
from napari_ka2er.widgets.session_base import SessionBase
from napari_ka2er.widgets.tools import OPPOSITE, Tool


class LabelEdits(SessionBase):
    """Labels, review and the choice of tools; see `SessionBase`."""

    # --------------------------------------------------- labels and review

    def set_label(self, value: int) -> None:
        """Choose the label that prompts and the brush are for."""
        self.label = value
        if self.view is not None:
            self.view.set_label(value)
        self._note()

    def step_label(self, step: int) -> None:
        """Choose the next (1) or the previous (-1) label."""
        if self.session is not None:
            values = self.session.task.values
            place = values.index(self.label) if self.label in values else 0
            self.set_label(values[(place + step) % len(values)])

    def define_label(self, label: Label, *, chosen: bool = False) -> None:
        """Add a label, or give the one with its value another name or colour.

        `chosen`: it is then the one that is worked on.
        """
        choose = (lambda _: self.set_label(label.value)) if chosen else None
        self._act(lambda session: session.set_label(label), choose)

    def set_status(self, label: int, status: Status) -> None:
        """Say how far the work on a label is."""
        self._act(lambda session: session.set_status(label, status))

    def set_locked(self, label: int, locked: bool) -> None:
        """Keep a label from losing and gaining voxels, or allow it again."""
        self._act(lambda session: session.set_locked(label, locked))

    def set_label_visible(self, label: int, visible: bool) -> None:
        """Show a label, or make it clear."""
        if self.view is not None:
            self.view.set_label_visible(label, visible)
        self._note()

    def review(self, is_reviewed: bool) -> None:
        """Vouch for the labels of the whole volume, or no longer."""
        self._act(lambda session: session.review_volume(is_reviewed))

    def mark_slice_reviewed(self, is_reviewed: bool) -> None:
        """Vouch for the labels of the slice that is shown, or no longer."""
        with self._reporting():
            axis, index = self.shown_slice()
            self._act(lambda session: session.review_slice(axis, index, is_reviewed))

    def shown_slice(self) -> tuple[int, int]:
        """Return the axis (0, 1, 2: Z, Y, X) across which slices are shown, and which is.

        Raises
        ------
        UserError
            If there is no session, or the layers were removed.
        """
        self._need()
        if self.view is None or self.view.labels is None:
            raise UserError("the labels in the viewer", "none", "show the layers again")
        dims, layer = self._viewer.dims, self.view.labels
        return slice_axis(dims, layer), slice_index(dims, layer)

    # --------------------------------------------------------------- tools

    def set_tool(self, tool: Tool) -> None:
        """Choose what the mouse does."""
        if self.view is not None:
            self.view.set_tool(tool)

    def flip_sign(self) -> None:
        """Go from positive to negative prompts, or back."""
        if self.view is not None and self.view.tool is not None:
            self.view.set_tool(OPPOSITE.get(self.view.tool, Tool.POSITIVE))

    def hide(self) -> None:
        """Hide the labels, or show them again."""
        if self.view is not None and self.view.labels is not None:
            self.view.labels.visible = not self.view.labels.visible
