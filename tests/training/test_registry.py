import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from ka2er_training import registry
from ka2er_training.gate import judge
from ka2er_training.history import read_events
from ka2er_training.lineage import code_version, lineage_of
from ka2er_training.registry import (
    add_version,
    current,
    history,
    make_current,
    promote,
    rollback,
    settle_experts,
    state_of,
    student_folder,
    versions,
)
from ka2er_training.settings import GateSettings
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import FORMAT_VERSION

GOOD = judge([], [], set(), GateSettings())
BAD = replace(GOOD, promoted=False, reason="lungs lost")


@pytest.fixture
def student(tmp_path):
    """A folder that the registry takes for a student; it never looks at weights."""
    folder = tmp_path / "candidate"
    (folder / "experts" / "hip").mkdir(parents=True)
    (folder / "student.safetensors").write_bytes(b"weights")
    (folder / "experts" / "hip" / "expert.json").write_text("{}")
    text = {
        "format": "ka2er-student",
        "format_version": FORMAT_VERSION,
        "weights": {"sha256": "12ab"},
        "config": {"width": 48},
        "card": {"version": "", "data": ["kept"], "lineage": {"parent": "old"}},
    }
    (folder / "student.json").write_text(json.dumps(text))
    return folder


@pytest.fixture
def three(workspace, student):
    """A workspace in which v0001, v0002 and v0003 were current, one after the other."""
    for number in (1, 2, 3):
        name = add_version(workspace, student, {"lineage": lineage_of(None, {}, number=number)})
        promote(workspace, name, f"round {number}")
    return workspace


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_is_the_folder_with_its_lineage_and_is_not_current_yet(workspace, student):
    packages = ["digest of a package"]
    lineage = lineage_of("v0007", {"hip": "e1"}, packages=packages, seeds={"trunk": 3}, number=2)
    name = add_version(workspace, student, {"lineage": lineage, "metrics": {"hip": 0.9}}, GOOD)
    assert (name, versions(workspace), current(workspace)) == ("v0001", ["v0001"], None)
    folder = student_folder(workspace, name)
    card = json.loads((folder / "student.json").read_text("utf-8"))["card"]
    assert card["version"] == "v0001"
    assert card["data"] == ["kept"]
    assert card["metrics"] == {"hip": 0.9}
    assert card["lineage"]["packages"] == packages
    assert card["lineage"]["seeds"] == {"trunk": 3}
    assert card["lineage"]["code"]["version"]
    assert (folder / "student.safetensors").read_bytes() == b"weights"
    assert (folder / "experts" / "hip" / "expert.json").exists()
    assert state_of(workspace, name) == "candidate"


def test_versions_never_change_whatever_happens_to_them(three):
    before = {name: files(student_folder(three, name)) for name in versions(three)}
    rollback(three)
    promote(three, "v0001", "for fun")
    after = {name: files(student_folder(three, name)) for name in versions(three)}
    assert after == before


def test_repeated_rollbacks_go_further_back_until_nothing_is_left(three):
    assert [rollback(three), rollback(three)] == ["v0002", "v0001"]
    assert current(three) == "v0001"
    with pytest.raises(UserError, match="none before v0001"):
        rollback(three)
    assert [state_of(three, name) for name in versions(three)] == [
        "current", "was current", "was current"
    ]  # fmt: skip


def test_a_rollback_after_a_new_promotion_skips_what_was_rolled_back(three, student):
    rollback(three)  # v0003 -> v0002
    newest = add_version(three, student, {"lineage": {"round": 4}})
    promote(three, newest, "round 4")
    assert [rollback(three), rollback(three)] == ["v0002", "v0001"]


def test_history_says_who_was_promoted_when_and_why(three):
    rollback(three, reason="round 3 is worse on knees")
    events = history(three)
    assert [(e.event, e.version, e.previous) for e in events if e.event != "added"] == [
        ("promoted", "v0001", None),
        ("promoted", "v0002", "v0001"),
        ("promoted", "v0003", "v0002"),
        ("rolled back", "v0002", "v0003"),
    ]
    assert events[-1].reason == "round 3 is worse on knees"
    assert events[-1].time.startswith("20")


