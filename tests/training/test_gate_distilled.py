from __future__ import annotations

import dataclasses
import json
import logging

import pytest
from tests.training.rounds import make_workspace
from tests.training.test_gate import BASE, rows, shifted

from ka2er_training import retrain_stages
from ka2er_training.gate import judge
from ka2er_training.gate_distilled import look_without_experts, with_look
from ka2er_training.retrain_stages import RoundWork, judge_student
from ka2er_training.round_state import RoundOptions, new_round
from ka2er_training.settings import GateSettings
from ka2er_training.trying import Decision, Scored
from ka2er_training.verdicts import Verdict
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.model.checkpoint import load_student, save_student

GOOD = judge(rows(hip=BASE), rows(hip=shifted(BASE, 0.1)), (), GateSettings())
BAD = judge(rows(hip=BASE), rows(hip=shifted(BASE, -0.1)), (), GateSettings())


REASON = f"without experts (distilled mode): {BAD.reason}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace, a student that calls everything foreground, and one that finds nothing."""
    folder = tmp_path_factory.mktemp("distilled")
    workspace = make_workspace(folder)
    places = []
    for name, bias in (("all", 20.0), ("nothing", -20.0)):
        student = load_student(workspace.folder / "students" / "v0001").student
        student.foundation.net.out.conv.conv.bias.data.fill_(bias)
        experts = {task: workspace.expert_folder(task) for task in workspace.tasks}
        save_student(folder / name, student, {}, experts=experts)
        places.append(folder / name)
    return workspace, *places


def test_a_loss_without_experts_is_seen_on_every_task(made):
    workspace, everything, nothing = made
    seen = look_without_experts(workspace, everything, nothing)
    assert not seen.promoted
    assert [task.task for task in seen.tasks] == ["balls", "others"]
    assert all(task.before > 0.01 and task.after == 0 for task in seen.tasks)
    assert seen.reason.startswith("balls may lose more than")
    assert look_without_experts(workspace, nothing, everything).promoted


def test_no_expert_runs(made, monkeypatch):
    workspace, everything, _ = made

    def looked(*_, **__):
        raise AssertionError("an expert ran")

    monkeypatch.setattr("napari_ka2er.model.experts.Expert.look", looked)
    for folder in (workspace.folder / "reports").glob("evaluations/*"):
        for kept in folder.iterdir():
            kept.unlink()
    assert look_without_experts(workspace, everything, everything).promoted


def test_it_can_be_cancelled(made):
    workspace, everything, nothing = made
    with pytest.raises(CancelledError):
        look_without_experts(workspace, everything, nothing, cancelled=lambda: True)


RESULT = {
    "promoted": True,
    "reason": "hip gains",
    "verdicts": [BAD.to_json(), GOOD.with_share(0.5).to_json()],
    "folder": "/round/gate/share-0.5",
    "masks": ["of the interpolation"],
    "metrics": ["of the interpolation"],
}
REFUSED = {"folder": "/round/student", "masks": ["of the old"], "metrics": ["of the new"]}


def test_without_a_loss_only_the_verdict_is_added(caplog):
    with caplog.at_level(logging.WARNING):
        found = with_look(RESULT, GOOD, "refuse", REFUSED)
    assert {**found, "distilled": None} == {**RESULT, "distilled": None}
    assert Verdict.from_json(json.loads(json.dumps(found["distilled"]))) == GOOD
    assert caplog.records == []


def test_a_loss_is_a_note_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        found = with_look(RESULT, BAD, "warn", REFUSED)
    assert found["promoted"]
    assert found["folder"] == RESULT["folder"]
    assert found["notes"] == [REASON]
    assert [record.getMessage() for record in caplog.records] == found["notes"]


def test_a_loss_refuses_if_the_workspace_says_so():
    found = with_look(RESULT, BAD, "refuse", REFUSED)
    assert not found["promoted"]
    assert found["reason"] == REASON
    assert {name: found[name] for name in REFUSED} == REFUSED  # its own student is kept, refused
    assert [verdict["promoted"] for verdict in found["verdicts"]] == [False, False]
    assert found["verdicts"][0]["reason"] == BAD.reason


def test_a_refused_version_tells_its_own_dice_not_that_of_the_interpolation_that_passed(
    made, tmp_path, monkeypatch
):
    workspace, everything, nothing = made
    gate = dataclasses.replace(workspace.settings.gate, distilled="refuse")
    workspace = Workspace(workspace.folder, dataclasses.replace(workspace.settings, gate=gate))
    scored = [Scored(rows(hip=[dice] * 4), {}, f"{dice}") for dice in (0.5, 0.7, 0.6)]
    before, between, first = scored
    tried = Decision(True, nothing, "", (BAD, GOOD.with_share(0.5)), before, between, first)
    monkeypatch.setattr(retrain_stages, "try_student", lambda *_, **__: tried)
    monkeypatch.setattr(retrain_stages, "look_without_experts", lambda *_, **__: BAD)
    monkeypatch.setattr(retrain_stages, "student_folder", lambda *_: everything)
    state = new_round(workspace, RoundOptions(), [], "v0001")
    state.run(workspace, "plan", lambda: {"tasks": ["hip"]})
    state.run(workspace, "student", lambda: {"folder": str(tmp_path / "student")})
    found = judge_student(RoundWork(workspace, state))
    assert (found["promoted"], found["folder"]) == (False, str(tmp_path / "student"))
    assert found["masks"] == ["0.5"]  # of the student that stays current
    assert [told["dice"]["mean"] for told in found["metrics"]] == pytest.approx([0.6])


@pytest.mark.parametrize(
    ("answer", "mode", "promoted", "looks"),
    [
        ("warn", "sparse", True, True),
        ("refuse", "full", True, True),
        ("skip", "sparse", True, False),
        ("warn", "distilled", True, False),
        ("warn", "sparse", False, False),
    ],
)
def test_a_round_looks_once_its_gate_has_passed(
    made, tmp_path, monkeypatch, answer, mode, promoted, looks
):
    workspace, everything, nothing = made
    settings = dataclasses.replace(
        workspace.settings, gate=dataclasses.replace(workspace.settings.gate, distilled=answer)
    )
    workspace = Workspace(workspace.folder, settings)
    verdict = GOOD if promoted else BAD
    tried = Decision(
        promoted, nothing, verdict.reason, (verdict,), Scored([], {}), Scored(rows(hip=BASE), {})
    )
    monkeypatch.setattr(retrain_stages, "try_student", lambda *_, **__: tried)
    monkeypatch.setattr(retrain_stages, "student_folder", lambda *_: everything)
    state = new_round(workspace, RoundOptions(mode=mode), [], "v0001")
    state.run(workspace, "plan", lambda: {"tasks": ["hip"]})
    state.run(workspace, "student", lambda: {"folder": str(nothing)})
    found = judge_student(RoundWork(workspace, state))
    assert ("distilled" in found) is looks
    assert found["promoted"] is (promoted and answer != "refuse")
    assert bool(found.get("notes")) is (looks and answer == "warn")
