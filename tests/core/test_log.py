"""The log of a session: what a crash leaves, and what is read of it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.acting import SHAPE, TASK, act, new_volume

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.records import ACTIONS, BOXES, read_records
from napari_ka2er.core.review import Reviewed
from napari_ka2er.core.session import Session
from napari_ka2er.core.sessions import (
    create_session,
    find_sessions,
    replay,
    restore_session,
    session_folders,
    source_of,
)
from napari_ka2er.core.task import Label
from napari_ka2er.core.volume import Volume

MANY = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def state_of(session):
    """All that must come back, bit for bit."""
    s = session.state
    return (
        s.mask.dtype.name,
        s.mask.tobytes(),
        {o: p for o, p in s.prompts.items() if p},
        dict(s.objects),
        dict(s.statuses),
        s.locked,
        s.reviewed,
        s.task,
        s.student,
        s.history.n_done,
        s.history.n_undone,
        s.active_s,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A session's folder after 40 random deeds, and the state after each of its actions."""
    folder = tmp_path_factory.mktemp("sessions") / "one"
    session = create_session(folder, new_volume(), TASK)
    session.set_student("v0003", "sparse")
    session.set_label(Label(400, "rib"))
    for _ in act(session, 7, 40):
        pass
    session.close()
    states, twin = [state_of(Session(new_volume(), TASK))], Session(new_volume(), TASK)
    for record in read_records(folder):
        twin.state.apply(record)
        states.append(state_of(twin))
    assert states[-1] == state_of(session)
    return folder, states


