"""What to do next, at every state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from napari_ka2er.core.review import Status


class Stage(IntEnum):
    """How far the work is."""

    VOLUME = 0
    START = 1
    SEGMENT = 2
    CORRECT = 3
    EXPORT = 4


@dataclass(frozen=True, slots=True)
class Advice:
    """The stage of the work, and a line for the user."""

    stage: Stage
    text: str


def advise(controller: Any, labels: Any) -> Advice:
    """Return what to do next.

    Parameters
    ----------
    controller : AnnotateController
        What was done so far.
    labels : LabelPanel
        What was chosen to begin with.
    """
    session = controller.session
    if session is None:
        return _before_start(controller, labels)
    stage = _stage(session)
    if controller.view is None or not controller.view.is_complete:
        text = "A layer was removed; nothing is lost. Press Show layers again, under Prompt."
        return Advice(stage, text)
    if controller.is_exporting:
        text = "Writing the package. You may go on; what you do now is not in it."
        return Advice(stage, text)
    if stage is Stage.EXPORT and controller.is_exported:
        text = "Exported. Open Train, or choose the next volume and press Start anew."
        return Advice(stage, text)
    return Advice(stage, _UNDER_WAY.get(controller.work) or _in_session(session, stage))


_UNDER_WAY = {
    "starting": "Loading; this takes some seconds.",
    "segmenting": "Segmenting. You may look around; prompts are answered afterwards.",
    "map": "Making the map. You may look around.",
    "ranking": "Trying the tasks. You may look around; Stop ends it.",
}


def _before_start(controller: Any, labels: Any) -> Advice:
    if controller.work in ("starting", "ranking"):
        return Advice(Stage.START, _UNDER_WAY[controller.work])
    obstacle = labels.obstacle()
    if "open a volume" in obstacle:
        return Advice(Stage.VOLUME, "Open a volume: press Open… or Sample.")
    if obstacle:
        return Advice(Stage.START, f"{obstacle[0].upper()}{obstacle[1:]}.")
    again = " Continue takes up earlier work." if labels.can_continue else ""
    return Advice(Stage.START, f"Choose a task and press Start.{again}")


def _stage(session: Any) -> Stage:
    if session.state.reviewed.is_whole(session.volume.shape):
        return Stage.EXPORT
    is_begun = session.state.history.n_done or not session.state.reviewed.is_empty()
    return Stage.CORRECT if is_begun else Stage.SEGMENT


def _in_session(session: Any, stage: Stage) -> str:
    if stage is Stage.SEGMENT:
        return "Press Segment all, or click on the structure with + Point."
    if stage is Stage.EXPORT:
        return "Press Export package… (for training) or Save labels… (as a file)."
    if Status.FLAGGED in session.state.statuses.values():
        return "A label is flagged. Correct what is wrong, or ask somebody."
    if not session.state.reviewed.is_empty():
        return "Correct and mark what is right; Export package… takes the marked slices, or Save."
    return "Click where it is wrong, or paint. Then open Review and mark what is right."
