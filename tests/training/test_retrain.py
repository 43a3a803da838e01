from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.training.conftest import write_raw
from tests.training.packages import THREE_SLICES, correction, package
from tests.training.rounds import FLAGS, LENGTHS, make_workspace
from tests.training.test_gate import rows

from ka2er_training import registry, retrain_decision, retrain_stages, round_outcome
from ka2er_training.cli import main
from ka2er_training.dataset import TaskOptions, add_task
from ka2er_training.gate import Gain, judge
from ka2er_training.holdout import check_training_data
from ka2er_training.ingest import ingest
from ka2er_training.ingest_plan import plan_ingest
from ka2er_training.package_check import check_for_workspace
from ka2er_training.registry import (
    add_version,
    current,
    promote,
    state_of,
    student_folder,
    versions,
)
from ka2er_training.retrain import SHARES, dry_run, retrain
from ka2er_training.retrain_decision import abandon, decide
from ka2er_training.round_state import (
    LOCK,
    STAGES,
    RoundOptions,
    new_round,
    refused_packages,
    rounds,
    unfinished,
)
from ka2er_training.settings import GateSettings
from ka2er_training.sources import read_source
from ka2er_training.trying import Decision, Scored
from ka2er_training.workspace import Workspace, read_json
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.package import read_package


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with an untrained student, and a package of two corrections, one partial."""
    folder = tmp_path_factory.mktemp("rounds")
    workspace = make_workspace(folder)
    corrections = correction(workspace, 10), correction(workspace, 11, reviewed=THREE_SLICES)
    return workspace.folder, package(folder / "Dataset007_balls", *corrections)


@pytest.fixture
def work(made, tmp_path):
    """A copy of the workspace, and the package."""
    shutil.copytree(made[0], tmp_path / "work")
    return Workspace.open(tmp_path / "work"), made[1]


def files(folder):
    """Every file but locks, with its bytes."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def set_rates(workspace, rate):
    """Let every training of a round use this share of the usual rate."""
    path = workspace.folder / "ka2er.toml"
    text = path.read_text("utf-8").replace("expert_rate = 0.3", f"expert_rate = {rate}")
    path.write_text(text.replace("student_rate = 0.3", f"student_rate = {rate}"))


def test_a_dry_run_tells_the_plan_and_changes_nothing(work, capsys):
    workspace, path = work
    before = files(workspace.folder)
    assert main(["retrain", str(workspace.folder), str(path), "--dry-run", "--json", *FLAGS]) == 0
    assert files(workspace.folder) == before
    told = json.loads(capsys.readouterr().out)
    assert told["cases"] == {"balls": {"training": 2}}
    assert told["tasks"] == ["balls"]
    assert told["estimate"]["epochs"] == {"balls": 2}
    assert told["estimate"]["steps"] == {"trunk": 3, "polish": 2, "clicks": 2}
    pace, seconds = told["estimate"]["pace"], told["estimate"]["seconds"]
    assert seconds["experts"] == round(2 * pace["epoch"]["seconds"])
    assert not pace["step"]["measured"]
    assert told["estimate"]["seconds_total"] == pytest.approx(sum(seconds.values()), abs=3)


def test_estimates_take_the_pace_of_the_last_round(work):
    workspace, path = work
    state = new_round(workspace, LENGTHS, [], "v0001")
    notes = {
        "steps": {"trunk": 8, "polish": 2, "clicks": 5},
        "seconds_trunk": 20.0,
        "seconds_clicks": 15.0,
    }
    state.stages = {
        "experts": {"result": {"experts": {"balls": {"last_epoch": {"seconds": 7.0}}}}},
        "student": {"result": notes},
    }
    state.status = "promoted"
    state.save(workspace)
    pace = dry_run(workspace.folder, [path], LENGTHS)["estimate"]["pace"]
    assert {name: one["seconds"] for name, one in pace.items() if one["measured"]} == {
        "step": 2.0,
        "click": 3.0,
        "epoch": 7.0,
    }


def test_a_second_retraining_of_the_workspace_is_refused(work):
    workspace, path = work
    with workspace.lock(LOCK), pytest.raises(UserError, match="another process"):
        retrain(workspace.folder, [path], LENGTHS)


