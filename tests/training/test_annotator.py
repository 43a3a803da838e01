"""The simulated annotator on a (5, 16, 20) volume with voxels of 4 x 1 x 1 mm."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from ka2er_training.annotator import Annotator
from ka2er_training.effort import Budget, Effort, WorkClock
from ka2er_training.strokes import stroke_through
from napari_ka2er.core.correction import correction_of, export_package
from napari_ka2er.core.package import check_package, read_package
from napari_ka2er.core.session import Session
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Geometry, Volume

SHAPE = (5, 16, 20)
TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen")))
EFFORT = Effort(click_s=3.0, undo_s=0.5, stroke_s=1.0, mm_per_s=20.0, slice_s=2.0)


@dataclass
class Result:
    box: tuple
    mask: np.ndarray
    predicted_dice: float = 0.5


def truth():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:8, 2:8] = 1
    labels[1:4, 2:8, 12:18] = 1
    labels[1:4, 10:14, 5:15] = 2
    return labels


def automatic():
    """One part of the liver is missing, a piece beside the spleen is too much."""
    labels = truth()
    labels[1:4, 2:8, 12:18] = 0
    labels[2, 10:14, 16:19] = 2
    return labels


@pytest.fixture
def clock():
    return WorkClock(1000.0)


@pytest.fixture
def session(clock):
    session = Session(Volume(np.zeros(SHAPE), np.diag([4.0, 1, 1, 1])), TASK, clock=clock)
    session.set_student("v0001", "sparse")
    session.write((slice(None),) * 3, automatic(), "automatic")
    return session


def repairing(session):
    """A student that puts right the piece that was clicked."""

    def answer(request):
        mask, gt = request.previous(), truth() == request.object.label
        voxel = session.volume.geometry.to_index(request.prompts[-1].position_mm)
        z, y, x = np.rint(voxel).astype(int)
        pieces, _ = ndimage.label(mask != gt)
        assert request.prompts[-1].positive == gt[z, y, x]
        piece = pieces == pieces[z, y, x]
        (box,) = ndimage.find_objects(piece.astype(int))
        return Result(box, np.where(piece, gt, mask)[box])

    return answer


def spoiling(request):
    """A student that removes everything."""
    return Result(tuple(slice(0, n) for n in SHAPE), np.zeros(SHAPE, bool))


def test_every_error_takes_one_click_of_a_student_that_listens(session, clock):
    annotator = Annotator(session, truth(), clock, Budget(content_dice=1.0), EFFORT)
    annotator.click(repairing(session))
    np.testing.assert_array_equal(session.mask, truth())
    work = annotator.work
    assert (work.n_clicks, work.n_undone, work.n_strokes) == (2, 0, 0)
    # the larger error is clicked first: 108 voxels of liver, then 12 of spleen
    n_liver, n_spleen = 216, 120
    spleen = 2 * n_spleen / (2 * n_spleen + 12)
    assert [seconds for seconds, _ in work.course] == [0, 3, 6]
    assert work.course[0][1] == pytest.approx(
        {"liver": 2 * 108 / (108 + n_liver), "spleen": spleen}
    )
    assert work.course[1][1] == pytest.approx({"liver": 1.0, "spleen": spleen})
    assert work.course[2][1] == {"liver": 1.0, "spleen": 1.0}
    assert (work.until(0.9), work.until(0.99), work.until(1.01)) == (3, 6, None)
    assert session.seconds == 6
    assert [len(p) for p in session.state.prompts.values()] == [1, 1]


def test_no_click_is_spent_on_a_label_that_is_good_enough(session, clock):
    annotator = Annotator(session, truth(), clock, Budget(content_dice=0.9), EFFORT)
    annotator.click(repairing(session))
    assert annotator.work.n_clicks == 1


def test_a_worse_answer_is_taken_back_and_still_costs(session, clock):
    before = session.mask.copy()
    annotator = Annotator(session, truth(), clock, Budget(n_clicks=4), EFFORT)
    annotator.click(spoiling)
    np.testing.assert_array_equal(session.mask, before)
    assert (annotator.work.n_clicks, annotator.work.n_undone) == (4, 4)
    assert annotator.work.course[-1][0] == 4 * 3.5
    assert not any(session.state.prompts.values())


def test_painted_slices_become_right_and_are_marked(session, clock, tmp_path):
    annotator = Annotator(session, truth(), clock, Budget(content_share=0.0), EFFORT)
    annotator.paint(0, [2])
    np.testing.assert_array_equal(session.mask[2], truth()[2])
    np.testing.assert_array_equal(session.mask[[1, 3]], automatic()[[1, 3]])
    assert session.state.reviewed.slices == (frozenset({2}), frozenset(), frozenset())
    assert annotator.work.n_strokes >= 2
    assert annotator.work.course[-1][0] >= 2 + annotator.work.n_strokes * 1.0

    package = export_package(tmp_path / "p", [correction_of(session, "simulated")])
    assert check_package(package) == []
    record = read_package(package).cases[0].record
    assert record["reviewed_share"] == pytest.approx(1 / 5)
    assert record["changed_voxels"]["liver"] == {"gained": 36, "lost": 0}
    assert record["changed_voxels"]["spleen"] == {"gained": 0, "lost": 12}


def test_a_slice_that_is_still_wrong_is_not_marked(session, clock):
    annotator = Annotator(session, truth(), clock, Budget(n_strokes=1, content_share=0.0), EFFORT)
    annotator.paint(0, [2, 1, 4])
    assert annotator.work.n_strokes == 1
    assert session.state.reviewed.slices[0] == {4}  # was right: there is nothing in it


def test_all_is_in_the_session_s_history(session, clock):
    annotator = Annotator(session, truth(), clock, Budget(content_share=0.0), EFFORT)
    annotator.click(repairing(session))
    annotator.paint(0, range(5))
    while session.undo():
        pass
    assert not session.mask.any()


LATTICE = Geometry((4, 30, 40), np.diag([3.0, 1.0, 0.5, 1.0]))


def test_a_stroke_follows_the_middle_of_a_bar():
    """A bar of 3 x 30 voxels (3 x 15 mm): one stroke covers its middle row from end to end."""
    piece = np.zeros((30, 40), bool)
    piece[10:13, 5:35] = True
    region, covered, length_mm = stroke_through(piece, LATTICE, 0, 2)
    assert region[0] == slice(2, 3)
    whole = np.zeros(LATTICE.shape, bool)
    whole[region] = covered
    assert whole[2, 11, 7:33].all()
    assert not (whole[2] & ~piece).any()
    assert 12 < length_mm < 15


@pytest.mark.parametrize(("axis", "index"), [(0, 3), (1, 29), (2, 0)])
def test_strokes_on_any_axis_cover_any_piece_in_the_end(axis, index):
    rng = np.random.default_rng(axis)
    noise = ndimage.gaussian_filter(rng.normal(size=LATTICE.shape), 2)
    wrong = np.take(noise > 0, index, axis)
    covered = np.zeros(LATTICE.shape, bool)
    for _ in range(1000):
        left = wrong & ~np.take(covered, index, axis)
        pieces, n_pieces = ndimage.label(left, np.ones((3, 3)))
        if not n_pieces:
            break
        region, brush, _ = stroke_through(pieces == 1, LATTICE, axis, index)
        covered[region] |= brush
    np.testing.assert_array_equal(np.take(covered, index, axis), wrong)
    assert covered.sum() == wrong.sum()
