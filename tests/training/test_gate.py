import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ka2er_training.evaluate import Row
from ka2er_training.gate import MIN_HELD, Gain, judge
from ka2er_training.gate_stats import Pair, allowed_loss, bounds, cases_needed, pairs_of
from ka2er_training.metrics import Scores, score_case
from ka2er_training.settings import GateSettings, parse_settings
from ka2er_training.verdicts import Verdict
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Geometry

GATE = GateSettings()
BASE = (0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.78, 0.76)


def row(task, case, dice, label="all"):
    status = "absent" if dice is None else "scored"
    distance = None if dice is None else 1.0
    return Row(
        "x", task, label, case, Scores(status, dice, dice, distance, 1.0, 1.0, 1.0), 0.0, 0.0
    )


def rows(**dices):
    """Rows of tasks from lists of Dice, one case each."""
    return [row(t, f"case{i}", d) for t, values in dices.items() for i, d in enumerate(values)]


def shifted(values, *losses):
    """Values plus losses, which are repeated in turn."""
    return [v + losses[i % len(losses)] for i, v in enumerate(values)]


def held(*gains):
    return Gain({f"held{i}": Pair(0.5, 0.5 + gain) for i, gain in enumerate(gains)})


def test_a_student_that_gains_and_loses_nowhere_is_promoted():
    verdict = judge(
        rows(hip=BASE, lung=BASE),
        rows(hip=shifted(BASE, 0.02), lung=BASE),
        {"hip"},
        GATE,
        {"hip": held(0.03, 0.02, 0.04)},
    )
    assert verdict.promoted
    hip, lung = verdict.tasks
    assert hip.gain == pytest.approx(0.03)
    assert hip.change.mean == hip.change.low == pytest.approx(0.02)  # all alike: no spread
    assert (lung.corrected, lung.gain, lung.change.mean) == (False, None, 0.0)
    assert "hip gains +0.0300" in verdict.reason


def test_a_loss_in_a_task_that_nobody_corrected_refuses():
    verdict = judge(
        rows(hip=BASE, lung=BASE),
        rows(hip=shifted(BASE, 0.02), lung=shifted(BASE, -0.02)),
        {"hip"},
        GATE,
        {"hip": held(0.03, 0.02, 0.04)},
    )
    assert not verdict.promoted
    assert [task.task for task in verdict.tasks if task.problems] == ["lung"]
    assert "lung may lose more than 0.010: lower bound -0.0200" in verdict.reason


def test_a_mean_within_the_margin_does_not_help_if_the_spread_is_wide():
    """Mean loss 0, but +-0.05 from case to case: with 8 cases a loss of 0.01 is well possible."""
    verdict = judge(rows(lung=BASE), rows(lung=shifted(BASE, 0.05, -0.05)), set(), GATE)
    (lung,) = verdict.tasks
    assert not verdict.promoted
    assert lung.change.mean == pytest.approx(0.0)
    assert lung.change.low < -0.03
    # z = 1.96, s = 0.05 * sqrt(8 / 7) -> (1.96 * 0.05345 / 0.01)^2 = 109.7
    assert "about 110 cases" in lung.notes[0]


def test_corrections_that_do_not_gain_refuse_even_if_nothing_is_lost():
    before, after = rows(hip=BASE), rows(hip=shifted(BASE, 0.02))
    verdict = judge(before, after, {"hip"}, GATE, {"hip": held(0.01, -0.02, 0.0)})
    assert not verdict.promoted
    assert "hip does not gain: -0.0033 Dice on 3 corrected cases" in verdict.reason
    assert not judge(before, before, {"hip"}, GATE, {"hip": held(0.0, 0.0, 0.0)}).promoted


def test_with_too_few_held_corrections_the_hold_out_counts_and_the_verdict_says_so():
    before, after = rows(hip=BASE), rows(hip=shifted(BASE, 0.02))
    few = {"hip": held(*[-0.5] * (MIN_HELD - 1))}
    verdict = judge(before, after, {"hip"}, GATE, few)
    assert verdict.promoted
    assert verdict.tasks[0].gain == pytest.approx(0.02)
    assert "only 2 corrected cases were held" in verdict.tasks[0].notes[1]
    assert not judge(before, before, {"hip"}, GATE, few).promoted