def test_a_package_with_a_copy_of_a_hold_out_case_is_refused_and_nothing_begins(work, tmp_path):
    workspace, _ = work
    (held,) = workspace.holdout_cases("balls")
    bad = package(tmp_path / "bad", correction(workspace, int(held.id[1]), "somebody else"))
    before = files(workspace.folder)
    assert main(["retrain", str(workspace.folder), str(bad), *FLAGS]) == 2
    assert files(workspace.folder) == before


def test_a_broken_round_is_resumed_and_not_begun_anew(work, tmp_path):
    workspace, path = work
    with pytest.raises(UserError, match="leave out --resume"):
        retrain(workspace.folder, [], LENGTHS, resume=True)
    new_round(workspace, LENGTHS, [{"path": str(path), "digest": "1" * 64}], "v0001")
    with pytest.raises(UserError, match="--resume"):
        retrain(workspace.folder, [path], LENGTHS)
    with pytest.raises(UserError, match="packages of round 1"):
        retrain(workspace.folder, [path], LENGTHS, resume=True)


def test_a_broken_round_can_be_given_up_and_its_corrections_wait(work, caplog):
    caplog.set_level("INFO", "ka2er_training.commands")
    workspace, path = work
    digest = read_package(path).digest
    state = new_round(workspace, LENGTHS, [{"path": str(path), "digest": digest}], "v0001")
    ingest(workspace, plan_ingest(workspace, [read_package(path)], state.number))
    n_trained = len(workspace.training_cases("balls"))
    assert main(["retrain", str(workspace.folder), "--abandon"]) == 0
    assert "round 1 is given up; 2 cases wait" in caplog.messages[-1]
    assert len(workspace.training_cases("balls")) == n_trained - 2
    assert unfinished(workspace) is None
    (kept,) = refused_packages(workspace)
    assert read_package(kept).digest == digest
    assert dry_run(workspace.folder, [kept], LENGTHS)["cases"] == {"balls": {"training": 2}}
    assert main(["retrain", str(workspace.folder), "--abandon"]) == 2


@pytest.fixture
def passed(work, tmp_path):
    """A broken round whose student has passed the gate: all but *decide* is done."""
    workspace, path = work
    digest = read_package(path).digest
    state = new_round(workspace, LENGTHS, [{"path": str(path), "digest": digest}], "v0001")
    taken = ingest(workspace, plan_ingest(workspace, [read_package(path)], state.number))
    student = tmp_path / "student"
    shutil.copytree(student_folder(workspace, "v0001"), student)
    expert = student / "experts" / "balls" / "expert.json"
    expert.write_text(json.dumps({**read_json(expert), "digest": "retrained"}))
    verdict = judge([], [], [], GateSettings()).to_json()
    gate = {"folder": str(student), "promoted": True, "reason": "it gains", "metrics": []}
    state.run(workspace, "ingest", lambda: taken)
    state.run(workspace, "plan", lambda: {"tasks": ["balls"], "experts": ["balls"]})
    state.run(workspace, "student", lambda: {"folder": str(student), "seed": 1})
    state.run(workspace, "gate", lambda: {**gate, "verdicts": [verdict]})
    return retrain_stages.RoundWork(workspace, state)


def expert_digest(workspace):
    return read_json(workspace.expert_folder("balls") / "expert.json")["digest"]


def test_the_student_is_promoted_before_its_experts_and_then_cannot_be_given_up(
    passed, monkeypatch
):
    workspace = passed.workspace
    known = expert_digest(workspace)

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(retrain_decision, "promote", die)
        with pytest.raises(KeyboardInterrupt):
            decide(passed)
    assert (current(workspace), expert_digest(workspace)) == ("v0001", known)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "_use_experts", die)
        with pytest.raises(KeyboardInterrupt):
            decide(passed)
    assert (current(workspace), expert_digest(workspace)) == ("v0002", known)
    with pytest.raises(UserError, match="whose student is current; finish it"):
        abandon(workspace.folder)
    assert decide(passed)["status"] == "promoted"
    assert expert_digest(workspace) == "retrained"
    assert versions(workspace) == ["v0001", "v0002"]


def test_a_round_given_up_before_it_promotes_leaves_the_experts(passed, monkeypatch):
    workspace = passed.workspace
    known = expert_digest(workspace)

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(retrain_decision, "promote", die)
        with pytest.raises(KeyboardInterrupt):
            decide(passed)
    assert abandon(workspace.folder)["status"] == "abandoned"
    assert (current(workspace), expert_digest(workspace)) == ("v0001", known)


