"""What can happen in a session, each as one record of its log.

A session's state is what its actions make of an empty mask, one after the other; that is why a
session can be restored, and replayed without a window.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Prompt, prompt_from_json, prompt_to_json
from napari_ka2er.core.task import Label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ka2er.core.edits import Delta


@dataclass(frozen=True, slots=True)
class PromptedObject:
    """One structure that prompts are given for.

    Parameters
    ----------
    number : int
        Identifies it in the session.
    label : int
        The label its voxels get.
    corrects : bool
        Whether it starts from the voxels that have the label already, or from nothing (another
        lesion, say, beside those that are there).
    """

    number: int
    label: int
    corrects: bool = True


@dataclass(frozen=True, slots=True)
class Edit:
    """The mask changed.

    Parameters
    ----------
    delta : Delta
        What changed.
    source : str
        Who did it: ``"automatic"``, ``"prompt"``, ``"brush"`` or ``"tool"``.
    object_number : int, optional
        The object whose prompts made it.
    joins : bool
        Whether undo takes it back together with the change before it.
    detail : mapping, optional
        What was asked for: a tool's name and parameters, a predicted Dice; plain data.
    """

    delta: Delta
    source: str
    object_number: int | None = None
    joins: bool = False
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PromptChange:
    """A prompt was added (`before` is None), moved, or deleted (`after` is None)."""

    object_number: int
    number: int
    before: Prompt | None
    after: Prompt | None
    joins: bool = False


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """An object was added, or taken away."""

    object: PromptedObject
    added: bool = True
    joins: bool = False


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A label was added, or got another name or color."""

    label: Label


@dataclass(frozen=True, slots=True)
class StatusChange:
    """The work on a label got a status."""

    label: int
    status: str


@dataclass(frozen=True, slots=True)
class LockChange:
    """A label was locked against changes, or unlocked."""

    label: int
    locked: bool


@dataclass(frozen=True, slots=True)
class ReviewChange:
    """A slice, or the whole volume (`axis` is None), was marked as reviewed or not.

    In `version` 3 slices that were marked before the whole volume stay when that is taken back; in
    2 they do not.  In logs of before, 1, they do, and a slice stays so while the whole volume is.
    """

    axis: int | None
    index: int
    reviewed: bool
    version: int = 1


@dataclass(frozen=True, slots=True)
class ReviewLoss:
    """Labels changed in a box that nobody saw change: slices through it are not reviewed any more.

    Parameters
    ----------
    bounds : sequence of three (int, int)
        Where the box starts and stops along (Z, Y, X).
    """

    bounds: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class StudentChange:
    """From here on this student, in this mode, makes the results."""

    version: str
    mode: str


@dataclass(frozen=True, slots=True)
class Undo:
    """The last step was taken back."""


@dataclass(frozen=True, slots=True)
class Redo:
    """The last step taken back was made again."""


Change = Edit | PromptChange | ObjectChange  # what undo takes back
Action = (
    Change
    | LabelChange
    | StatusChange
    | LockChange
    | ReviewChange
    | ReviewLoss
    | StudentChange
    | Undo
    | Redo
)

_PLAIN: dict[str, type] = {
    "status": StatusChange,
    "lock": LockChange,
    "review": ReviewChange,
    "unreview": ReviewLoss,
    "student": StudentChange,
    "undo": Undo,
    "redo": Redo,
}
_NAMES = {kind: name for name, kind in _PLAIN.items()}


def action_to_json(action: Action) -> dict[str, Any]:
    """Return plain data that `action_from_json` takes back; the delta of an edit is left out."""
    match action:
        case Edit():
            return {
                "kind": "edit",
                "source": action.source,
                "object": action.object_number,
                "joins": action.joins,
                "detail": action.detail,
            }
        case PromptChange():
            before, after = (p and prompt_to_json(p) for p in (action.before, action.after))
            ids = {"object": action.object_number, "number": action.number, "joins": action.joins}
            return {"kind": "prompt", **ids, "before": before, "after": after}
        case ObjectChange():
            ends = {"added": action.added, "joins": action.joins}
            return {"kind": "object", "object": asdict(action.object), **ends}
        case LabelChange():
            return {"kind": "label", "label": asdict(action.label)}
        case _:
            return {"kind": _NAMES[type(action)], **asdict(action)}


def action_from_json(data: dict[str, Any], delta: Delta | None = None) -> Action:
    """Build an action from what `action_to_json` returned.

    Raises
    ------
    UserError
        If the kind is unknown or a field is missing or unknown.
    """
    f = {key: value for key, value in data.items() if key != "kind"}
    try:
        match data["kind"]:
            case "edit" if delta is not None:
                return Edit(delta, f["source"], f["object"], f["joins"], f["detail"])
            case "prompt":
                before, after = (p and prompt_from_json(p) for p in (f["before"], f["after"]))
                return PromptChange(f["object"], f["number"], before, after, f["joins"])
            case "object":
                return ObjectChange(PromptedObject(**f["object"]), f["added"], f["joins"])
            case "label":
                return LabelChange(Label(**f["label"]))
            case kind:
                action: Action = _PLAIN[kind](**f)
                return action
    except (KeyError, TypeError) as error:
        raise UserError("an action of a session's log", f"{data}") from error
