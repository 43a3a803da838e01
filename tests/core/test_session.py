"""Sessions on a (6, 8, 10) volume with oblique axes and voxels of 3 x 1 x 2 mm."""

import time
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.prompts import Box, Point
from napari_ka2er.core.review import Reviewed, Status
from napari_ka2er.core.session import Session
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen"), Label(3, "vessel")))
SHAPE = (6, 8, 10)


def oblique() -> np.ndarray:
    """Voxels of 3 x 1 x 2 mm, turned by 20 degrees about the first axis, away from the origin."""
    affine = np.eye(4)
    c, s = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([3.0, 1.0, 2.0])
    affine[:3, 3] = (-40, 12, 7)
    return affine


def new_session(**options):
    return Session(Volume(np.zeros(SHAPE, np.int16), oblique()), TASK, **options)


@pytest.fixture
def session():
    return new_session()


def box(z, y, x):
    return tuple(slice(*bounds) for bounds in (z, y, x))


def at(session, z, y, x, positive=True):
    z, y, x = session.volume.geometry.to_world((z, y, x))
    return Point((float(z), float(y), float(x)), positive)


def fill(session, region, value, source="brush"):
    shape = session.mask[region].shape
    return session.write(region, np.full(shape, value), source)


def answer(session, number, region, result=None):
    request = session.request(number)
    shape = session.mask[region].shape
    return session.apply_result(request, region, np.ones(shape, bool) if result is None else result)


def test_an_edit_keeps_only_the_box_that_changed_and_names_it(session):
    fill(session, box((2, 4), (3, 5), (1, 3)), 1)
    regions = []
    session.changed.connect(regions.append)

    fill(session, box((0, 6), (3, 5), (1, 3)), 1)  # two of the six slices have it already
    assert regions == [box((0, 6), (3, 5), (1, 3))]
    fill(session, box((2, 5), (3, 5), (1, 5)), 1)
    assert regions[1] == box((2, 5), (3, 5), (3, 5))
    assert session.state.history.last.delta.n_voxels == 3 * 2 * 2


def test_an_edit_that_changes_nothing_is_no_step(session):
    assert fill(session, box((2, 4), (3, 5), (1, 3)), 1)
    assert not fill(session, box((2, 4), (3, 5), (1, 3)), 1)
    assert session.state.history.n_done == 1


def test_the_mask_cannot_be_changed_behind_the_history(session):
    with pytest.raises(ValueError, match="read-only"):
        session.mask[0, 0, 0] = 1


def test_undo_and_redo_go_through_brush_model_tool_and_prompt_on_one_history(session):
    fill(session, box((0, 6), (0, 8), (0, 5)), 1, "automatic")
    number = session.add_object(2)
    session.add_prompt(number, at(session, 1, 1, 1))
    answer(session, number, box((0, 2), (0, 2), (0, 2)))
    fill(session, box((4, 5), (4, 5), (4, 5)), 3)
    masks = [session.mask.copy()]
    while session.undo():
        masks.append(session.mask.copy())

    # brush, prompt with its object and its result, automatic result
    assert len(masks) == 4
    assert [int((m == 2).sum()) for m in masks] == [8, 8, 0, 0]
    assert not masks[-1].any()
    assert not session.prompts(number)
    for mask in reversed(masks[:-1]):
        assert session.redo()
        np.testing.assert_array_equal(session.mask, mask)
    assert not session.redo()
    assert list(session.prompts(number).values()) == [at(session, 1, 1, 1)]


def test_more_than_fifty_steps_can_be_taken_back_however_large_they_are():
    session = new_session()
    session.state.history._limit_bytes = 0
    for step in range(80):
        fill(session, box((0, 6), (0, 8), (0, 10)), 1 + step % 2)
    assert session.state.history.n_done == 50
    assert not session.state.history.is_complete
    while session.undo():
        pass
    assert (session.mask == 2).all()  # what the 30th step had written


def test_what_was_undone_is_forgotten_by_the_next_edit(session):
    fill(session, box((0, 1), (0, 1), (0, 1)), 1)
    session.undo()
    fill(session, box((1, 2), (1, 2), (1, 2)), 2)
    assert not session.redo()


