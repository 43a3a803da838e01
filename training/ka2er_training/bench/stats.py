"""Intervals and paired tests over cases.

Cases are what varies in the population, so that intervals resample cases; seeds are averaged within
a case first and their spread is reported beside it, never mixed into the interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import wilcoxon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

N_RESAMPLES = 10_000
# Fewer pairs than this cannot reach p < 0.05 in a two-sided signed-rank test.
MIN_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over cases and its 95 % bootstrap interval.

    Parameters
    ----------
    mean : float
        NaN without cases.
    low, high : float
        Ends of the interval; both NaN with fewer than two cases, for then there is none.
    n : int
        Number of cases.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return "-"
        if np.isnan(self.low):
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: Sequence[float], seed: int = 0, n_resamples: int = N_RESAMPLES) -> Interval:
    """Return the mean of `values` (one per case) with its percentile bootstrap interval."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2:
        mean = float(data[0]) if data.size else float("nan")
        return Interval(mean, float("nan"), float("nan"), int(data.size))
    rng = np.random.default_rng(seed)
    means = data[rng.integers(0, data.size, (n_resamples, data.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(data.mean()), float(low), float(high), int(data.size))


def bootstrap_means(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int = 0
) -> Interval:
    """Return how far means of other cases lie apart, with a percentile bootstrap interval.

    Parameters
    ----------
    groups : sequence of (sequence of float, sequence of float)
        Values before and after, one per case, of which none are the same case; neither empty.
        Each side is resampled: the uncertainty of both means counts.
    seed : int
        Of the resampling.

    Returns
    -------
    Interval
        Mean after minus mean before, of all groups weighted by their cases after; `n` counts
        those.  No interval for fewer than two.
    """
    weights = np.array([len(after) for _, after in groups], dtype=np.float64)
    rng = np.random.default_rng(seed)
    found = np.array([_mean_change(rng, *map(np.asarray, group)) for group in groups])
    changes = weights @ found / weights.sum()
    n = int(weights.sum())
    low, high = np.quantile(changes[1:], [0.025, 0.975]) if n > 1 else (np.nan, np.nan)
    return Interval(float(changes[0]), float(low), float(high), n)


def _mean_change(rng: np.random.Generator, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the difference of the means, and then those of all resamples."""
    means = [
        np.concatenate([[data.mean()], data[drawn].mean(axis=1)])
        for data in (before, after)
        for drawn in [rng.integers(0, data.size, (N_RESAMPLES, data.size))]
    ]
    change: np.ndarray = means[1] - means[0]
    return change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same cases: `difference` is the first minus the second.

    Parameters
    ----------
    difference : Interval
        Mean paired difference.
    p : float
        Of Wilcoxon's two-sided signed-rank test; NaN with fewer than `MIN_PAIRS` cases, 1 if all
        differences are 0.
    """

    difference: Interval
    p: float


def compare(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Return the paired comparison of two systems' values by case.

    Cases that only one system has are left out: pairs are what makes the comparison sharp.
    """
    shared = sorted(first.keys() & second.keys())
    differences = np.array([first[case] - second[case] for case in shared])
    return Comparison(bootstrap(differences.tolist()), _signed_rank(differences))


def _signed_rank(differences: np.ndarray) -> float:
    if differences.size < MIN_PAIRS:
        return float("nan")
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method; NaN stays NaN and is not counted.

    References
    ----------
    Holm 1979, Scandinavian Journal of Statistics 6:65-70.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (order.size - rank) * float(p[index])))
        adjusted[index] = largest
    return [float(value) for value in adjusted]


def mean_over_seeds(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each case's mean over the seeds that scored it."""
    cases = sorted(set().union(*by_seed)) if by_seed else []
    return {
        case: float(np.mean([seed[case] for seed in by_seed if case in seed])) for case in cases
    }