def by_hand(workspace):
    """Let a copy of the first student be current."""
    folder = student_folder(workspace, "v0001")
    name = add_version(workspace, folder, {"lineage": {"round": None, "packages": ["other"]}})
    promote(workspace, name, "by hand")
    return name


def test_a_round_is_not_resumed_for_another_student_than_it_began_with(work, monkeypatch):
    workspace, path = work

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain_stages, "plan_round", die)
    with pytest.raises(KeyboardInterrupt):
        retrain(workspace.folder, [path], LENGTHS)
    assert by_hand(workspace) == "v0002"
    with pytest.raises(UserError, match=r"v0001, from which .* got v0002; .*promote"):
        retrain(workspace.folder, [], resume=True)
    promote(workspace, "v0001", "by hand")
    with pytest.raises(KeyboardInterrupt):  # on it goes
        retrain(workspace.folder, [], resume=True)


def test_a_student_that_became_current_by_hand_is_not_overridden(passed):
    workspace = passed.workspace
    known = expert_digest(workspace)
    assert by_hand(workspace) == "v0002"
    found = decide(passed)
    assert (found["status"], found["version"], current(workspace)) == ("refused", "v0003", "v0002")
    assert "v0002 became current by hand" in found["reason"]
    assert expert_digest(workspace) == known
    assert state_of(workspace, "v0003") == "candidate"  # the gate let it pass
    assert len(found["withdrawn"]) == 2
    (kept,) = refused_after(passed, found)
    assert check_for_workspace(workspace, kept) == []
    assert round_outcome.refused_by(passed.state) == "another student"
    assert round_outcome.reason_of(passed.state) == found["reason"]


def refused_after(work, decided):
    """The packages that wait once a round has ended so."""
    work.state.run(work.workspace, "decide", lambda: decided)
    work.state.status = decided["status"]
    work.state.save(work.workspace)
    return refused_packages(work.workspace)


def test_a_round_can_be_given_up_though_another_student_became_current(passed):
    by_hand(passed.workspace)
    assert abandon(passed.workspace.folder)["status"] == "abandoned"
    assert current(passed.workspace) == "v0002"


def test_a_round_begins_with_the_current_student_s_experts(passed, monkeypatch):
    """Also if the process that let it be current was killed before they were in use."""
    workspace, known = passed.workspace, expert_digest(passed.workspace)
    decide(passed)

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(registry, "_use_experts", die)
        with pytest.raises(KeyboardInterrupt):
            registry.rollback(workspace)
    assert (current(workspace), expert_digest(workspace)) == ("v0001", "retrained")
    with pytest.raises(CancelledError):
        retrain(workspace.folder, [], resume=True, cancelled=lambda: True)
    assert expert_digest(workspace) == known


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"preset": "bsae"}, "a preset"),
        ({"mode": "sprase"}, "a mode"),
        ({"checkpoint_every": 0}, "checkpoint_every of at least 1"),
        ({"seed": -1}, "seed of at least 0"),
        ({"expert_epochs": 0}, "expert_epochs of at least 1"),
        ({"steps": 0}, "steps of at least 1"),
    ],
)
def test_options_that_no_round_can_have_are_refused_before_it_begins(work, bad, words):
    workspace, path = work
    before = files(workspace.folder)
    options = dataclasses.replace(LENGTHS, **bad)
    for attempt in (dry_run, retrain):
        with pytest.raises(UserError, match=words):
            attempt(workspace.folder, [path], options)
    assert files(workspace.folder) == before


def test_an_image_in_two_packages_leaves_no_broken_round(work, tmp_path):
    workspace, path = work
    again = package(tmp_path / "again", correction(workspace, 10, "another"))
    for attempt in (dry_run, retrain):
        with pytest.raises(UserError, match="in two packages"):
            attempt(workspace.folder, [path, again], LENGTHS)
    assert rounds(workspace) == []


def test_a_package_of_a_task_that_the_student_does_not_know_is_refused_at_once(work, tmp_path):
    workspace, _ = work
    raw = write_raw(tmp_path / "cubes", 3, first=70)
    add_task(workspace, read_source(raw), TaskOptions(name="cubes", spacing_mm=(2, 2, 2)))
    workspace = Workspace.open(workspace.folder)
    given = dataclasses.replace(correction(workspace, 10), task=workspace.record("cubes").task)
    path = package(tmp_path / "given", given)
    for attempt in (dry_run, retrain):
        with pytest.raises(UserError, match=r"v0001 knows \(balls, others\), got cubes; .*amalgam"):
            attempt(workspace.folder, [path], LENGTHS)
    assert rounds(workspace) == []