INDICES = st.tuples(*(st.integers(0, n - 1) for n in SHAPE))
REGIONS = st.tuples(
    *(st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in SHAPE)
).map(lambda bounds: tuple(slice(*b) for b in bounds))
COMMANDS = st.one_of(
    st.tuples(st.just("write"), REGIONS, st.integers(0, 3)),
    st.tuples(st.just("object"), st.integers(1, 3), st.booleans()),
    st.tuples(
        st.just("prompt"), st.integers(0, 3), st.tuples(*(st.integers(0, n - 1) for n in SHAPE))
    ),
    st.tuples(
        st.just("move"), st.integers(0, 9), st.tuples(*(st.integers(0, n - 1) for n in SHAPE))
    ),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("result"), st.integers(0, 3), REGIONS, st.integers(0, 2**16)),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
    st.tuples(st.just("lock"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("review"), st.integers(0, 2), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("label"), st.integers(1, 300)),
)


def perform(session, command):
    """Do what a command says, if the session has what it needs."""
    objects = sorted(session.state.objects)
    prompts = sorted(n for o in objects for n in session.prompts(o))
    match command:
        case ("write", region, value):
            fill(session, region, value)
        case ("object", label, corrects):
            session.add_object(label, corrects)
        case ("prompt", which, index) if objects:
            session.add_prompt(objects[which % len(objects)], at(session, *index))
        case ("move", which, index) if prompts:
            session.move_prompt(prompts[which % len(prompts)], at(session, *index))
        case ("delete", which) if prompts:
            session.delete_prompt(prompts[which % len(prompts)])
        case ("result", which, region, seed) if objects:
            number = objects[which % len(objects)]
            if session.request(number):
                rng = np.random.default_rng(seed)
                answer(session, number, region, rng.random(session.mask[region].shape) < 0.5)
        case ("undo",) | ("redo",):
            with suppress(UserError):  # a label is locked
                getattr(session, command[0])()
        case ("lock", label, locked):
            session.set_locked(label, locked)
        case ("review", axis, index, reviewed):
            session.review_slice(axis, index, reviewed)
        case ("label", value):
            session.set_label(Label(value, f"label {value}"))


def snapshot(session):
    """What undo and redo are about."""
    prompts = {o: p for o, p in session.state.prompts.items() if p}
    return session.mask.astype(np.uint32).tobytes(), prompts, dict(session.state.objects)


@settings(max_examples=60, deadline=None)
@given(st.lists(COMMANDS, max_size=25))
def test_undo_all_is_the_start_and_redo_all_is_the_end(commands):
    session = new_session()
    for command in commands:
        perform(session, command)
    for value in session.task.values:
        session.set_locked(value, False)
    while session.redo():  # the end is what redo leads to, also after an undo
        pass
    end = snapshot(session)
    trail = []
    while session.undo():
        trail.append(snapshot(session))
    assert not session.mask.any()
    assert not any(session.state.prompts.values())
    assert not session.state.objects
    for expected in reversed(trail[:-1]):
        session.redo()
        assert snapshot(session) == expected
    if trail:
        session.redo()
    assert snapshot(session) == end


def test_more_labels_than_a_byte_holds(session):
    assert session.mask.dtype == np.uint8
    fill(session, box((0, 1), (0, 1), (0, 2)), 3)
    session.set_label(Label(300, "rib"))
    assert session.mask.dtype == np.uint16
    fill(session, box((0, 1), (0, 1), (1, 2)), 300)
    session.set_label(Label(70_000, "another"))
    assert session.mask.dtype == np.uint32
    assert session.mask[0, 0, :3].tolist() == [3, 300, 0]
    session.undo()  # both were written when the mask was narrower
    assert session.mask[0, 0, :3].tolist() == [3, 3, 0]
    session.undo()
    assert not session.mask.any()


@pytest.mark.parametrize("value", [4, 256, -1, 0.5])
def test_a_value_that_is_no_label_is_refused_and_changes_nothing(session, value):
    with pytest.raises(UserError, match="labels"):
        session.write(box((0, 1), (0, 1), (0, 1)), np.array([[[value]]]), "brush")
    assert not session.mask.any()


def test_labels_of_another_shape_are_refused(session):
    with pytest.raises(UserError, match="shape"):
        session.write(box((0, 2), (0, 2), (0, 2)), np.ones((1, 2, 2), int), "brush")


