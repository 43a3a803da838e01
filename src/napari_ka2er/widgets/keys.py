"""The keys, as one table: what is bound, what the help shows and what the docs print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from app_model.types import KeyCode, KeyMod
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.review import Status

ANYWHERE = "one of our layers is selected"
_DIGITS = tuple(getattr(KeyCode, f"Digit{n}") for n in range(1, 10))


@dataclass(frozen=True, slots=True)
class Key:
    """A key: how it is written, how napari writes it, what it does, and when."""

    text: str
    code: Any
    what: str
    act: Callable[[Any], object]  # of the controller
    when: str = ANYWHERE


def _flag(controller: Any) -> None:
    session, label = controller.session, controller.label
    if session is not None:
        is_flagged = session.state.statuses.get(label) == Status.FLAGGED
        controller.set_status(label, Status.IN_PROGRESS if is_flagged else Status.FLAGGED)


def _choose(number: int, controller: Any) -> None:
    session = controller.session
    if session is not None and number < len(session.task.values):
        controller.set_label(session.task.values[number])


def _toggle_slice(controller: Any) -> None:
    session = controller.session
    if session is None:
        return
    try:
        axis, index = controller.shown_slice()
    except UserError as error:  # the labels were removed: the other layers have the key, too
        controller.failed.emit(str(error))
        return
    reviewed, shape = session.state.reviewed, session.volume.shape
    controller.mark_slice_reviewed(not reviewed.has_slice(axis, index, shape))


_CTRL = KeyMod.CtrlCmd
# napari's own keys on layers of labels, points and shapes leave G H J K N Q U W free; 1-9 and
# Ctrl+Z are napari's, too, but on our own layers they do what people expect of this widget.
KEYS: tuple[Key, ...] = (
    Key("Q", KeyCode.KeyQ, "previous label", lambda c: c.step_label(-1)),
    Key("W", KeyCode.KeyW, "next label", lambda c: c.step_label(1)),
    Key("G", KeyCode.KeyG, "prompt: + or −; brush or eraser", lambda c: c.flip_sign()),
    Key("N", KeyCode.KeyN, "the next prompt begins a new object", lambda c: c.new_object()),
    Key("K", KeyCode.KeyK, "accept the object", lambda c: c.accept()),
    Key("U", KeyCode.KeyU, "go to the next uncertain slice", lambda c: c.next_uncertain_slice()),
    Key("Shift+K", KeyMod.Shift | KeyCode.KeyK, "this slice is right, or not yet", _toggle_slice),
    Key("H", KeyCode.KeyH, "hide the labels, or show them", lambda c: c.hide()),
    Key("J", KeyCode.KeyJ, "flag the label, or take the flag away", _flag),
    Key("Ctrl+Z", _CTRL | KeyCode.KeyZ, "undo", lambda c: c.undo()),
    Key("Ctrl+Shift+Z", _CTRL | KeyMod.Shift | KeyCode.KeyZ, "redo", lambda c: c.redo()),
    *(
        Key(str(n + 1), code, f"choose label {n + 1} of the table", partial(_choose, n))
        for n, code in enumerate(_DIGITS)
    ),
)
NAPARIS = (("[ and ]", "change the size of the brush"), ("Space", "pan while it is held down"))


def bindings(controller: Any) -> dict[Any, Callable[[], object]]:
    """Return what each key does, to be bound to our layers."""
    return {key.code: partial(key.act, controller) for key in KEYS}


def table() -> list[tuple[str, str]]:
    """Return keys and what they do, the digits as one row, napari's useful ones at the end."""
    rows = [(key.text, key.what) for key in KEYS if not key.text.isdigit()]
    return [*rows, ("1 … 9", "choose the label of this number in the table"), *NAPARIS]


def markdown() -> str:
    """Return the table for the docs."""
    lines = ["| Key | What |", "|---|---|", *(f"| {key} | {what} |" for key, what in table())]
    return "\n".join(lines) + "\n"


class KeysHelp(QDialog):
    """A small window with the keys; the main window stays usable."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        rows = "".join(f"<tr><td><b>{k}</b>&nbsp;&nbsp;</td><td>{w}</td></tr>" for k, w in table())
        text = QLabel(f"<p>While {ANYWHERE}:</p><table>{rows}</table>")
        QVBoxLayout(self).addWidget(text)