def copy_of(recorded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut") / "one"
    shutil.copytree(recorded[0], folder)
    return folder


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("file", [ACTIONS, BOXES])
def test_truncated_at_any_byte_it_restores_the_actions_before(
    recorded, tmp_path_factory, file, data
):
    folder, states = copy_of(recorded, tmp_path_factory), recorded[1]
    size = (folder / file).stat().st_size
    os.truncate(folder / file, data.draw(st.integers(0, size)))

    restored = restore_session(folder, new_volume())

    n_actions = restored._log.n_actions
    assert state_of(restored) == states[n_actions]
    if file == ACTIONS:
        assert n_actions == (folder / file).read_bytes().count(b"\n")
    # and it goes on from there
    restored.review_volume()
    restored.write(
        (slice(0, 1),) * 3, np.array([[[3 - int(restored.mask[0, 0, 0] == 3)]]]), "brush"
    )
    restored.close()
    assert state_of(replay(folder)) == state_of(restored)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("file", [ACTIONS, BOXES])
def test_a_flipped_byte_ends_the_log_before_it_and_nothing_is_thrown_away(
    recorded, tmp_path_factory, file, data
):
    folder, states = copy_of(recorded, tmp_path_factory), recorded[1]
    content = bytearray((folder / file).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    (folder / file).write_bytes(content)

    restored = restore_session(folder, new_volume())
    restored.close()

    n_actions = restored._log.n_actions
    assert n_actions < len(states) - 1
    assert state_of(restored) == states[n_actions]
    kept = b"".join(p.read_bytes() for p in folder.glob("damaged-*"))
    if file == ACTIONS and n_actions < len(states) - 2:
        assert (folder / ACTIONS).read_bytes() + kept == bytes(content)


def written(folder, n_steps=3):
    """A session's folder with so many steps, and the state after each."""
    session = create_session(folder, new_volume(), TASK)
    states = [state_of(session)]
    for value in range(1, n_steps + 1):
        session.write((slice(0, 1),) * 3, np.array([[[value]]]), "brush")
        states.append(state_of(session))
    session.close()
    return states


@pytest.mark.parametrize("file", [BOXES, ACTIONS])
def test_a_file_that_cannot_be_read_for_a_moment_costs_nothing(tmp_path, file):
    folder = tmp_path / "s"
    states = written(folder)
    before = (folder / ACTIONS).read_bytes()
    (folder / file).rename(tmp_path / "away")  # as a virus scanner or a network disk does

    for read in (lambda: restore_session(folder, new_volume()), lambda: replay(folder)):
        with pytest.raises(UserError, match=rf"read .*{file}.*try again"):
            read()

    (tmp_path / "away").replace(folder / file)
    assert (folder / ACTIONS).read_bytes() == before
    assert not list(folder.glob("damaged-*"))
    restored = restore_session(folder, new_volume())  # and nobody holds its lock
    assert state_of(restored)[:-1] == states[-1][:-1]
    restored.close()


def test_an_error_of_the_disk_while_reading_is_no_damage(tmp_path, monkeypatch):
    written(tmp_path / "s")

    def fail(self, *args, **options):
        if self.name == BOXES and args == ("rb",):
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **options)

    real = Path.open
    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(UserError, match="Permission denied"):
        restore_session(tmp_path / "s", new_volume())
    monkeypatch.undo()
    assert len(list(read_records(tmp_path / "s"))) == 3


def test_actions_of_a_later_version_are_refused_and_not_cut_off(tmp_path):
    folder = tmp_path / "s"
    written(folder)
    text = json.dumps({"n": 3, "time_s": 1.0, "kind": "dream"})
    with (folder / ACTIONS).open("a") as file:
        file.write(f"{text}\t{zlib.crc32(text.encode()):08x}\n")
    before = (folder / ACTIONS).read_bytes()
    with pytest.raises(UserError, match=r"line 4 of .*update napari-ka2er"):
        restore_session(folder, new_volume())
    assert (folder / ACTIONS).read_bytes() == before


def test_what_is_cut_off_is_kept_and_counted_also_a_single_line_and_a_second_time(tmp_path):
    folder = tmp_path / "s"
    states = written(folder)
    whole = (folder / ACTIONS).read_bytes()
    for _ in range(2):
        (folder / ACTIONS).write_bytes(whole[:-3])  # the last line, torn
        restored = restore_session(folder, new_volume())
        assert (restored.n_set_aside, restored.state.history.n_done) == (1, 2)
        assert state_of(restored)[:-1] == states[2][:-1]
        restored.close()
    kept = sorted(folder.glob("damaged-*.jsonl"))
    assert len(kept) == 2
    assert all(whole[:-3].endswith(path.read_bytes()) for path in kept)
    damaged = bytearray(whole)
    damaged[5] ^= 1
    (folder / ACTIONS).write_bytes(damaged)
    restored = restore_session(folder, new_volume())
    assert restored.n_set_aside == 3
    assert (folder / "damaged-0.jsonl").read_bytes() == damaged
    restored.close()
    again = restore_session(folder, new_volume())
    assert again.n_set_aside == 0
    again.close()


OF_BEFORE = {
    1: [
        {"whole": False, "slices": [[2], [], []]},
        {"whole": True, "slices": [[2], [], []]},
        {"whole": True, "slices": [[2], [], []]},
        {"whole": False, "slices": [[2], [], []]},
        {"whole": False, "slices": [[2], [3], []]},
        {"whole": True, "slices": [[2], [3], []]},
        {"whole": False, "slices": [[2], [3], []]},
    ],
    2: [
        {"whole": False, "slices": [[2], [], []]},
        {"whole": True, "slices": [[2], [], []]},
        {"whole": False, "slices": [[0, 2, 3], [], []]},
        {"whole": False, "slices": [[], [], []]},
        {"whole": False, "slices": [[], [3], []]},
        {"whole": True, "slices": [[], [3], []]},
        {"whole": False, "slices": [[], [], []]},
    ],
}


@pytest.mark.parametrize("version", OF_BEFORE)
def test_marks_of_review_in_logs_of_before_replay_as_they_did(tmp_path, version):
    folder = tmp_path / "s"
    create_session(folder, new_volume(), TASK).close()
    deeds = [(0, 2, True), (None, 0, True), (0, 1, False), (None, 0, False), (1, 3, True)]
    deeds += [(None, 0, True), (None, 0, False)]
    with (folder / ACTIONS).open("a") as file:
        for n, (axis, index, reviewed) in enumerate(deeds):
            mark = {"kind": "review", "axis": axis, "index": index, "reviewed": reviewed}
            mark |= {"version": version} if version > 1 else {}
            text = json.dumps({"n": n, "time_s": 1.0, **mark})
            file.write(f"{text}\t{zlib.crc32(text.encode()):08x}\n")
    twin, seen = Session(new_volume(), TASK), []
    for record in read_records(folder):
        twin.state.apply(record)
        seen.append(twin.state.reviewed.to_json())
    assert seen == OF_BEFORE[version]


def test_what_was_taken_back_from_a_reviewed_volume_is_in_the_log(tmp_path):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    session.review_slice(1, 3)
    session.review_volume()
    session.review_slice(0, 2, reviewed=False)
    assert replay(tmp_path / "s").state.reviewed == session.state.reviewed
    assert session.state.reviewed.slices == ({0, 1, 3}, frozenset(), frozenset())
    session.review_volume(False)
    assert replay(tmp_path / "s").state.reviewed == session.state.reviewed == Reviewed()


WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.core.acting import TASK, act, new_volume
from napari_ka2er.core.sessions import create_session
session = create_session(Path(sys.argv[2]), new_volume(), TASK)
for _ in act(session, int(sys.argv[3]), 10**6):
    sys.stdout.write(str(session._log.n_actions) + chr(10))
    sys.stdout.flush()
"""


class EnoughError(Exception):
    pass


class BriefSession(Session):
    """A session in memory that stops after so many actions."""

    n_left = 0

    def _make(self, action):
        if not self.n_left:
            raise EnoughError
        self.n_left -= 1
        super()._make(action)


def twin_of(seed, n_actions):
    """The session that does what the killed one did, up to the same action."""
    twin = BriefSession(new_volume(), TASK)
    twin.n_left = n_actions
    with pytest.raises(EnoughError):
        for _ in act(twin, seed, 10**6):
            pass
    return twin


@pytest.mark.parametrize("n_moments", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_loses_no_committed_action(tmp_path, n_moments):
    root = Path(__file__).parents[2]
    rng = random.Random(n_moments)
    for moment in range(n_moments):
        folder = tmp_path / f"session{moment}"
        command = [sys.executable, "-c", WORKER, str(root), str(folder), str(moment)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        told = [first, *process.stdout.read().splitlines(keepends=True)]
        process.stdout.close()
        process.wait()
        n_told = max(int(line) for line in told if line.endswith(b"\n"))

        restored = restore_session(folder, new_volume())

        n_actions = restored._log.n_actions
        assert n_told <= n_actions  # what was told as done is there
        assert state_of(restored)[:-1] == state_of(twin_of(moment, n_actions))[:-1]  # but the clock
        restored.close()


def test_an_action_is_on_disk_before_anybody_hears_of_it(tmp_path):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    seen = []
    session.changed.connect(lambda _: seen.append(int(replay(tmp_path / "s").mask.sum())))
    session.write((slice(0, 1), slice(0, 2), slice(0, 2)), np.full((1, 2, 2), 3), "brush")
    session.undo()
    assert seen == [12, 0]


def test_undo_reads_boxes_from_disk_and_holds_none_in_memory(tmp_path):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    for value in (1, 2, 3):
        session.write((slice(0, 4),) * 3, np.full((4, 4, 4), value), "brush")
    assert session.state.history.held_bytes == 0
    session.undo()
    assert (session.mask[:, :4, :4] == 2).all()


def sizes_in(folder):
    return [path.stat().st_size for path in sorted(folder.iterdir())]


def test_a_full_disk_leaves_the_session_as_it_was(tmp_path, monkeypatch):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    session.write((slice(0, 1),) * 3, np.array([[[1]]]), "brush")
    before, sizes = (
        state_of(session),
        [p.stat().st_size for p in sorted((tmp_path / "s").iterdir())],
    )

    def write_half(descriptor, data):
        if len(data) > 1:
            return real(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    real = os.write
    monkeypatch.setattr("os.write", write_half)
    with pytest.raises(UserError, match="free disk space"):
        session.write((slice(0, 2),) * 3, np.full((2, 2, 2), 2), "brush")
    monkeypatch.undo()

    assert state_of(session) == before
    assert sizes_in(tmp_path / "s") == sizes
    session.write((slice(0, 2),) * 3, np.full((2, 2, 2), 2), "brush")
    assert state_of(replay(tmp_path / "s")) == state_of(session)


def test_one_session_cannot_be_open_twice(tmp_path):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    with pytest.raises(UserError, match="other window"):
        restore_session(tmp_path / "s", new_volume())
    (summary,) = find_sessions(tmp_path)
    assert summary.is_open
    session.close()
    restore_session(tmp_path / "s", new_volume()).close()
    assert not find_sessions(tmp_path)[0].is_open


def test_a_session_begun_in_one_thread_and_closed_in_another_is_free(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(create_session, tmp_path / "one", new_volume(), TASK).result()
    session.close()
    assert not find_sessions(tmp_path)[0].is_open
    restore_session(tmp_path / "one", new_volume()).close()


def test_a_session_is_not_continued_on_another_volume(tmp_path):
    create_session(tmp_path / "s", new_volume(), TASK).close()
    other = Volume(np.zeros(SHAPE), new_volume().affine, name="other")
    with pytest.raises(UserError, match="case 7"):
        restore_session(tmp_path / "s", other)


def test_sessions_are_found_newest_first_and_damaged_ones_left_out(tmp_path):
    for name, n_writes in (("a", 1), ("b", 2)):
        session = create_session(tmp_path / name, new_volume(), TASK, source=tmp_path)
        for value in range(n_writes):
            session.write((slice(0, 1),) * 3, np.array([[[value + 1]]]), "brush")
        session.close()
    create_session(tmp_path / "c", new_volume(), TASK).close()
    (tmp_path / "c" / "session.json").write_text("{")
    found = find_sessions(tmp_path)
    assert [(s.folder.name, s.n_actions, s.task) for s in found] == [
        ("b", 2, "organs"),
        ("a", 1, "organs"),
    ]
    assert found[0].volume_digest == new_volume().digest()
    assert source_of(tmp_path / "a") == tmp_path
    assert find_sessions(tmp_path / "nowhere") == []


def test_a_newer_format_is_refused(tmp_path):
    create_session(tmp_path / "s", new_volume(), TASK).close()
    header = json.loads((tmp_path / "s" / "session.json").read_text("utf-8"))
    (tmp_path / "s" / "session.json").write_text(json.dumps({**header, "version": 99}))
    with pytest.raises(UserError, match="update napari-ka2er"):
        replay(tmp_path / "s")


def test_a_folder_with_something_in_it_is_not_used(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="empty or new folder"):
        create_session(tmp_path / "s", new_volume(), TASK)


def test_sessions_are_found_by_the_place_of_their_volume_without_their_logs(tmp_path, monkeypatch):
    volume = Volume(np.zeros((3, 4, 5), np.uint8), np.diag([2.0, 1.0, 1.0, 1.0]), name="here")
    moved = volume.affine + np.diag([0, 0, 0.5, 0])
    create_session(tmp_path / "here", volume, TASK).close()
    create_session(tmp_path / "there", Volume(volume.data, moved), TASK).close()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "session.json").write_text("{")
    [found] = find_sessions(tmp_path, volume.geometry)
    assert found.folder == tmp_path / "here"
    [found] = find_sessions(tmp_path, digest=volume.digest())
    assert found.volume_name == "here"
    monkeypatch.setattr("napari_ka2er.core.sessions.read_records", None)
    assert session_folders(tmp_path, volume.geometry) == [tmp_path / "here"]
    assert session_folders(tmp_path, volume.geometry, "another") == []
    assert len(session_folders(tmp_path)) == 2
    assert session_folders(tmp_path / "nowhere") == []