def test_a_locked_label_neither_loses_nor_gains_a_voxel(session):
    fill(session, box((0, 1), (0, 1), (0, 4)), 1)
    session.set_locked(1)
    values = np.array([[[2, 0, 1, 1, 1, 2]]])
    session.write(box((0, 1), (0, 1), (0, 6)), values, "tool")
    assert session.mask[0, 0, :6].tolist() == [1, 1, 1, 1, 0, 2]
    session.set_locked(1, False)
    session.write(box((0, 1), (0, 1), (0, 6)), values, "tool")
    assert session.mask[0, 0, :6].tolist() == [2, 0, 1, 1, 1, 2]


def test_the_status_of_a_label_starts_with_its_first_voxel(session):
    heard = []
    session.labels_changed.connect(lambda: heard.append(1))
    fill(session, box((0, 1), (0, 1), (0, 1)), 2)
    fill(session, box((0, 1), (0, 1), (1, 2)), 2)
    statuses = session.state.statuses
    assert (statuses[1], statuses[2]) == (Status.NOT_STARTED, Status.IN_PROGRESS)
    assert heard == [1]
    session.set_status(2, Status.FLAGGED)
    fill(session, box((0, 1), (0, 1), (2, 3)), 2)
    assert session.state.statuses[2] == Status.FLAGGED


def test_names_of_labels_stay_unique(session):
    session.set_label(Label(1, "left liver", "#123456"))
    assert session.task.label(1) == Label(1, "left liver", "#123456")
    with pytest.raises(UserError, match="no other label"):
        session.set_label(Label(9, "spleen"))
    with pytest.raises(UserError, match="kidney"):
        session.add_object("kidney")


def test_reviewed_slices_across_any_axis_make_a_region(session):
    session.review_slice(0, 2)
    session.review_slice(2, 9)
    expected = np.zeros(SHAPE, bool)
    expected[2] = True
    expected[:, :, 9] = True
    np.testing.assert_array_equal(session.state.reviewed.mask(SHAPE), expected)
    session.review_slice(0, 2, reviewed=False)
    assert session.state.reviewed.mask(SHAPE).sum() == 6 * 8
    assert not session.state.reviewed.is_whole(SHAPE)
    session.review_volume()
    assert session.state.reviewed.mask(SHAPE).all()
    with pytest.raises(UserError, match="slice"):
        session.review_slice(0, 6)


def test_every_slice_across_one_axis_is_the_whole_volume():
    reviewed = Reviewed()
    for index in range(8):
        assert not reviewed.is_whole(SHAPE)
        reviewed = reviewed.with_slice(1, index)
    assert reviewed.is_whole(SHAPE)
    assert Reviewed.from_json(reviewed.to_json()) == reviewed


@pytest.mark.parametrize("how", ["whole", "slice by slice"])
def test_a_slice_taken_back_from_a_reviewed_volume_leaves_all_but_it(session, how):
    session.review_slice(2, 9)
    if how == "whole":
        session.review_volume()
    else:
        for index in range(SHAPE[1]):
            session.review_slice(1, index)
    assert session.state.reviewed.has_slice(0, 3, SHAPE)
    session.review_slice(0, 3, reviewed=False)
    expected = np.ones(SHAPE, bool)
    expected[3] = False
    np.testing.assert_array_equal(session.state.reviewed.mask(SHAPE), expected)
    assert not session.state.reviewed.has_slice(0, 3, SHAPE)
    session.review_slice(0, 3)
    assert session.state.reviewed.is_whole(SHAPE)
    session.review_volume(False)
    assert session.state.reviewed.is_empty()


def test_a_prompt_outside_the_volume_is_refused(session):
    number = session.add_object(1)
    with pytest.raises(UserError, match="it was ignored"):
        session.add_prompt(number, at(session, 6, 0, 0))
    around = [
        tuple(session.volume.geometry.to_world(i).tolist()) for i in ((-3, -3, -3), (9, 9, 11))
    ]
    session.add_prompt(number, Box(*around))
    assert len(session.prompts(number)) == 1


def test_a_late_answer_is_dropped(session):
    number = session.add_object(1)
    session.add_prompt(number, at(session, 1, 1, 1))
    early = session.request(number)
    session.add_prompt(number, at(session, 2, 2, 2))
    late = session.request(number)
    here = box((0, 3), (0, 3), (0, 3))
    assert not session.apply_result(early, here, np.ones((3, 3, 3), bool))
    assert session.apply_result(late, here, np.ones((3, 3, 3), bool))
    assert not session.apply_result(late, here, np.zeros((3, 3, 3), bool))
    assert session.mask.sum() == 27


