"""The panel to show the student what is meant: points, boxes, scribbles, lassos."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QListWidget, QPushButton

from napari_ka2er.widgets.parts import Panel, allow, button, row, toggle
from napari_ka2er.widgets.tools import OPPOSITE, Tool

_TOOLS = {
    Tool.POSITIVE: ("+ Point", "Click where the label is missing; the student answers."),
    Tool.NEGATIVE: ("− Point", "Click where the label is too much; the student answers."),
    Tool.SCRIBBLE: ("+ Scribble", "Draw a line through what belongs to the label."),
    Tool.SCRIBBLE_NEGATIVE: ("− Scribble", "Draw a line through what does not belong to it."),
    Tool.BOX: ("Box", "Draw a rectangle around the structure."),
    Tool.LASSO: ("Lasso", "Draw around the structure in one slice."),
}
_ROWS = 3  # of the list of objects, seen at once


class PromptPanel(Panel):
    """Buttons for the kinds of prompts, and the objects they were given for."""

    def __init__(self, controller: Any) -> None:
        super().__init__(controller)
        self.tools = {tool: self._tool_button(tool) for tool in _TOOLS}
        self.new_object = button("New object", controller.new_object, "new_object")
        self.accept = button("Accept", controller.accept, "accept")
        self.delete = button("Delete object", self._delete, "delete_object")
        self.show_layers = button("Show layers again", controller.show_layers, "show_layers")
        self.objects = QListWidget()
        self.objects.setObjectName("objects")
        self.objects.setToolTip("The objects; click one to give it more prompts.")
        self._numbers: list[int] = []
        self._shown: list[str] = []
        self.objects.currentRowChanged.connect(self._select)
        made = self.tools
        self.add(row(made[Tool.POSITIVE], made[Tool.NEGATIVE], made[Tool.BOX]))
        self.add(row(made[Tool.SCRIBBLE], made[Tool.SCRIBBLE_NEGATIVE], made[Tool.LASSO]))
        self.add(row(self.new_object, self.accept, self.delete), self.objects, self.show_layers)

    def _tool_button(self, tool: Tool) -> QPushButton:
        return toggle(_TOOLS[tool][0], partial(self._controller.set_tool, tool), f"tool {tool}")

    def summary(self) -> str:
        """Return how many objects there are."""
        n = len(self._numbers)
        return f"{n} object{'s' * (n > 1)}" if n else ""

    def refresh(self) -> None:
        """See `Panel`."""
        view, obstacle = self._controller.view, self.no_layers()
        used = None if obstacle or view is None else view.tool
        for tool, made in self.tools.items():
            key = " Key G changes the sign." if tool in OPPOSITE else ""
            allow(made, _TOOLS[tool][1] + key, obstacle)
            made.setChecked(tool == used)
        self._refresh_objects()
        tip = "Let the next prompt begin another object of this label, beside what is there. Key N."
        allow(self.new_object, tip, obstacle)
        none = "" if self._numbers else "give a prompt first"
        tip = "Take the object as it is; the next prompt begins a new one. Key K."
        allow(self.accept, tip, obstacle or none)
        unchosen = "" if self.objects.currentRow() >= 0 else "choose an object in the list"
        tip = "Take the chosen object away, with its prompts and what they made."
        allow(self.delete, tip, obstacle or unchosen)
        self.show_layers.setVisible(bool(obstacle) and not self.no_session())
        allow(self.show_layers, "Bring back the layers that were removed; nothing is lost.")

    def _refresh_objects(self) -> None:
        controller = self._controller
        objects = list(controller.objects()) if controller.session is not None else []
        names = _names(controller.session)
        texts = [_describe(thing, names) for thing in objects]
        self._numbers = [thing.number for thing in objects]
        with QSignalBlocker(self.objects):
            if texts != self._shown:
                self.objects.clear()
                self.objects.addItems(texts)
                self._shown = texts
            current = controller.current_object
            row = self._numbers.index(current) if current in self._numbers else -1
            self.objects.setCurrentRow(row)
        self.objects.setVisible(bool(texts))
        height = max(self.objects.sizeHintForRow(0), 16)
        self.objects.setFixedHeight(min(len(texts), _ROWS) * height + 6)

    def _delete(self) -> None:
        row = self.objects.currentRow()
        if 0 <= row < len(self._numbers):
            self._controller.delete_object(self._numbers[row])

    def _select(self, row: int) -> None:
        if 0 <= row < len(self._numbers):
            self._controller.select_object(self._numbers[row])


def _names(session: Any) -> dict[int, str]:
    return {} if session is None else {label.value: label.name for label in session.task.labels}


def _describe(thing: Any, names: dict[int, str]) -> str:
    n = len(thing.prompts)
    return f"{thing.number}  {names.get(thing.label, thing.label)}, {n} prompt{'s' * (n != 1)}"
