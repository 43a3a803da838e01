"""What follows from the gate: a version, and the current one with its experts, or a withdrawal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ka2er_training.ingest import withdraw
from ka2er_training.ledger import settle_all
from ka2er_training.lineage import lineage_of
from ka2er_training.registry import add_version, current, promote, student_folder, versions
from ka2er_training.retrain_stages import RoundWork, clear, stopped
from ka2er_training.round_state import (
    ABANDONED,
    LOCK,
    PROMOTED,
    REFUSED,
    RoundState,
    now,
    unfinished,
)
from ka2er_training.verdicts import Verdict
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import read_student_json


def decide(work: RoundWork) -> dict[str, Any]:
    """Make the candidate a version; promote it with its experts, or withdraw the corrections.

    A round that its labels or an expert's loss have stopped has no candidate, only corrections
    to withdraw.  If another student became current by hand meanwhile, the candidate stays one, as
    nobody has compared the two, and the corrections wait for a round from that student.
    """
    if stopped(work):
        moved = withdraw(work.workspace, work.state.number)
        return {"version": None, "status": REFUSED, "withdrawn": moved}
    gate = work.state.result("gate")
    version = _add_version(work, Path(gate["folder"]))
    if not gate["promoted"]:
        moved = withdraw(work.workspace, work.state.number)
        return {"version": version, "status": REFUSED, "withdrawn": moved}
    if why := _overtaken(work, version):
        moved = withdraw(work.workspace, work.state.number)
        return {"version": version, "status": REFUSED, "withdrawn": moved, "reason": why}
    promote(work.workspace, version, gate["reason"])
    return {"version": version, "status": PROMOTED, "withdrawn": []}


def _add_version(work: RoundWork, folder: Path) -> str:
    state, gate = work.state, work.state.result("gate")
    experts = read_student_json(folder)["config"]["experts"]
    # After a refusal the version is the new student itself, which was tried first.
    verdict = Verdict.from_json(gate["verdicts"][-1 if gate["promoted"] else 0])
    lineage = lineage_of(
        None if state.options.from_scratch else state.before,
        {entry["name"]: entry["digest"] for entry in experts},
        packages=[package["digest"] for package in state.packages],
        settings={**asdict(state.options), **asdict(work.workspace.settings.retrain)},
        seeds={"round": state.result("student")["seed"]},
        verdict=verdict,
        number=state.number,
    )
    card = {"lineage": lineage, "created": now(), "metrics": {"student": gate["metrics"]}}
    return add_version(work.workspace, folder, card, verdict)


def _overtaken(work: RoundWork, version: str) -> str:
    """Return why a student that has passed the gate is not promoted: it was not asked about this.

    Empty if the one that it was compared with is current still, or it is itself, after a crash.
    """
    now_current = current(work.workspace)
    if now_current in (work.state.before, version):
        return ""
    return (
        f"{now_current} became current by hand while this round went on from {work.state.before}: "
        f"nobody compared {version} with it (ka2er diff does); --with-refused trains on from it"
    )


def _has_promoted(workspace: Workspace, state: RoundState) -> bool:
    """Return whether the current student is the one that a round made."""
    version = current(workspace)
    if version in (None, state.before) or version not in versions(workspace):
        return False
    lineage = read_student_json(student_folder(workspace, version))["card"].get("lineage") or {}
    packages = [package["digest"] for package in state.packages]
    return (lineage.get("round"), lineage.get("packages")) == (state.number, packages)


def abandon(folder: Path) -> dict[str, Any]:
    """Give up the round that was broken off; its corrections are taken out of training again.

    Raises
    ------
    UserError
        If there is none, it has promoted a student already, or it is at work.
    """
    workspace = Workspace.open(folder)
    with workspace.lock(LOCK):
        state = unfinished(workspace)
        if state is None:
            raise UserError(f"a broken round in {workspace.folder}", "none")
        if _has_promoted(workspace, state):
            got = f"round {state.number}, whose student is current"
            raise UserError("a round before its decision", got, "finish it: --resume")
        settle_all(workspace)
        moved = withdraw(workspace, state.number)
        clear(RoundWork(workspace, state))
        state.status, state.finished = ABANDONED, now()
        state.save(workspace)
    return {"round": state.number, "status": state.status, "withdrawn": moved}