def test_an_undone_prompt_makes_the_answer_void(session):
    number = session.add_object(1)
    session.add_prompt(number, at(session, 1, 1, 1))
    request = session.request(number)
    session.undo()
    session.redo()
    assert not session.apply_result(request, box((0, 1), (0, 1), (0, 1)), np.ones((1, 1, 1), bool))
    assert session.request(number) is not None


def test_nothing_is_asked_for_once_the_mask_is_up_to_date(session):
    number = session.add_object(1)
    assert session.request(number) is None
    session.add_prompt(number, at(session, 1, 1, 1))
    answer(session, number, box((0, 2), (0, 2), (0, 2)))
    assert session.request(number) is None
    session.add_prompt(number, at(session, 1, 1, 2))
    answer(session, number, box((0, 2), (0, 2), (0, 2)))  # the very same mask
    assert session.request(number) is None


def test_a_new_prompt_starts_from_the_mask_as_it_is(session):
    fill(session, box((0, 6), (0, 8), (0, 2)), 1, "automatic")
    number = session.add_object(1)
    session.add_prompt(number, at(session, 1, 1, 1, positive=False))
    request = session.request(number)
    assert not request.restarts
    np.testing.assert_array_equal(request.previous(), session.mask == 1)


def test_a_moved_prompt_takes_back_what_the_old_one_did_but_not_the_brush(session):
    """x ->      0 1 2 3 4 5
    automatic      1 1 . . . .
    prompt at 3    1 1 1 1 . .
    brush          1 1 1 . 2 .     (voxel 3 erased, voxel 4 painted)
    prompt at 5    1 1 . . 2 1     (voxel 2 is given back)
    """
    row = box((0, 1), (0, 1), (0, 6))
    session.write(row, np.array([[[1, 1, 0, 0, 0, 0]]]), "automatic")
    number = session.add_object(1)
    prompt = session.add_prompt(number, at(session, 0, 0, 3))
    answer(session, number, box((0, 1), (0, 1), (2, 4)))
    session.write(row, np.array([[[1, 1, 1, 0, 2, 0]]]), "brush")

    session.move_prompt(prompt, at(session, 0, 0, 5))
    request = session.request(number)
    assert request.restarts
    assert request.previous()[0, 0, :6].tolist() == [True, True, False, False, False, False]
    session.apply_result(request, box((0, 1), (0, 1), (5, 6)), np.ones((1, 1, 1), bool))
    assert session.mask[0, 0, :6].tolist() == [1, 1, 0, 0, 2, 1]
    session.undo()
    assert session.mask[0, 0, :6].tolist() == [1, 1, 1, 0, 2, 0]


def test_strokes_made_while_the_decoder_works_stay(session):
    """x ->            0 1 2 3 4 5
    when asked           1 1 1 . . .
    painted meanwhile    1 . 2 . . 1
    the answer           1 1 . 1 1 .
    in the end           1 . 2 1 1 1
    """
    row = box((0, 1), (0, 1), (0, 6))
    session.write(row, np.array([[[1, 1, 1, 0, 0, 0]]]), "automatic")
    number = session.add_object(1)
    session.add_prompt(number, at(session, 0, 0, 3))
    request = session.request(number)
    request.previous()  # the decoder has begun
    session.write(row, np.array([[[1, 0, 2, 0, 0, 1]]]), "brush")
    session.apply_result(request, row, np.array([[[1, 1, 0, 1, 1, 0]]], bool))
    assert session.mask[0, 0, :6].tolist() == [1, 0, 2, 1, 1, 1]
    session.undo()  # the answer is a step of its own now: the stroke came between
    assert session.mask[0, 0, :6].tolist() == [1, 0, 2, 0, 0, 1]


LEAK = """
    x ->           0 1 2 3 4 5
    automatic      . . 2 2 3 3
    + click        1 1 1 1 1 1     (a leak over the other labels)
    brush          1 1 1 2 1 1     (voxel 3 repainted)
    - click        1 . 2 2 3 3
"""


