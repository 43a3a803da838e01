"""What came of a finished round, and which test refused it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ka2er_training.registry import current
from ka2er_training.round_state import REFUSED

if TYPE_CHECKING:
    from ka2er_training.round_state import RoundState
    from ka2er_training.workspace import Workspace

_STOPPING = ("labels", "expert_gate")  # stages that may end a round before its student


def stop_of(state: RoundState) -> tuple[str, str]:
    """Return which stage ended a round before its student, and why; empty if none did."""
    for stage in _STOPPING:
        if why := state.outcome(stage).get("stopped"):
            return stage, str(why)
    return "", ""


def refused_by(state: RoundState) -> str:
    """Return which test refused a round; empty if none did.

    ``"labels"``, ``"expert gate"``, ``"gate"``, or ``"another student"`` that became current by
    hand meanwhile.
    """
    if state.status != REFUSED:
        return ""
    if state.outcome("decide").get("reason"):
        return "another student"
    return (stop_of(state)[0] or "gate").replace("_", " ")


def reason_of(state: RoundState) -> str:
    """Return in one line why a round ended as it did; empty if there was nothing to train."""
    decided, gate = state.outcome("decide"), state.outcome("gate")
    return str(decided.get("reason") or gate.get("reason") or stop_of(state)[1])


def summary(workspace: Workspace, state: RoundState) -> dict[str, Any]:
    """Return what came of a finished round, as plain data."""
    decided = state.outcome("decide")
    return {
        "round": state.number,
        "status": state.status,
        "reason": reason_of(state) or state.status,
        "refused_by": refused_by(state),
        "before": state.before,
        "version": decided.get("version"),
        "current": current(workspace),
        "report": state.result("report").get("report"),
        "seconds": round(sum(stage["seconds"] for stage in state.stages.values()), 1),
        "stages": {name: stage["seconds"] for name, stage in state.stages.items()},
        "withdrawn": decided.get("withdrawn", []),
        "notes": [n for s in ("ingest", "gate") for n in state.outcome(s).get("notes", [])],
    }
