import numpy as np
import pytest

from napari_ka2er.core.metrics import dice, joint_box, volumes_ml
from napari_ka2er.core.volume import Geometry


def test_dice_of_half_overlapping_bars():
    gt, pred = np.zeros((1, 2, 6), bool), np.zeros((1, 2, 6), bool)
    gt[0, 0, 0:4] = True
    pred[0, 0, 2:4] = True
    assert dice(gt, pred) == pytest.approx(2 * 2 / (4 + 2))


def test_dice_is_zero_if_one_mask_is_empty_and_nan_if_both_are():
    empty, full = np.zeros((2, 3, 4)), np.ones((2, 3, 4))
    assert dice(full, empty) == 0 == dice(empty, full)
    assert np.isnan(dice(empty, empty))


def test_dice_refuses_masks_that_numpy_would_broadcast():
    with pytest.raises(ValueError, match="one shape"):
        dice(np.ones((2, 3, 4)), np.ones((1, 3, 4)))


def test_volumes_of_a_sheared_lattice_are_determinants_not_products_of_spacings():
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    affine[0, 1] = 4.0  # shear: the Y step is 5 mm long, the voxel still holds 30 mm3
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0] = 7
    volumes = volumes_ml(labels, Geometry(labels.shape, affine), (7, 9))
    assert volumes == pytest.approx({7: 4 * 30 / 1000, 9: 0.0})


def test_joint_box_holds_both_masks():
    gt, pred = np.zeros((5, 6, 7), bool), np.zeros((5, 6, 7), bool)
    gt[1, 2, 3] = pred[3, 2, 6] = True
    assert joint_box(gt, pred) == (slice(1, 4), slice(2, 3), slice(3, 7))
    assert joint_box(np.zeros_like(gt), np.zeros_like(gt)) is None
