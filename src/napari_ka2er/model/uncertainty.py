"""How sure the student is of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def sigmoid(logits: NDArray[Any]) -> Floats:
    """Return probabilities of logits."""
    scores = np.asarray(logits, dtype=np.float32)
    result: Floats = 0.5 * (1.0 + np.tanh(0.5 * scores))  # does not overflow, as exp would
    return result


def entropy_bits(p: Floats) -> Floats:
    """Return the entropy in bits of yes-or-no probabilities: 0 for certain, 1 for p = 0.5."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    result: Floats = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return result


def disagreement_bits(p: Floats, q: Floats) -> Floats:
    """Return the Jensen-Shannon divergence in bits of two yes-or-no probabilities, in [0, 1]."""
    half = np.float32(0.5)
    spread: Floats = entropy_bits((p + q) * half) - (entropy_bits(p) + entropy_bits(q)) * half
    return np.maximum(spread, 0)


def uncertainty_of(logits: NDArray[Any], other: NDArray[Any] | None = None) -> Floats:
    """Return the uncertainty of each voxel.

    Parameters
    ----------
    logits : ndarray, shape (L, Z, Y, X)
        One label each.
    other : ndarray, shape (L, Z, Y, X), optional
        What the same student says without its experts.

    Returns
    -------
    ndarray of float32, shape (Z, Y, X)
        In [0, 1], of the label that is least sure.  Half the entropy plus half the disagreement
        with `other`; the entropy alone without it.
    """
    result = np.zeros(logits.shape[1:], np.float32)
    for index, scores in enumerate(logits):
        p = sigmoid(scores)
        value = entropy_bits(p)
        if other is not None:
            value = value + disagreement_bits(p, sigmoid(other[index]))
            value *= np.float32(0.5)
        np.maximum(result, value, out=result)
    return result
