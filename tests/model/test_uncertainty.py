import numpy as np
import pytest

from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.uncertainty import (
    boundary_uncertainty,
    disagreement_bits,
    entropy_bits,
    sigmoid,
    uncertain_regions,
    uncertainty_of,
)


def test_entropy_is_one_bit_at_a_half_and_none_where_certain():
    p = np.array([0, 0.5, 1, 0.11], np.float32)
    np.testing.assert_allclose(entropy_bits(p), [0, 1, 0, 0.49992], atol=1e-4)


def test_only_different_opinions_disagree():
    p, q = np.array([0.0, 0.3, 1.0], np.float32), np.array([1.0, 0.3, 1.0], np.float32)
    np.testing.assert_allclose(disagreement_bits(p, q), [1, 0, 0], atol=1e-4)


def test_sigmoid_does_not_overflow():
    np.testing.assert_allclose(sigmoid(np.array([-1e4, 0, 1e4])), [0, 0.5, 1])
    assert sigmoid(np.array([2.0]), 2.0) == pytest.approx(1 / (1 + np.exp(-1)))


def test_the_least_sure_label_counts():
    logits = np.array([[9.0, 9.0], [9.0, 0.0]], np.float32).reshape(2, 1, 1, 2)
    result = uncertainty_of(logits)
    assert result[0, 0, 0] < 0.01
    assert result[0, 0, 1] == pytest.approx(1)


def test_disagreement_is_half_of_it():
    sure, opposite = np.full((1, 1, 1, 1), 20.0), np.full((1, 1, 1, 1), -20.0)
    assert uncertainty_of(sure, opposite)[0, 0, 0] == pytest.approx(0.5, abs=1e-3)
    assert uncertainty_of(sure, sure)[0, 0, 0] == pytest.approx(0, abs=1e-3)


def test_temperature_makes_unsure():
    logits = np.full((1, 1, 1, 1), 3.0, np.float32)
    assert uncertainty_of(logits, temperatures=[3.0]) > uncertainty_of(logits)


def test_the_boundary_band_is_measured_in_mm():
    """Labels are 1 in the right half; uncertainty is 1 in the four columns around the border.

    x    0 1 2 3 4 5 6 7     (2 mm apart)
    l    0 0 0 0 1 1 1 1
    u    0 0 1 1 1 1 0 0
    """
    labels = np.zeros((1, 3, 8), np.uint8)
    labels[..., 4:] = 1
    uncertainty = np.zeros((1, 3, 8), np.float32)
    uncertainty[..., 2:6] = 1
    geometry = Geometry(labels.shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    assert boundary_uncertainty(uncertainty, labels, geometry, 2.0) == 1
    assert boundary_uncertainty(uncertainty, labels, geometry, 4.0) == pytest.approx(4 / 6)
    assert np.isnan(boundary_uncertainty(uncertainty, np.zeros_like(labels), geometry))


def test_regions_are_ranked_by_size_times_uncertainty():
    uncertainty = np.zeros((6, 7, 8), np.float32)
    uncertainty[0:2, 0:2, 0:2] = 0.6  # 8 voxels
    uncertainty[4, 5, 2:7] = 0.7  # 5 voxels
    uncertainty[4, 5, 4] = 0.9
    uncertainty[0, 6, 7] = 1.0  # 1 voxel
    geometry = Geometry(uncertainty.shape, np.diag([10.0, 10.0, 10.0, 1.0]))
    regions = uncertain_regions(uncertainty, geometry)
    assert [round(r.volume_ml) for r in regions] == [8, 5, 1]
    assert regions[1].position_mm == (40.0, 50.0, 40.0)
    assert regions[1].box == (slice(4, 5), slice(5, 6), slice(2, 7))
    assert regions[1].mean == pytest.approx((4 * 0.7 + 0.9) / 5)
    assert len(uncertain_regions(uncertainty, geometry, limit=2)) == 2
    assert uncertain_regions(uncertainty * 0, geometry) == []
