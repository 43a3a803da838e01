import math

import numpy as np
import pytest

from ka2er_training.bench.stats import bootstrap, bootstrap_means, compare, holm, mean_over_seeds


def test_the_interval_of_a_constant_is_that_constant():
    interval = bootstrap([0.5] * 7)
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.5, 0.5, 0.5, 7)


def test_the_interval_of_two_cases_spans_them():
    """Of four equally likely resamples, one is (0, 0) and one (1, 1)."""
    interval = bootstrap([0.0, 1.0])
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)


def test_the_interval_is_about_two_standard_errors_wide():
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    interval = bootstrap(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.1)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.1)


def test_one_case_has_a_mean_and_no_interval():
    interval = bootstrap([0.7])
    assert (interval.mean, interval.n, str(interval)) == (0.7, 1, "0.700")
    assert math.isnan(interval.low)
    assert str(bootstrap([])) == "-"


def test_differences_are_paired_by_case_and_strangers_left_out():
    """The cases differ by 0.6, the systems by 0.1 on each: unpaired, that would be noise."""
    first = {f"case{i}": 0.3 + 0.1 * i for i in range(7)} | {"only here": 0.0}
    second = {case: value - 0.1 for case, value in first.items() if case != "only here"}
    comparison = compare(first, second)
    assert comparison.difference.n == 7
    assert comparison.difference.low == pytest.approx(0.1)
    assert comparison.p == pytest.approx(2 / 2**7)  # all 7 signs alike, either way round


def test_means_of_other_cases_are_both_uncertain():
    after = [0.5, 0.6, 0.7, 0.6]
    sure = bootstrap_means([([0.8] * 4, after)])
    unsure = bootstrap_means([([0.6, 1.0, 0.6, 1.0], after)])
    assert (sure.mean, sure.n) == (pytest.approx(-0.2), 4)
    assert unsure.mean == pytest.approx(-0.2)
    assert unsure.high - unsure.low > 1.5 * (sure.high - sure.low)
    assert (sure.low, sure.high) == pytest.approx((-0.275, -0.125), abs=0.01)
    two = bootstrap_means([([0.8] * 4, after), ([0.5], [0.4, 0.2])])
    assert (two.mean, two.n) == (pytest.approx((4 * -0.2 + 2 * -0.2) / 6), 6)


def test_one_other_case_has_no_interval():
    assert str(bootstrap_means([([0.9, 0.7], [0.6])])) == "-0.200"


def test_too_few_pairs_have_no_p_value_and_equal_systems_have_one():
    few = {f"{i}": float(i) for i in range(5)}
    many = {f"{i}": float(i) for i in range(8)}
    assert math.isnan(compare(few, few).p)
    assert compare(many, many).p == 1.0


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_holm_does_not_count_what_was_not_tested():
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])


def test_seeds_are_averaged_within_a_case():
    seeds = [{"a": 0.2, "b": 1.0}, {"a": 0.4}]
    assert mean_over_seeds(seeds) == pytest.approx({"a": 0.3, "b": 1.0})