def test_what_the_gate_refused_needs_force_and_that_is_kept(three, student):
    name = add_version(three, student, {"lineage": {"round": 4}}, BAD)
    assert state_of(three, name) == "refused"
    with pytest.raises(UserError, match="--force"):
        promote(three, name, "I like it")
    assert current(three) == "v0003"
    promote(three, name, "I like it", force=True)
    assert current(three) == name
    last = history(three)[-1]
    assert (last.force, last.gate, last.reason) == (True, False, "I like it")


def test_promoting_what_is_current_changes_nothing(three):
    before = history(three)
    promote(three, "v0003", "again")
    assert history(three) == before


def test_adding_the_same_student_again_after_a_crash_adds_nothing(three, student):
    again = add_version(three, student, {"lineage": lineage_of(None, {}, number=3)})
    assert again == "v0003"
    assert len(versions(three)) == 3


def test_a_promotion_that_dies_before_the_switch_does_not_count(three, monkeypatch, student):
    name = add_version(three, student, {"lineage": {"round": 4}})

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(registry, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            promote(three, name, "round 4")
    assert current(three) == "v0003"
    assert rollback(three) == "v0002"  # and not v0004, which never was in use
    assert [e.event for e in history(three)[-3:]] == ["promoted", "found", "rolled back"]
    assert state_of(three, name) == "candidate"
    promote(three, name, "round 4, resumed")
    assert current(three) == name


def test_a_line_cut_short_by_a_crash_is_left_out_and_swallows_no_other(three):
    path = three.folder / "students" / "history.jsonl"
    n_events = len(history(three))
    path.write_text(path.read_text("utf-8") + '{"event": "promo')
    assert len(history(three)) == n_events
    rollback(three)
    assert len(history(three)) == n_events + 1
    assert current(three) == "v0002"


def test_a_process_killed_while_adding_leaves_a_readable_registry(three, student):
    """The child dies after half of the copy."""
    code = (
        "import os, shutil, sys; from pathlib import Path\n"
        "from ka2er_training.registry import add_version\n"
        "from ka2er_training.workspace import Workspace\n"
        "def half(source, target):\n"
        "    Path(target).mkdir(); shutil.copy(Path(source) / 'student.json', target)\n"
        "    os._exit(9)\n"
        "shutil.copytree = half\n"
        "add_version(Workspace.open(sys.argv[1]), Path(sys.argv[2]), {})\n"
    )
    arguments = [str(three.folder), str(student)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=120)
    assert done.returncode == 9
    students = three.folder / "students"
    assert any(path.name.startswith(".") for path in students.iterdir())
    assert (versions(three), current(three)) == (["v0001", "v0002", "v0003"], "v0003")
    assert add_version(three, student, {}) == "v0004"
    assert not any(path.name.startswith(".") for path in students.iterdir())


def test_a_workspace_from_before_there_was_a_history_can_be_rolled_back_to(workspace, student):
    add_version(workspace, student, {})
    add_version(workspace, student, {"lineage": {"round": 2}})
    (workspace.folder / "students" / "history.jsonl").unlink()
    (workspace.folder / "students" / "current").write_text("v0001\n")
    make_current(workspace, "v0002")
    assert [e.event for e in history(workspace)] == ["found", "promoted"]
    assert rollback(workspace) == "v0001"


def test_unknown_versions_are_refused(three):
    for act in (promote, make_current):
        with pytest.raises(UserError, match="v0001, v0002, v0003"):
            act(three, "v0009", "?")


def known_expert(workspace):
    """What the workspace's expert is called; None if there is none."""
    path = workspace.expert_folder("balls") / "expert.json"
    return json.loads(path.read_text("utf-8"))["digest"] if path.is_file() else None


@pytest.fixture
def trained(balls, student, tmp_path):
    """A workspace with the task balls and the candidates v0001 and v0002, each with its expert."""
    shutil.copytree(balls.folder, tmp_path / "trained")
    space = Workspace.open(tmp_path / "trained")
    (student / "experts" / "balls").mkdir()
    for number in (1, 2):
        told = json.dumps({"digest": f"of v000{number}"})
        (student / "experts" / "balls" / "expert.json").write_text(told)
        add_version(space, student, {"lineage": {"round": number}})
    return space


def test_the_experts_of_a_version_come_into_use_with_it(trained):
    for name in ("v0001", "v0002"):
        promote(trained, name, "its turn")
        assert known_expert(trained) == f"of {name}"
    rollback(trained)
    assert known_expert(trained) == "of v0001"
    # of a task that the version does not know, as hip here, nothing is made
    assert [f.name for f in trained.expert_folder("balls").parent.iterdir()] == ["balls"]
    shutil.rmtree(trained.expert_folder("balls"))
    promote(trained, "v0001", "again")
    assert known_expert(trained) == "of v0001"


@pytest.mark.parametrize("go_back", [False, True])
def test_a_process_killed_before_the_experts_are_in_use_is_made_good(trained, monkeypatch, go_back):
    for name in ("v0001", "v0002")[: 1 + go_back]:
        promote(trained, name, "its turn")

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", die)
        with pytest.raises(KeyboardInterrupt):
            rollback(trained) if go_back else promote(trained, "v0002", "its turn")
    new = "v0001" if go_back else "v0002"
    assert current(trained) == new
    assert known_expert(trained) != f"of {new}"
    settle_experts(trained)
    assert known_expert(trained) == f"of {new}"
    # once they are in use nothing is due: an expert that is trained later stays
    (trained.expert_folder("balls") / "expert.json").write_text('{"digest": "newer"}')
    settle_experts(trained)
    assert known_expert(trained) == "newer"


def test_a_promotion_that_dies_before_the_switch_leaves_the_experts(trained, monkeypatch):
    promote(trained, "v0001", "its turn")
    write = registry.write_text

    def die(path, text):
        if path.name == "current":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(registry, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            promote(trained, "v0002", "its turn")
    settle_experts(trained)
    assert (current(trained), known_expert(trained)) == ("v0001", "of v0001")


def _flip(folder, names, n_times):
    space = Workspace.open(folder)
    for i in range(n_times):
        promote(space, names[i % len(names)], f"{os.getpid()}")


def test_two_processes_that_promote_at_once_take_turns(three):
    context = multiprocessing.get_context("spawn")
    pairs = (["v0001", "v0002"], ["v0003", "v0002"])
    workers = [context.Process(target=_flip, args=(three.folder, pair, 15)) for pair in pairs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    events = [e for e in read_events(three.folder / "students" / "history.jsonl")
              if e.event != "added"]  # fmt: skip
    # every promotion begins where the one before it ended: nobody was overwritten unseen
    assert all(b.previous == a.version for a, b in pairwise(events))
    assert current(three) == events[-1].version
    assert "found" not in {e.event for e in events}


def test_the_code_version_names_the_commit_of_this_checkout():
    found = code_version()
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode == 0:
        assert found["commit"] == head.stdout.strip()
        assert isinstance(found["changed"], bool)


def test_a_workspace_without_students_has_none_to_go_back_to(workspace):
    with pytest.raises(UserError, match="got no student so far"):
        rollback(workspace)


def test_a_history_that_cannot_be_written_is_one_line(three):
    path = three.folder / "students" / "history.jsonl"
    path.unlink()
    path.symlink_to(three.folder / "absent" / "history.jsonl")
    with pytest.raises(UserError, match=f"to write {path}"):
        promote(three, "v0001", "again")
    assert current(three) == "v0003"
