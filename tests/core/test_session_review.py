"""What takes marks of review away, and what a lock keeps from undo; a (6, 8, 10) volume."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ka2er.core.actions import Edit, ObjectChange, PromptedObject, Undo
from napari_ka2er.core.correction import correction_of, export_package
from napari_ka2er.core.edits import Delta, Held
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.history import History
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.records import Record, read_records
from napari_ka2er.core.review import Reviewed
from napari_ka2er.core.session import Session
from napari_ka2er.core.sessions import create_session, replay
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen"), Label(3, "vessel")))
SHAPE = (6, 8, 10)
ALL = (slice(None),) * 3
SMALL = (slice(1, 3), slice(2, 5), slice(7, 9))


def new_volume():
    data = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    return Volume(data, np.diag([5.0, 1.0, 1.0, 1.0]))


@pytest.fixture
def session():
    return Session(new_volume(), TASK)


def fill(session, region, value, source="brush", detail=None):
    wanted = np.full(session.mask[region].shape, value, np.uint8)
    return session.write(region, wanted, source, detail)


def outside(*slices_of_axes):
    """Slices across Z, Y, X but those named."""
    pairs = zip(SHAPE, slices_of_axes, strict=True)
    return tuple(frozenset(range(n)) - set(gone) for n, gone in pairs)


def test_what_undo_changed_after_the_mark_is_not_vouched_for(session, tmp_path):
    fill(session, SMALL, 1)
    session.review_volume()
    session.undo()
    package = export_package(tmp_path / "Dataset001", [correction_of(session)])
    labels = read_volume(next((package / "labelsTr").iterdir())).data
    line = json.loads((package / "corrections.jsonl").read_text("utf-8"))
    assert line["reviewed_share"] == pytest.approx(4 / 6)
    ignored = (labels == 4).any(axis=(1, 2))
    assert ignored.tolist() == [False, True, True, False, False, False]


def test_a_result_over_all_of_the_volume_leaves_nothing_reviewed(session, tmp_path):
    fill(session, SMALL, 1)
    session.review_volume()
    fill(session, ALL, 2, "automatic")
    assert session.state.reviewed == Reviewed()
    with pytest.raises(UserError, match="reviewed"):
        export_package(tmp_path / "Dataset001", [correction_of(session)])


@pytest.mark.parametrize("how", ["automatic", "one label", "prompt", "undo", "redo"])
def test_slices_that_change_unseen_lose_their_marks_across_every_axis(session, how):
    if how in ("undo", "redo"):
        fill(session, SMALL, 1)
    if how == "redo":
        session.undo()
    for axis, n in enumerate(SHAPE):
        for index in range(n - 1):  # no axis is complete
            session.review_slice(axis, index)
    heard = []
    session.reviewed_changed.connect(lambda: heard.append(session.state.reviewed))
    match how:
        case "automatic":
            fill(session, SMALL, 1, "automatic")
        case "one label":
            fill(session, SMALL, 1, "tool", {"tool": "segment", "label": 1})
        case "prompt":
            number = session.add_object(1)
            session.add_prompt(number, Point((5.0, 2.0, 7.0)))
            assert not heard, "a prompt alone changes no voxel"
            request = session.request(number)
            session.apply_result(request, SMALL, np.ones((2, 3, 2), bool))
        case _:
            getattr(session, how)()
    left = outside({1, 2, 5}, {2, 3, 4, 7}, {7, 8, 9})
    assert session.state.reviewed == Reviewed(False, left)
    assert heard == [session.state.reviewed]


@pytest.mark.parametrize("source", ["brush", "tool"])
def test_what_the_person_draws_keeps_the_mark(session, source):
    session.review_volume()
    fill(session, SMALL, 1, source)
    assert session.state.reviewed.whole


def test_a_change_beside_the_reviewed_slices_takes_no_mark_and_is_one_action(session):
    for axis, index in ((0, 0), (1, 7), (2, 9)):
        session.review_slice(axis, index)
    before, n_before = session.state.reviewed, session.state.n_worked
    fill(session, SMALL, 1, "automatic")
    assert session.state.reviewed == before
    assert session.state.n_worked == n_before + 1


def test_slices_marked_before_the_whole_volume_outlive_it(tmp_path):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    for index in (2, 3):
        session.review_slice(0, index)
    for index in range(SHAPE[1]):  # all of an axis: the whole volume in other words
        session.review_slice(1, index)
    session.review_volume()
    session.review_volume(False)
    left = Reviewed(False, (frozenset({2, 3}), frozenset(), frozenset()))
    assert session.state.reviewed == left
    assert not left.is_whole(SHAPE)
    assert replay(tmp_path / "s").state.reviewed == left
    session.close()


def test_the_whole_volume_taken_back_without_a_mark_leaves_nothing(session):
    for index in range(SHAPE[0]):
        session.review_slice(0, index)
    session.review_volume(False)
    assert session.state.reviewed.is_empty()


def test_another_programs_array_is_not_vouched_for(session):
    session.review_volume()
    fill(session, SMALL, 1, "tool", {"tool": "assign"})
    assert session.state.reviewed.slices[0] == {0, 3, 4, 5}


def test_a_step_without_voxels_takes_no_mark(session):
    number = session.add_object(1)
    session.add_prompt(number, Point((5.0, 2.0, 7.0)))
    session.review_volume()
    request = session.request(number)
    session.apply_result(request, SMALL, np.zeros((2, 3, 2), bool))
    session.undo()
    assert session.state.reviewed.whole


def test_lost_marks_are_in_the_log_before_what_took_them(tmp_path):
    session = create_session(tmp_path / "s", new_volume(), TASK)
    fill(session, SMALL, 1)
    session.review_volume()
    session.undo()
    session.close()
    kinds = [type(record.action).__name__ for record in read_records(tmp_path / "s")]
    assert kinds == ["Edit", "ReviewChange", "ReviewLoss", "Undo"]
    assert replay(tmp_path / "s").state.reviewed == session.state.reviewed
    assert session.state.reviewed.slices[0] == {0, 3, 4, 5}


def test_a_log_without_lost_marks_replays_as_it_did(session):
    """Undo in a log of before takes no mark: what replay makes of old actions stays."""
    fill(session, SMALL, 1)
    session.review_volume()
    session.state.apply(Record(0.0, Undo()))
    assert session.state.reviewed.whole
    assert not session.mask.any()


# -------------------------------------------------------------------- locks


def test_undo_and_redo_wait_for_a_locked_label(session):
    fill(session, SMALL, 1)
    fill(session, (slice(0, 1),) * 3, 2)
    session.set_locked(1)
    assert session.undo(), "the last step left the locked label alone"
    with pytest.raises(UserError, match=r"liver, which is locked; unlock it"):
        session.undo()
    assert (session.mask == 1).sum() == 2 * 3 * 2
    session.set_locked(1, False)
    assert session.undo()
    assert not session.mask.any()
    session.set_locked(1)
    with pytest.raises(UserError, match="unlock"):
        session.redo()
    assert not session.mask.any()
    session.set_locked(1, False)
    assert session.redo()
    assert (session.mask == 1).sum() == 2 * 3 * 2


def test_a_refused_undo_takes_no_mark(session):
    fill(session, SMALL, 1)
    session.review_volume()
    session.set_locked(1)
    with pytest.raises(UserError, match="unlock"):
        session.undo()
    assert session.state.reviewed.whole


# ------------------------------------------------------------------ history


def held(n_bytes):
    return Delta((slice(0, 1),) * 3, "uint8", Held(bytes(n_bytes)), (1,), 1)


DEEDS = st.one_of(
    st.tuples(st.integers(0, 99), st.booleans()), st.sampled_from(["undo", "redo", "object"])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(DEEDS, max_size=150), st.integers(0, 3000))
def test_the_memory_of_the_history_is_the_sum_of_its_boxes(deeds, limit):
    history = History(limit)
    for deed in deeds:
        match deed:
            case "undo" if history.n_done:
                history.undo()
            case "redo" if history.n_undone:
                history.redo()
            case "object":
                history.push(ObjectChange(PromptedObject(1, 1)))
            case (n_bytes, joins):
                history.push(Edit(held(n_bytes), "brush", joins=joins))
        steps = [*history._done, *history._undone]
        edits = [change for step in steps for change in step if isinstance(change, Edit)]
        assert history.held_bytes == sum(len(edit.delta.packed.data) for edit in edits)


def test_steps_are_told_apart_after_the_oldest_were_forgotten():
    history = History(0)
    for n in range(60):
        history.push(Edit(held(n + 1), "brush"))
    since = history.steps
    for n in range(3):
        history.push(Edit(held(n + 70), "brush"))
    assert [len(edit.delta.packed.data) for edit in history.drawn_since(since)] == [70, 71, 72]


def test_a_push_does_not_walk_through_all_steps():
    class Counted(Held):
        reads = 0

        @property
        def held_bytes(self):
            Counted.reads += 1
            return 1

    history = History(0)
    for _ in range(300):
        history.push(Edit(replace(held(1), packed=Counted(b"x")), "brush"))
    assert history.n_done == 50
    assert Counted.reads <= 2 * 300
