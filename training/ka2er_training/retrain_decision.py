"""What follows from the gate: a version, and the current one with its experts, or a withdrawal."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ka2er_training.ingest import withdraw
from ka2er_training.ledger import settle_all
from ka2er_training.lineage import lineage_of
from ka2er_training.registry import add_version, current, promote, student_folder
from ka2er_training.retrain_stages import RoundWork, clear, stopped, student_experts
from ka2er_training.round_state import ABANDONED, LOCK, PROMOTED, REFUSED, now, unfinished
from ka2er_training.verdicts import Verdict
from ka2er_training.workspace import Workspace, read_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.student_card import read_student_json


def decide(work: RoundWork) -> dict[str, Any]:
    """Make the candidate a version; promote it with its experts, or withdraw the corrections.

    A round that its labels or an expert's loss have stopped has no candidate, only corrections
    to withdraw.
    """
    if stopped(work):
        moved = withdraw(work.workspace, work.state.number)
        return {"version": None, "status": REFUSED, "withdrawn": moved}
    gate = work.state.result("gate")
    version = _add_version(work, Path(gate["folder"]))
    if not gate["promoted"]:
        moved = withdraw(work.workspace, work.state.number)
        return {"version": version, "status": REFUSED, "withdrawn": moved}
    for name in student_experts(work):
        _use_expert(student_folder(work.workspace, version) / "experts" / name, work, name)
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


def _use_expert(source: Path, work: RoundWork, task: str) -> None:
    """Let an expert of the promoted student be the workspace's."""
    target = work.workspace.expert_folder(task)
    present = target / "expert.json"
    if present.is_file() and read_json(present) == read_json(source / "expert.json"):
        return
    with replacing(target) as partial:
        shutil.copytree(source, partial)


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
        if current(workspace) != state.before:
            got = f"round {state.number}, whose student is current"
            raise UserError("a round before its decision", got, "finish it: --resume")
        settle_all(workspace)
        moved = withdraw(workspace, state.number)
        clear(RoundWork(workspace, state))
        state.status, state.finished = ABANDONED, now()
        state.save(workspace)
    return {"round": state.number, "status": state.status, "withdrawn": moved}