def test_corrections_that_contradict_the_hold_out_are_refused_within_the_margin():
    """Wrong labels gain on wrong labels; the hold-out falls a little, but in every case."""
    small = shifted(BASE, -0.004, -0.005, -0.006)
    gains = {"hip": held(0.1, 0.1, 0.1)}
    verdict = judge(rows(hip=BASE), rows(hip=small), {"hip"}, GATE, gains)
    assert verdict.tasks[0].change.low > -0.01
    assert not verdict.promoted
    assert verdict.contradicted
    # the same fall in a task that nobody corrected is within the margin
    assert judge(rows(hip=BASE), rows(hip=small), set(), GATE).promoted


def test_one_case_detects_nothing_and_may_lose_half_the_margin():
    half = 0.01 * 0.5 / 0.975
    assert allowed_loss(1, GATE) == pytest.approx(half)
    for loss, promoted in ((half - 1e-4, True), (half + 1e-4, False)):
        verdict = judge(rows(lung=[0.9]), rows(lung=[0.9 - loss]), set(), GATE)
        assert verdict.promoted is promoted
        assert verdict.tasks[0].change.detectable is None
        assert "cannot detect anything" in verdict.tasks[0].notes[0]


def test_the_margin_shrinks_with_few_cases_and_is_whole_from_six():
    shares = [allowed_loss(n, GATE) / GATE.margin for n in (1, 2, 3, 6, 50)]
    assert shares == pytest.approx([0.5 / 0.975, 0.75 / 0.975, 0.875 / 0.975, 1.0, 1.0])


@pytest.mark.parametrize("differences", [(-0.03, 0.01), (-0.03, 0.0, 0.02), (0.1, -0.02, 0.0, 0.1)])
def test_the_bounds_of_two_to_four_cases_are_the_worst_and_the_best_case(differences):
    found = bounds(differences, GATE)
    assert (found.low, found.high) == pytest.approx((min(differences), max(differences)))


def test_bounds_are_as_wide_as_students_t_for_a_dozen_cases():
    """13 values with mean 0 and s = 1: t(0.975, 12) = 2.1788, so 2.1788 / sqrt(13) = 0.604."""
    values = np.linspace(-1, 1, 13)
    values /= values.std(ddof=1)
    found = bounds(values.tolist(), GATE)
    assert found.low == pytest.approx(-0.604, abs=0.03)
    assert found.high == pytest.approx(0.604, abs=0.03)
    # (t(0.975) + t(0.8)) * s / sqrt(n) = (2.1788 + 0.8726) / 3.6056
    assert found.detectable == pytest.approx(0.846, abs=0.02)


def test_a_task_without_hold_out_is_refused():
    verdict = judge(rows(hip=BASE), rows(hip=BASE), set(), GATE, tasks=("hip", "lung"))
    assert "lung has no hold-out case" in verdict.reason
    assert "cannot detect anything" in verdict.tasks[1].notes[0]
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False))).tasks[0]


def test_cases_that_one_side_lacks_are_an_error_and_not_left_out():
    with pytest.raises(ValueError, match="case7"):
        judge(rows(hip=BASE), rows(hip=BASE[:-1]), set(), GATE)
    with pytest.raises(ValueError, match="lung"):
        judge(rows(hip=BASE, lung=BASE), rows(hip=BASE), set(), GATE)
    with pytest.raises(ValueError, match="two"):
        judge(rows(hip=BASE) * 2, rows(hip=BASE), set(), GATE)


def test_a_label_that_only_one_of_the_two_invents_costs_that_one():
    before = [row("t", "a", 0.8, "one"), row("t", "a", None, "two"), row("t", "b", None, "one")]
    after = [row("t", "a", 0.8, "one"), row("t", "a", 0.0, "two"), row("t", "b", None, "one")]
    assert pairs_of(before, after) == {"a": Pair(pytest.approx(0.9), pytest.approx(0.4))}


def test_verdicts_survive_json():
    gains = {"hip": held(0.1)}
    verdict = judge(rows(hip=BASE), rows(hip=shifted(BASE, 0.1, 0.0)), {"hip"}, GATE, gains)
    again = Verdict.from_json(json.loads(json.dumps(verdict.to_json(), allow_nan=False)))
    assert again == verdict


