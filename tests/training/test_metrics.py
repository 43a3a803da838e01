import numpy as np
import pytest
from scipy import ndimage

from ka2er_training.metrics import score_case, score_label, surface_scores
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Geometry

SPACING = (2.0, 1.0, 1.5)
GEOMETRY = Geometry((10, 20, 24), np.diag([*SPACING, 1.0]))


def box(*bounds):
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[tuple(slice(*b) for b in bounds)] = True
    return mask


def test_a_perfect_mask():
    mask = box((2, 6), (4, 12), (3, 9))
    scores = score_label(mask, mask, GEOMETRY)
    assert (scores.status, scores.dice, scores.nsd, scores.hd95_mm) == ("scored", 1.0, 1.0, 0.0)
    assert scores.tolerance_mm == 2.0  # two voxels of the finest axis, 1 mm
    assert scores.gt_ml == pytest.approx(4 * 8 * 6 * 3.0 / 1000)


@pytest.mark.parametrize(("axis", "distance_mm"), [(0, 4.0), (1, 2.0), (2, 3.0)])
def test_hd95_of_a_moved_plate_is_the_move_in_mm_on_every_axis(axis, distance_mm):
    """A one-voxel plate across `axis`, moved by two voxels: every surface voxel is that far off."""
    bounds = [(0, n) for n in GEOMETRY.shape]
    gt = box(*(b if a != axis else (3, 4) for a, b in enumerate(bounds)))
    pred = box(*(b if a != axis else (5, 6) for a, b in enumerate(bounds)))
    assert surface_scores(gt, pred, SPACING, 1.0)[1] == pytest.approx(distance_mm)


def test_nsd_counts_a_move_within_the_tolerance_as_agreement():
    gt, pred = box((2, 8), (4, 12), (3, 9)), box((2, 8), (5, 13), (3, 9))  # moved by 1 mm in Y
    assert surface_scores(gt, pred, SPACING, 1.01)[0] == pytest.approx(1.0)
    strict = surface_scores(gt, pred, SPACING, 0.5)[0]
    assert 0.3 < strict < 0.9  # the four sides along Y agree, the two ends do not


def test_the_border_of_the_volume_is_a_surface_and_cropping_changes_nothing():
    rng = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(12, 14, 16)), 2) > 0.02 for _ in range(2)]
    assert smooth[0][0].any()  # touches the border
    roomy = [np.pad(mask, ((3, 4), (5, 2), (1, 6))) for mask in smooth]
    near, far = (surface_scores(*masks, SPACING, 1.0) for masks in (smooth, roomy))
    assert near == pytest.approx(far)


def test_hd95_is_the_percentile_of_brute_force_surface_distances():
    gt, pred = box((2, 8), (4, 12), (3, 9)), box((1, 8), (4, 15), (3, 9))
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * SPACING for mask in (gt, pred)]
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    expected = max(np.percentile(between.min(axis), 95) for axis in (0, 1))
    assert surface_scores(gt, pred, SPACING, 1.0)[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("has_gt", "has_pred", "status"),
    [(True, False, "missed"), (False, True, "invented")],
)
def test_an_empty_mask_gets_the_worst_scores_not_nan(has_gt, has_pred, status):
    mask, empty = box((2, 6), (4, 12), (3, 9)), box((0, 0), (0, 0), (0, 0))
    scores = score_label(mask if has_gt else empty, mask if has_pred else empty, GEOMETRY)
    assert (scores.status, scores.dice, scores.nsd) == (status, 0.0, 0.0)
    assert scores.hd95_mm == pytest.approx(np.sqrt(20.0**2 + 20.0**2 + 36.0**2))


def test_a_label_that_is_nowhere_is_left_out():
    empty = box((0, 0), (0, 0), (0, 0))
    scores = score_label(empty, empty, GEOMETRY)
    assert (scores.status, scores.dice, scores.nsd, scores.hd95_mm) == ("absent", None, None, None)


def test_a_case_is_scored_per_label_of_its_task():
    task = Task("two", (Label(1, "first"), Label(4, "second")))
    gt = box((2, 6), (4, 12), (3, 9)).astype(np.uint8)
    gt[8, 15, 20] = 4
    pred = np.where(gt == 1, 1, 0).astype(np.uint8)
    scores = score_case(gt, pred, GEOMETRY, task)
    assert scores["first"].dice == 1.0
    assert scores["second"].status == "missed"


def test_shapes_must_match_the_lattice():
    with pytest.raises(ValueError, match="shape"):
        score_label(np.ones((2, 2, 2)), np.ones((2, 2, 2)), GEOMETRY)