@pytest.mark.parametrize("corrects", [True, False])
@pytest.mark.parametrize("locked", [None, 3])
def test_a_negative_click_on_a_leak_gives_back_what_it_ran_over(session, corrects, locked):
    row = box((0, 1), (0, 1), (0, 6))
    session.write(row, np.array([[[0, 0, 2, 2, 3, 3]]]), "automatic")
    number = session.add_object(1, corrects)
    session.add_prompt(number, at(session, 0, 0, 0))
    answer(session, number, row)
    session.write(box((0, 1), (0, 1), (3, 4)), np.array([[[2]]]), "brush")
    if locked:
        session.set_locked(locked)
    before = session.mask.copy()
    session.add_prompt(number, at(session, 0, 0, 4, positive=False))
    answer(session, number, row, np.array([[[1, 0, 0, 0, 0, 0]]], bool))
    given_back = [0, 0] if locked else [3, 3]  # a locked label gains nothing, a leak does not stay
    assert session.mask[0, 0, :6].tolist() == [1, 0, 2, 2, *given_back], LEAK
    session.undo()
    np.testing.assert_array_equal(session.mask, before)


def test_a_negative_click_takes_nothing_from_elsewhere(session):
    """Another object's leak, and voxels the label had before, become nothing, as ever."""
    row = box((0, 1), (0, 1), (0, 6))
    session.write(row, np.array([[[1, 1, 2, 2, 0, 0]]]), "automatic")
    first = session.add_object(1)
    session.add_prompt(first, at(session, 0, 0, 3))
    answer(session, first, box((0, 1), (0, 1), (3, 4)))
    second = session.add_object(1)
    session.add_prompt(second, at(session, 0, 0, 0, positive=False))
    answer(session, second, row, np.zeros((1, 1, 6), bool))
    assert session.mask[0, 0, :6].tolist() == [0, 0, 2, 0, 0, 0]


def test_an_empty_answer_is_an_answer(session):
    fill(session, box((3, 5), (3, 5), (3, 5)), 1)
    number = session.add_object(1)
    session.add_prompt(number, at(session, 4, 4, 4))
    before = session.mask.copy()
    nothing = box((0, 0), (0, 0), (0, 0))
    assert session.apply_result(session.request(number), nothing, np.zeros((0, 0, 0), bool))
    np.testing.assert_array_equal(session.mask, before)
    assert session.request(number) is None


def test_deleting_the_only_prompt_takes_its_result_away(session):
    fill(session, box((0, 1), (0, 1), (0, 3)), 2)
    number = session.add_object(1)
    prompt = session.add_prompt(number, at(session, 0, 0, 1))
    answer(session, number, box((0, 1), (0, 1), (1, 5)))
    assert session.mask[0, 0, :6].tolist() == [2, 1, 1, 1, 1, 0]
    session.delete_prompt(prompt)
    assert session.mask[0, 0, :6].tolist() == [2, 2, 2, 0, 0, 0]
    session.undo()  # the prompt and its result are back in one step
    assert session.mask[0, 0, :6].tolist() == [2, 1, 1, 1, 1, 0]
    assert list(session.prompts(number)) == [prompt]


def test_another_object_of_the_same_label_leaves_the_first_alone(session):
    first = session.add_object(1, corrects=False)
    session.add_prompt(first, at(session, 0, 0, 0))
    answer(session, first, box((0, 1), (0, 1), (0, 3)))
    second = session.add_object(1, corrects=False)
    session.add_prompt(second, at(session, 0, 0, 5))
    assert not session.request(second).previous().any()
    result = np.zeros((1, 1, 8), bool)
    result[0, 0, 5:8] = True
    answer(session, second, box((0, 1), (0, 1), (0, 8)), result)
    assert session.mask[0, 0, :8].tolist() == [1, 1, 1, 0, 0, 1, 1, 1]
    # back to the first object: its own voxels only
    session.add_prompt(first, at(session, 0, 0, 1))
    assert session.request(first).previous()[0, 0].tolist() == [True] * 3 + [False] * 7
    answer(session, first, box((0, 1), (0, 1), (0, 8)), np.arange(8)[None, None] < 1)
    assert session.mask[0, 0, :8].tolist() == [1, 0, 0, 0, 0, 1, 1, 1]


def test_a_prepared_edit_survives_an_edit_in_between(session):
    prepared = session.prepare(box((0, 1), (0, 1), (0, 3)), np.array([[[1, 2, 3]]]))
    fill(session, box((0, 1), (0, 1), (0, 2)), 3)
    assert session.commit(prepared, "automatic")
    assert session.mask[0, 0, :4].tolist() == [1, 2, 3, 0]
    session.undo()
    assert session.mask[0, 0, :4].tolist() == [3, 3, 0, 0]