def test_a_student_with_a_task_that_has_no_hold_out_is_not_trained(work, tmp_path):
    workspace, path = work
    cases = workspace.dataset_folder("others") / "cases.json"
    data = read_json(cases)
    data["cases"] = [case for case in data["cases"] if case["split"] != "holdout"]
    cases.write_text(json.dumps(data))
    frozen = read_json(workspace.folder / "holdout.json")
    frozen["tasks"]["others"]["cases"] = {}
    (workspace.folder / "holdout.json").write_text(json.dumps(frozen))
    for attempt in (dry_run, retrain):
        with pytest.raises(UserError, match="of every task of v0001, got none of others"):
            attempt(workspace.folder, [path], LENGTHS)
    assert rounds(workspace) == []
    # where nothing is trained there is no gate either
    (held,) = workspace.holdout_cases("balls")
    empty = np.zeros((18, 26, 30), np.uint8)
    fix = package(tmp_path / "fix", correction(workspace, int(held.id[1]), labels=empty))
    options = dataclasses.replace(LENGTHS, to_holdout=True)
    assert dry_run(workspace.folder, [fix], options)["cases"] == {"balls": {"holdout": 1}}


def test_without_a_student_or_a_package_there_is_no_round(work, balls, tmp_path):
    workspace, path = work
    with pytest.raises(UserError, match="at least one package"):
        retrain(workspace.folder, [], LENGTHS)
    shutil.copytree(balls.folder, tmp_path / "bare")
    with pytest.raises(UserError, match="ka2er amalgamate"):
        retrain(tmp_path / "bare", [path], LENGTHS)


def test_a_state_survives_the_trip_to_disk(work):
    workspace, path = work
    options = RoundOptions(steps=7, from_scratch=True, mode="full", seed=3)
    state = new_round(workspace, options, [{"path": str(path), "digest": "2"}], "v0001")
    state.run(workspace, "ingest", lambda: {"cases": {"balls": {"held": 2}}})
    assert rounds(workspace) == [state]
    assert unfinished(workspace) == state
    state.run(workspace, "ingest", lambda: pytest.fail("done already"))
    assert state.result("ingest") == {"cases": {"balls": {"held": 2}}}


def lost_expert(change, n=12):
    """A decision about an expert whose hold-out changed by so much, by 0.01 more or less."""
    before = rows(balls=[0.8] * n)
    after = rows(balls=list(0.8 + change + np.linspace(-0.01, 0.01, n)))
    gain = Gain.of(rows(balls=[0.5] * 3), rows(balls=[0.6] * 3))
    verdict = judge(before, after, ["balls"], GateSettings(), {"balls": gain})
    scored = Scored(before, {})
    return Decision(verdict.promoted, Path("x"), verdict.reason, (verdict,), scored, scored)


@pytest.fixture
def stand_ins(monkeypatch):
    """Experts that are retrained at once; a student that is never trained."""
    told = {"epochs": 1, "cases": 4, "corrected": 2, "seconds": 0.1, "last_epoch": None}
    monkeypatch.setattr(retrain_stages, "retrain_expert", lambda *_, **__: dict(told))

    def decide_by(change):
        monkeypatch.setattr(retrain_stages, "try_expert", lambda *_, **__: lost_expert(change))

    class StudentBegan(Exception):
        pass

    def began(*_, **__):
        raise StudentBegan

    monkeypatch.setattr(retrain_stages, "make_student", began)
    return decide_by, StudentBegan


def test_a_round_whose_expert_has_lost_ends_before_its_student(work, stand_ins, capsys):
    workspace, path = work
    stand_ins[0](-0.12)
    arguments = ["retrain", str(workspace.folder), str(path), "--json", *FLAGS]
    assert main(arguments) == 3
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["version"], result["current"]) == ("refused", None, "v0001")
    assert result["reason"].startswith("expert balls lost: -0.120 [-0.12")
    assert result["reason"].endswith("are the labels of these packages right?")
    assert len(result["withdrawn"]) == 2
    assert set(result["stages"]) == set(STAGES) - {"student", "gate"}
    assert versions(workspace) == ["v0001"]
    assert unfinished(workspace) is None
    assert "are the labels of these packages right?" in Path(result["report"]).read_text("utf-8")
    (kept,) = refused_packages(workspace)
    assert dry_run(workspace.folder, [kept], LENGTHS)["cases"] == {"balls": {"training": 2}}