def test_gate_settings_are_read_and_misspelt_ones_refused():
    text = "format = 1\n[gate]\nmargin = 0.02\nconfidence = 0.9\nresamples = 2000\n"
    assert parse_settings(text).gate == GateSettings(0.02, 0.9, 2000)
    assert parse_settings('format = 1\n[gate]\ndistilled = "refuse"\n').gate.distilled == "refuse"
    wrong = ("margins = 0.02", "confidence = 95", "resamples = 2.5", "resamples = true")
    for bad in (*wrong, 'distilled = "perhaps"', "distilled = true"):
        with pytest.raises(UserError, match="gate"):
            parse_settings(f"format = 1\n[gate]\n{bad}\n")


DIFFERENCES = st.lists(st.floats(-0.05, 0.05), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(DIFFERENCES)
def test_a_constant_loss_flips_the_verdict_exactly_at_the_margin(differences):
    gate = GateSettings(resamples=500)
    to_go = bounds(differences, gate).low + allowed_loss(len(differences), gate)
    base = [0.5] * len(differences)
    for loss, promoted in ((to_go - 1e-6, True), (to_go + 1e-6, False)):
        after = [0.5 + d - loss for d in differences]
        assert judge(rows(t=base), rows(t=after), set(), gate).promoted is promoted


@settings(max_examples=40, deadline=None)
@given(DIFFERENCES, st.randoms(use_true_random=False))
def test_the_order_of_cases_does_not_matter(differences, random):
    gate = GateSettings(resamples=500)
    before = rows(t=[0.5] * len(differences))
    after = rows(t=[0.5 + d for d in differences])
    verdict = judge(before, after, {"t"}, gate)
    random.shuffle(before)
    random.shuffle(after)
    assert judge(before, after, {"t"}, gate) == verdict


@settings(max_examples=40, deadline=None)
@given(DIFFERENCES, st.floats(0.0, 0.05))
def test_who_gains_more_is_never_refused_where_the_other_is_promoted(differences, more):
    gate = GateSettings(resamples=500)
    base = [0.5] * len(differences)
    lesser = judge(rows(t=base), rows(t=[0.5 + d for d in differences]), set(), gate)
    better = judge(rows(t=base), rows(t=[0.5 + d + more for d in differences]), set(), gate)
    assert better.promoted or not lesser.promoted


def balls(seed):
    """Two boxes at places that the seed chooses, and a prediction that is 1 voxel too thick."""
    rng = np.random.default_rng(seed)
    truth, found = np.zeros((2, 16, 20, 24), np.uint8)
    for value in (1, 2):
        z, y, x = rng.integers((2, 2, 2), (8, 10, 12))
        found[z : z + 6, y : y + 5, x : x + 7] = value
        truth[z : z + 5, y : y + 5, x : x + 7] = value
    return truth, found


def test_twenty_students_with_shuffled_predictions_are_refused_twenty_times():
    task = Task("boxes", (Label(1, "a"), Label(2, "b")))
    geometry = Geometry((16, 20, 24), np.diag([2.0, 1.0, 1.5, 1.0]))
    cases = [balls(seed) for seed in range(6)]
    scored = {
        (i, j): score_case(truth, found, geometry, task)
        for i, (truth, _) in enumerate(cases)
        for j, (_, found) in enumerate(cases)
    }

    def rows_of(order):
        return [
            Row("x", "boxes", label, f"case{i}", scores, 0.0, 0.0)
            for i, j in enumerate(order)
            for label, scores in scored[i, j].items()
        ]

    good, refused = rows_of(range(6)), 0
    for seed in range(20):
        order = np.roll(np.random.default_rng(seed).permutation(6), seed % 5 + 1)
        # whoever made these labels also made the held corrections: they seem to gain
        gains = {"boxes": held(0.2, 0.3, 0.1)}
        refused += not judge(good, rows_of(order), {"boxes"}, GATE, gains).promoted
    assert refused == 20
    assert judge(good, good, set(), GATE).promoted


def test_an_unknown_spread_needs_no_number_of_cases():
    assert cases_needed([0.1], GATE) is None
    assert cases_needed([0.1, 0.2], GateSettings(margin=0.0)) is None
    assert math.isnan(bounds([], GATE).mean)