def test_what_was_drawn_since_stays_when_a_result_comes(session):
    row = box((0, 1), (0, 1), (0, 8))
    fill(session, box((0, 1), (0, 1), (6, 7)), 3)
    fill(session, box((0, 1), (0, 1), (7, 8)), 3)
    session.undo()
    since = session.state.history.steps
    session.redo()  # drawn again since
    fill(session, box((0, 1), (0, 1), (0, 2)), 3)
    fill(session, box((0, 1), (0, 1), (1, 2)), 0)  # erased
    prepared = session.prepare(row, np.full((1, 1, 8), 2), since)
    fill(session, box((0, 1), (0, 1), (2, 3)), 1, "tool")
    fill(session, box((0, 1), (0, 1), (3, 4)), 1)
    session.undo()  # taken back again
    fill(session, box((0, 1), (0, 1), (4, 5)), 1, "automatic")
    assert session.commit(prepared, "automatic")
    assert session.mask[0, 0, :8].tolist() == [3, 0, 1, 2, 2, 2, 2, 3]
    session.undo()
    assert session.mask[0, 0, :8].tolist() == [3, 0, 1, 0, 1, 0, 3, 3]


def test_time_counts_pauses_of_at_most_a_minute():
    times = iter([100.0, 110.0, 1000.0, 1001.5])
    session = new_session(clock=lambda: next(times))
    for index in range(4):
        session.review_slice(0, index)
    assert session.seconds == pytest.approx(10 + 60 + 1.5)


def test_a_stroke_takes_memory_for_its_box_only():
    volume = Volume(np.broadcast_to(np.zeros((), np.int16), (200, 256, 256)), np.eye(4))
    session = Session(volume, TASK)
    stroke = np.ones((5, 20, 20), np.uint8)
    session.write(box((0, 5), (0, 20), (0, 20)), stroke, "brush")
    tracemalloc.start()
    session.write(box((90, 95), (100, 120), (100, 120)), stroke, "brush")
    session.undo()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000  # the mask has 13 MB, the box 2 kB


def processor_seconds(act):
    """Return what something takes all threads of this process."""
    start = time.process_time()
    act()
    return time.process_time() - start


@pytest.mark.slow
def test_undo_of_a_whole_volume_takes_few_copies_of_its_mask():
    """512 x 512 x 400 voxels: 93 ms (4 copies) on two cores at work, of 100 that are allowed.

    A ratio, in processor time: the other work on a machine is not ours, nor is its speed.
    """
    volume = Volume(np.broadcast_to(np.zeros((), np.int16), (400, 512, 512)), np.eye(4))
    session = Session(volume, TASK)
    z, y, x = np.ogrid[:400, :512, :512]
    organ = (z - 200) ** 2 + (y - 256) ** 2 + (x - 256) ** 2 < 180**2
    session.write((slice(None),) * 3, organ.astype(np.uint8), "automatic")
    session.write((slice(None),) * 3, organ.astype(np.uint8) * 2, "tool")
    steps, copies = [], []
    for step in (session.undo, session.redo) * 3:
        steps.append(processor_seconds(step))
        copies.append(processor_seconds(organ.copy))
    assert np.median(steps) < 8 * np.median(copies)
    assert session.state.history.held_bytes < 10_000_000


def test_an_object_goes_with_its_prompts_and_results_in_one_step(session):
    number = session.add_object(1)
    for z in (0, 1):
        session.add_prompt(number, at(session, z, 1, 2))
        request = session.request(number)
        region = (slice(0, 2), slice(0, 3), slice(0, 4))
        session.apply_result(request, region, np.ones((2, 3, 4), bool))
    other = session.add_object(2)
    session.add_prompt(other, at(session, 5, 7, 9))
    before, n_steps = session.mask.copy(), session.state.history.n_done
    session.delete_object(number)
    assert set(session.state.objects) == {other}
    assert not session.mask.any()
    assert session.state.history.n_done == n_steps + 1
    session.undo()
    assert set(session.state.objects) == {number, other}
    assert len(session.prompts(number)) == 2
    np.testing.assert_array_equal(session.mask, before)
    session.redo()
    assert not session.mask.any()
