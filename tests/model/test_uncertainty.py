import numpy as np
import pytest

from napari_ka2er.model.uncertainty import (
    disagreement_bits,
    entropy_bits,
    sigmoid,
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
    assert sigmoid(np.array([2.0])) == pytest.approx(1 / (1 + np.exp(-2)))


def test_the_least_sure_label_counts():
    logits = np.array([[9.0, 9.0], [9.0, 0.0]], np.float32).reshape(2, 1, 1, 2)
    result = uncertainty_of(logits)
    assert result[0, 0, 0] < 0.01
    assert result[0, 0, 1] == pytest.approx(1)


def test_disagreement_is_half_of_it():
    sure, opposite = np.full((1, 1, 1, 1), 20.0), np.full((1, 1, 1, 1), -20.0)
    assert uncertainty_of(sure, opposite)[0, 0, 0] == pytest.approx(0.5, abs=1e-3)
    assert uncertainty_of(sure, sure)[0, 0, 0] == pytest.approx(0, abs=1e-3)