def test_if_it_is_asked_to_it_goes_on_all_the_same(work, stand_ins):
    workspace, path = work
    stand_ins[0](-0.12)
    with pytest.raises(stand_ins[1]):
        retrain(workspace.folder, [path], dataclasses.replace(LENGTHS, keep_going=True))
    assert unfinished(workspace).result("expert_gate")["new"] == {}


@pytest.mark.parametrize("change", [0.0, -0.004, 0.05])
def test_an_expert_that_only_does_not_gain_stops_nothing(work, stand_ins, change):
    workspace, path = work
    stand_ins[0](change)
    with pytest.raises(stand_ins[1]):
        retrain(workspace.folder, [path], LENGTHS)


def test_every_stage_has_its_share_of_the_progress():
    assert tuple(SHARES) == STAGES
    assert sum(SHARES.values()) == pytest.approx(1)


def settled(workspace, result):
    """Check that everything is as the result says."""
    for task in workspace.tasks:
        check_training_data(workspace, task)
    assert not list(workspace.folder.rglob("*.part"))
    state = rounds(workspace)[-1]
    assert set(state.stages) == set(STAGES)
    assert Path(result["report"]).is_file()
    assert read_json(workspace.folder / "runs" / f"round-{state.number:04d}" / "round.json")
    entries = {case["name"]: case for case in workspace.manifest("balls") if "name" in case}
    if result["status"] == "promoted":
        assert current(workspace) == result["version"]
        for name in workspace.tasks:
            own = workspace.expert_folder(name) / "expert.json"
            theirs = student_folder(workspace) / "experts" / name / "expert.json"
            assert read_json(own) == read_json(theirs)
        assert {case["split"] for case in entries.values()} == {"training"}
    else:
        assert current(workspace) == "v0001"
        assert {case["split"] for case in entries.values()} == {"queued"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_round_that_gains_is_promoted_with_its_lineage(work):
    workspace, path = work
    set_rates(workspace, 1.0)
    options = dataclasses.replace(LENGTHS, steps=40, checkpoint_every=20)
    told = []
    result = retrain(
        workspace.folder, [path], options, progress=lambda share, text: told.append((share, text))
    )
    assert result["status"] == "promoted", result["reason"]
    settled(Workspace.open(workspace.folder), result)
    shares = [share for share, _ in told]
    assert all(0 <= share <= 1 for share in shares)
    assert any(text.startswith("student:") for _, text in told)
    card = read_json(student_folder(workspace) / "student.json")["card"]
    assert card["lineage"]["parent"] == "v0001"
    assert card["lineage"]["round"] == 1
    assert len(card["lineage"]["packages"]) == 1
    again = main(["retrain", str(workspace.folder), str(path), *FLAGS])
    assert again == 2  # known already


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_round_that_gains_nothing_is_refused_and_its_corrections_wait(work, capsys):
    """With a rate of nothing the new student is the old one, so that no chance is involved."""
    workspace, path = work
    set_rates(workspace, 0.0)
    data = files(workspace.folder / "datasets")
    arguments = ["retrain", str(workspace.folder), str(path), "--json", *FLAGS]
    assert main(arguments) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "refused"
    assert len(result["withdrawn"]) == 2
    assert versions(workspace) == ["v0001", "v0002"]
    settled(workspace, result)
    now = files(workspace.folder / "datasets")
    labels = [name for name in data if "labelsTr" in name or "labelsTs" in name]
    assert all(now[name] == data[name] for name in labels)
    told = dry_run(workspace.folder, [next((workspace.folder / "packages").iterdir())], LENGTHS)
    assert told["cases"] == {"balls": {"training": 2}}


# In which stage to stop, and where in it: at a line of progress, or after its work was done but
# before that was noted.
MOMENTS = [
    ("ingest", "package"),
    ("plan", None),
    ("labels", "case"),
    ("labels", None),
    ("experts", "epoch 1/"),
    ("experts", None),
    ("expert_gate", None),
    ("student", "features"),
    ("student", "loss"),
    ("student", None),
    ("gate", None),
    ("decide", None),
    ("report", None),
]

STOPPED = """
import os, signal, sys
from pathlib import Path
from ka2er_training.retrain import retrain
from ka2er_training.round_state import RoundOptions, RoundState

folder, package, stage, line, how, first = sys.argv[1:]
run = RoundState.run


def stop(*_):
    os.kill(os.getpid(), int(how))


def run_and_stop(self, workspace, name, work):
    def both():
        result = work()
        if name == stage and not line:
            stop()
        return result

    run(self, workspace, name, both)


def progress(share, text):
    if line and text.startswith(f"{stage}: ") and line in text:
        stop()


RoundState.run = run_and_stop
if int(how) == signal.SIGINT:
    signal.signal(signal.SIGINT, signal.default_int_handler)
options = RoundOptions(
    steps=3, polish_steps=2, click_steps=2, expert_epochs=2, checkpoint_every=1
)
packages = [Path(package)] if first == "first" else []
retrain(Path(folder), packages, options, resume=first != "first", progress=progress)
"""


def stop_in(workspace, path, moment, how, first):
    """Work on the round in a process of its own until it stops itself."""
    stage, line = moment
    arguments = [str(workspace.folder), str(path), stage, line or "", str(int(how))]
    command = [sys.executable, "-c", STOPPED, *arguments, "first" if first else "again"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    return process.returncode, process.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_round_killed_in_every_stage_is_finished_by_resuming(work):
    workspace, path = work
    untouched = files(workspace.folder / "students" / "v0001")
    experts = files(workspace.folder / "experts" / "converted")
    for i, moment in enumerate(MOMENTS):
        status, told = stop_in(workspace, path, moment, signal.SIGKILL, first=i == 0)
        assert status == -signal.SIGKILL, (moment, told)
        for task in workspace.tasks:
            check_training_data(workspace, task)
        if moment[0] not in ("decide", "report"):
            assert current(workspace) == "v0001", moment
            assert files(workspace.folder / "experts" / "converted") == experts, moment
        assert files(workspace.folder / "students" / "v0001") == untouched
        assert len(versions(workspace)) == 1 + (moment[0] in ("decide", "report"))
    result = retrain(workspace.folder, [], resume=True)
    settled(Workspace.open(workspace.folder), result)
    assert len(rounds(workspace)) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("moment", [("experts", "epoch 1/"), ("student", "loss")])
def test_an_interrupt_leaves_nothing_half_written_and_no_process(work, moment):
    workspace, path = work
    status, told = stop_in(workspace, path, moment, signal.SIGINT, first=True)
    assert status in (1, -signal.SIGINT)
    assert told.strip().splitlines()[-1] == "KeyboardInterrupt"
    assert not list(workspace.folder.rglob("*.part"))
    time.sleep(1)
    assert not _processes_of(workspace.folder)
    assert current(workspace) == "v0001"
    settled(Workspace.open(workspace.folder), retrain(workspace.folder, [], resume=True))


def _processes_of(folder):
    """Return processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return [path for path in found if path.parent.name != str(os.getpid())]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cancelling_keeps_the_round_to_be_resumed(work):
    workspace, path = work
    told = []
    with pytest.raises(CancelledError):
        retrain(
            workspace.folder, [path], LENGTHS,
            progress=lambda _, text: told.append(text),
            cancelled=lambda: any("student: loss" in text for text in told),
        )  # fmt: skip
    assert unfinished(workspace).number == 1
    settled(Workspace.open(workspace.folder), retrain(workspace.folder, [], resume=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_scratch_trains_everything_anew_and_leaves_the_present_experts(work):
    workspace, path = work
    text = (workspace.folder / "ka2er.toml").read_text("utf-8")
    text += "\n[presets.tiny]\nepochs = 1\niterations = 2\nval_iterations = 1\n"
    (workspace.folder / "ka2er.toml").write_text(text)
    options = dataclasses.replace(LENGTHS, from_scratch=True)
    result = retrain(workspace.folder, [path], options)
    settled(Workspace.open(workspace.folder), result)
    (state,) = rounds(workspace)
    assert set(state.result("experts")["experts"]) == {"balls", "others"}
    card = read_json(student_folder(workspace, "v0002") / "student.json")["card"]
    assert card["lineage"]["parent"] is None


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_round_s_trainings_run_as_jobs(work):
    workspace, path = work
    told = []
    result = retrain(
        workspace.folder, [path], LENGTHS,
        executor="local", progress=lambda share, _: told.append(share),
    )  # fmt: skip
    settled(Workspace.open(workspace.folder), result)
    kept = {p.parent.name for p in (workspace.folder / "runs" / "jobs").glob("*/done.json")}
    assert kept == {"round-0001-balls", "round-0001-student"}
    assert max(told) <= 1
