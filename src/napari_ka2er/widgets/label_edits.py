"""What people do to a session's labels, to the reviewed region, and with the mouse."""

from __future__ import annotations

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.review import Status
from napari_ka2er.core.session import Session
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

    def add_label(self, name: str) -> None:
        """Add a label above all others, and choose it."""

        def add(session: Session) -> int:
            value = max(session.task.values) + 1  # here: another may be added before
            session.set_label(Label(value, name))
            return value

        self._act(add, self.set_label)

    def define_label(self, label: Label) -> None:
        """Add a label, or give the one with its value another name or colour."""
        self._act(lambda session: session.set_label(label))

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

    def _reveal(self, *labels: int) -> None:
        """Show labels that were hidden: nobody would see what is painted."""
        hidden = frozenset() if self.view is None or self.session is None else self.view.hidden
        for value in sorted(hidden & set(labels)):
            self.set_label_visible(value, True)
            name = self._need().session.task.label(value).name
            self.told.emit(f"{name} is shown again, as it is worked on.")

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
            If there is no session, the layers were removed, or the volume is shown in 3D.
        """
        self._need()
        if self._viewer.dims.ndisplay == 3:
            raise UserError("a slice that is shown", "3D display", "go to 2D display: Ctrl+Y")
        if self.view is None or self.view.labels is None:
            raise UserError("the labels in the viewer", "none", "show the layers again")
        dims, layer = self._viewer.dims, self.view.labels
        return slice_axis(dims, layer), slice_index(dims, layer)

    # --------------------------------------------------------------- tools

    def set_tool(self, tool: Tool) -> None:
        """Choose what the mouse does."""
        if self.view is not None:
            if tool == Tool.BRUSH:
                self._reveal(self.label)
            self.view.set_tool(tool)

    def flip_sign(self) -> None:
        """Go from positive to negative prompts, or from the brush to the eraser, or back."""
        if self.view is not None and self.view.tool is not None:
            self.set_tool(OPPOSITE.get(self.view.tool, Tool.POSITIVE))

    def hide(self) -> None:
        """Hide the labels, or show them again."""
        if self.view is not None and self.view.labels is not None:
            self.view.labels.visible = not self.view.labels.visible
