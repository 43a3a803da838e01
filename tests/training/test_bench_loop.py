"""The loop's benchmark without training: its plan, its packages, its tables."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ka2er_training.bench.cells import Store, in_order
from ka2er_training.bench.loop_annotation import course_of, spread
from ka2er_training.bench.loop_cases import for_round, loop_cases
from ka2er_training.bench.loop_controls import copied_package, damaged, damaged_package, fitted
from ka2er_training.bench.loop_entries import (
    ACCEPTED,
    DISPUTED,
    NO_CHANGE,
    ONLY,
    OURS,
    PARTIAL,
    SCRATCH,
)
from ka2er_training.bench.loop_measuring import clicks_needed
from ka2er_training.bench.loop_plan import LoopPlan
from ka2er_training.bench.loop_report import results_of, summary, verdicts, write_report
from ka2er_training.bench.loop_settings import (
    ControlBudget,
    LoopSettings,
    StartTask,
    read_loop_settings,
)
from ka2er_training.bench.loop_tables import control_table
from ka2er_training.bench.settings import TaskSettings
from ka2er_training.bench.splits import patient_of
from ka2er_training.effort import Work
from ka2er_training.workspace import Case
from napari_ka2er.core.correction import Correction, export_package
from napari_ka2er.core.io import read_labels, write_labels, write_volume
from napari_ka2er.core.package import check_package, read_package
from napari_ka2er.core.review import Reviewed
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume

ORGANS = TaskSettings("organs", (2.0, 1.0, 1.0), test_share=0.3, patients="pairs")
OTHERS = TaskSettings("others", (1.0, 1.0, 1.0), test_share=0.3)
NAMES = {
    "organs": [f"o_{n:02d}" for n in range(1, 61)],
    "others": [f"x_{n:02d}" for n in range(20)],
}
TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen")))
AFFINE = np.array([[0.0, -1.0, 0, 5], [3.0, 0, 0, -7], [0, 0, 1.5, 2], [0, 0, 0, 1]])


def settings(**changes):
    start = {"organs": StartTask(6, 3), "others": StartTask(4, 2)}
    return LoopSettings((ORGANS, OTHERS), "organs", start, **changes)


def plan(**changes):
    return LoopPlan(settings(**changes), NAMES, {"expert": 1, "student": 2})


@pytest.mark.parametrize("name", ["small", "two_cores", "full"])
def test_the_settings_beside_the_code_can_be_read(name):
    found = read_loop_settings(name)
    assert found.corrected == "hippocampus"
    assert found.start["hippocampus"].cases >= 4
    assert found.controls.packages >= 3


def test_unknown_keys_and_tasks_without_a_start_are_refused(tmp_path):
    text = (
        Path(read_loop_settings.__code__.co_filename)
        .with_name("loop_small.toml")
        .read_text("utf-8")
    )
    for bad, words in (
        (text.replace("n_clicks = 2", "n_klicks = 2"), "n_klicks"),
        (text.replace("[start.vertebrae]", "[start.lungs]"), "vertebrae"),
        (text.replace('corrected = "hippocampus"', 'corrected = "liver"'), "liver"),
        (text + "\n[what]\n", "what"),
    ):
        path = tmp_path / "loop.toml"
        path.write_text(bad)
        with pytest.raises(Exception, match=words):
            read_loop_settings(path)


def test_no_patient_is_on_two_sides_or_in_two_rounds():
    cases = loop_cases(NAMES["organs"], ORGANS, 5)  # cuts a pair
    sides = [
        {patient_of(n, ORGANS) for n in side} for side in (cases.start, cases.holdout, cases.new)
    ]
    assert len(cases.start) == 5
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    rounds = [for_round(cases.new, n, 8) for n in (1, 2, 3)]
    assert len(set().union(*map(set, rounds))) == 24
    with pytest.raises(Exception, match="8 new cases in round 9"):
        for_round(cases.new, 9, 8)


def test_the_most_wanted_cells_come_first_and_need_each_other_as_they_should():
    entries = plan().entries()
    tables = [(e.table, e.arm, e.round) for e in entries]
    assert tables[:5] == [
        ("state", NO_CHANGE, 0),
        ("measure", NO_CHANGE, 0),
        ("annotation", OURS, 1),
        ("state", OURS, 1),
        ("measure", OURS, 1),
    ]
    controls = [i for i, e in enumerate(entries) if e.table == "control"]
    assert len(controls) == 20
    assert {entries[i].arm for i in controls[:3]} == {"shuffled", "shifted", "emptied"}
    wanted = [
        tables.index(("measure", OURS, 3)), controls[0], controls[2],
        tables.index(("state", PARTIAL, 1)), tables.index(("state", DISPUTED, 1)),
        tables.index(("state", ONLY, 1)), tables.index(("state", SCRATCH, 3)), controls[3],
    ]  # fmt: skip
    assert wanted == sorted(wanted)
    annotations = [e.cell for e in entries if e.table == "annotation" and e.arm == OURS]
    states = [e.cell for e in entries if e.table == "state" and e.arm == OURS]
    # Every round corrects the masks of the student that the round before has left.
    assert [a.needs[0] for a in annotations] == [entries[0].cell, *states[:-1]]
    scratch = next(e.cell for e in entries if e.table == "state" and e.arm == SCRATCH)
    assert scratch.needs == (entries[0].cell, *annotations)
    partial = next(e.cell for e in entries if e.table == "annotation" and e.arm == PARTIAL)
    assert (partial.settings["slices"], partial.settings["n_clicks"]) == (3, 0)
    assert partial.settings["cases"] == annotations[0].settings["cases"]


def test_a_changed_budget_of_rounds_leaves_the_start_finished():
    one = plan()
    longer = dataclasses.replace(one.settings.retrain, steps=999)
    other = plan(retrain=longer)
    assert one.start(0).digest == other.start(0).digest
    first = {e.cell.digest for e in one.entries() if e.table == "state" and e.arm == OURS}
    assert not first & {e.cell.digest for e in other.entries()}
    only = next(e.cell for e in one.entries() if e.table == "state" and e.arm == ONLY)
    assert only.settings["replay"] is False


def labels(seed):
    drawn = np.zeros((6 + seed, 9, 7), np.uint16)
    drawn[1:4, 2 + seed : 6, 1:5] = 1
    drawn[4:6, 3:8, 2:6] = 2
    return drawn


def good_package(folder, n_cases=3):
    corrections = []
    for seed in range(n_cases):
        noise = np.random.default_rng(seed).normal(size=labels(seed).shape).astype(np.float32)
        record = {"name": f"case {seed}", "patient": f"p{seed}", "seconds": 5.0}
        volume = Volume(noise, AFFINE)
        whole = Reviewed(whole=True)
        corrections.append(Correction(volume, labels(seed), TASK, whole, record))
    return export_package(folder, corrections)


@pytest.mark.parametrize("damage", ["shuffled", "shifted", "emptied"])
def test_a_damaged_package_is_in_order_but_its_labels_are_wrong(tmp_path, damage):
    good = good_package(tmp_path / "good")
    bad = damaged_package(good, tmp_path / "bad", damage, seed=1)
    assert check_package(bad) == []
    before, after = read_package(good), read_package(bad)
    assert [c.content for c in before.cases] == [c.content for c in after.cases]
    assert [c.record["patient"] for c in after.cases] == ["p0", "p1", "p2"]
    for old, new in zip(before.cases, after.cases, strict=True):
        was, now = read_labels(old.labels)[0], read_labels(new.labels)[0]
        assert was.shape == now.shape
        assert (was != now).any()
        assert now.any() == (damage != "emptied")


def test_shuffled_labels_are_all_another_case_s_and_seeds_differ():
    drawn = [np.full((4, 5, 6), value, np.uint16) for value in range(1, 6)]
    orders = set()
    for seed in range(6):
        taken = [int(one.max()) for one in damaged(drawn, "shuffled", seed)]
        assert sorted(taken) == [1, 2, 3, 4, 5]
        assert all(a != b for a, b in zip(taken, (1, 2, 3, 4, 5), strict=True))
        orders.add(tuple(taken))
    assert len(orders) > 1


def test_shifted_labels_move_by_a_quarter_of_each_axis():
    one = np.zeros((8, 12, 4), np.uint16)
    one[4, 6, 2] = 1
    (moved,) = damaged([one], "shifted", 0)
    (z,), (y,), (x,) = np.nonzero(moved)
    assert {abs(z - 4), abs(y - 6), abs(x - 2)} == {2, 3, 1}
    with pytest.raises(ValueError, match="bent"):
        damaged([one], "bent", 0)


def test_labels_fit_into_another_shape_by_their_middle():
    one = np.zeros((4, 6, 5), np.uint16)
    one[2, 3, 2] = 7
    assert fitted(one, (6, 4, 5))[3, 2, 2] == 7
    assert np.array_equal(fitted(fitted(one, (8, 8, 9)), one.shape), one)


def test_a_copied_case_has_another_name_and_the_same_image(tmp_path):
    volume = Volume(np.arange(6 * 9 * 7, dtype=np.float32).reshape(6, 9, 7), AFFINE)
    image, label = tmp_path / "h_0000.nii.gz", tmp_path / "h.nii.gz"
    write_volume(image, volume)
    write_labels(label, labels(0), volume)
    package = copied_package(Case("h", image, label, "p9"), TASK, tmp_path / "copy")
    problems = check_package(package, {read_package(package).cases[0].content: "hold-out case h"})
    assert problems == [
        f"case {read_package(package).cases[0].name}: is the same image as hold-out case h"
    ]
    assert read_package(package).cases[0].record["patient"] == "somebody_new"


def test_slices_to_review_are_spread_over_the_middle_of_the_mask():
    assert spread(np.arange(10, 31), 3, 50) == [12, 20, 28]
    assert spread(np.array([], int), 3, 21) == [2, 10, 18]
    assert spread(np.array([4, 5]), 3, 9) == [4, 5]


def test_a_course_tells_what_clicks_and_strokes_have_reached():
    work = Work(n_clicks=1, n_strokes=1)
    dice = [{"a": 0.5, "b": 0.7}, {"a": 0.9, "b": 0.7}, {"a": 0.9, "b": 0.95}]
    work.course = list(zip((0.0, 3.0, 6.5), dice, strict=True))
    found = course_of(work, 2)
    assert (found["dice_automatic"], found["dice_clicked"]) == pytest.approx((0.6, 0.8))
    assert found["dice_painted"] == pytest.approx(0.925)
    assert found["seconds_until"] == {"0.80": 6.5, "0.85": 6.5, "0.90": 6.5}
    assert found["course"] == [[0.0, 0.6], [3.0, 0.8], [6.5, 0.925]]


def test_a_label_that_never_gets_good_counts_as_one_click_more():
    assert clicks_needed([0.5, 0.8, 0.91, 0.95], 0.9) == 2
    assert clicks_needed([0.92, 0.93], 0.9) == 0
    assert clicks_needed([0.5, 0.6, 0.7], 0.9) == 3


def row(task, case, label, value):
    scores = {"status": "scored", "dice": value, "nsd": value, "hd95_mm": 1.0}
    scores |= {"tolerance_mm": 2.0, "gt_ml": 1.0, "pred_ml": 1.0}
    names = {"system": "s", "task": task, "label": label, "case": case}
    return {**names, "seconds": 1.0, "cpu_s": 1.0, **scores}


def keep(store, entry, result):
    store.keep(entry.cell, result, 1.0, 1.0)


def fill(store, found, gains, *, clicked=True):
    """Write results by hand: organs start at 0.5 and gain, others lose 0.02 in the first round."""
    for entry in found:
        number = entry.round
        if entry.table == "measure":
            lost = 0.02 * min(number, 1) if entry.arm != NO_CHANGE else 0.0
            values = [0.5 + 0.01 * i + gains[number] for i in range(4)]
            rows = [row("organs", f"h{i}", "liver", value) for i, value in enumerate(values)]
            rows += [row("others", "h9", "bone", 0.8 - lost)]
            curve = [0.5] * (4 - number) + [0.9]
            clicks = [{"task": "organs", "label": "liver", "case": "h0", "dice": curve}]
            clicks = clicks if clicked else []
            keep(store, entry, {"version": "v1", "rows": rows, "clicks": clicks})
        elif entry.table == "state":
            cost = 100.0 if entry.arm in (NO_CHANGE, SCRATCH) else 20.0 + 10 * number
            stages, more = {"all": {"seconds": cost, "cpu_s": cost}}, {}
            if entry.arm not in (NO_CHANGE, SCRATCH):  # stopped once: its stage tells the rest only
                more = {"promoted": True, "reason": "", "round": stages["all"]}
                stages = {"all": {"seconds": 1.0, "cpu_s": 1.0}}
            keep(store, entry, {"stages": stages, "candidate": "v2", **more})
        elif entry.table == "annotation":
            case = {
                "case": "n", "n_clicks": 3, "n_undone": 0, "n_strokes": 5, "seconds": 60.0,
                "dice_automatic": 0.5, "dice_clicked": 0.7, "dice_painted": 0.97,
                "seconds_until": {"0.90": 30.0},
            }  # fmt: skip
            keep(store, entry, {"cases": [case] * (1 if entry.arm == PARTIAL else 2)})
        elif entry.table == "control":
            keep(store, entry, {"refused": entry.arm != "shuffled", "reason": "worse"})
        elif entry.table == "copy":
            keep(store, entry, {"refused": True, "problems": ["the same image as h0"]})


def test_a_loop_in_which_nobody_clicked_has_a_report(tmp_path):
    made, store = plan(), Store(tmp_path / "cells")
    fill(store, made.entries(), gains=dict.fromkeys(range(4), 0.1), clicked=False)
    text = write_report(made, store, tmp_path / "report", "command").read_text("utf-8")
    assert "loop_rounds.svg" in text


def test_some_controls_may_have_their_labels_accepted_and_are_told_apart(tmp_path):
    made = plan(controls=ControlBudget(packages=3, accepted=2))
    store = Store(tmp_path / "cells")
    controls = [entry for entry in made.entries() if entry.table == "control"]
    assert [entry.arm for entry in controls] == [
        "shuffled", "shifted", "emptied", f"shuffled{ACCEPTED}", f"shifted{ACCEPTED}",
    ]  # fmt: skip
    assert ["accept_labels" in entry.cell.settings for entry in controls] == [False] * 3 + [
        True
    ] * 2
    for entry in controls:
        test = "expert gate" if entry.arm.endswith(ACCEPTED) else "labels"
        refused = entry.arm != f"shuffled{ACCEPTED}"
        told = {"refused": refused, "reason": "worse", "refused_by": test if refused else ""}
        keep(store, entry, told)
    rows = {row[0]: row[1:] for row in control_table(results_of(made, store)).rows}
    assert rows["shuffled"] == ("1 of 1", "labels: 1", "worse")
    assert rows[f"shuffled{ACCEPTED}"] == ("0 of 1", "", "")
    assert rows[f"shifted{ACCEPTED}"] == ("1 of 1", "expert gate: 1", "worse")
    assert dict(verdicts(made, results_of(made, store))) == {
        "rounds refuse 3 of 3 damaged packages (of 3 planned), wanted all": True
    }


def test_the_report_says_what_holds_and_what_does_not(tmp_path):
    made, store = plan(), Store(tmp_path / "cells")
    fill(store, made.entries(), gains={0: 0.0, 1: 0.1, 2: 0.15, 3: 0.12})
    told = dict(verdicts(made, results_of(made, store)))
    assert told["round 1 changes organs by +0.100, wanted more than 0"] is True
    assert told["round 3 changes organs by -0.030, wanted more than 0"] is False
    assert told["after round 2 others has changed by -0.020, wanted at least -0.01"] is False
    assert told["round 1 takes 30 % of the CPU time from scratch, wanted at most 10 %"] is False
    reached = "has Dice 0.635 where from scratch has 0.635, wanted at least 99 % of it"
    assert told[f"after round 3 organs {reached}"] is True
    assert told["clicks to 0.90 on the hold-out go from 4.00 to 1.00, wanted fewer"] is True
    refused = "rounds refuse 13 of 20 damaged packages (of 20 planned), wanted all"
    assert told[refused] is False
    assert told["the check refuses a copy of a hold-out case"] is True

    text = write_report(made, store, tmp_path / "report", "command").read_text("utf-8")
    assert "| 0 | 0.515 [0.505, 0.525], n=4 | 0.800, n=1 | start |" in text
    assert "| replay | change | +0.120 [+0.120, +0.120] | -0.020 |" in text
    assert "| some slices, the same cases | 1.0 | +0.100 [+0.100, +0.100] | +0.1000 |" in text
    assert "| all slices, cases at random | 2.0 | +0.100 [+0.100, +0.100] | +0.0500 |" in text
    assert "| shuffled | 0 of 7 |" in text
    assert (tmp_path / "report" / "loop_rounds.svg").stat().st_size > 1000
    assert (tmp_path / "report" / "loop_arms.svg").stat().st_size > 1000
    numbers = json.loads((tmp_path / "report" / "loop.json").read_text("utf-8"))
    assert {line["arm"] for line in numbers} >= {OURS, ONLY, SCRATCH, NO_CHANGE, "copy"}


def test_what_is_not_finished_is_missing_and_not_nothing(tmp_path):
    made, store = plan(), Store(tmp_path / "cells")
    fill(store, made.entries()[:2], gains={0: 0.0})
    found = summary(made, store)
    assert found["rounds"] == [
        {"round": 0, "dice": {"organs": pytest.approx(0.515), "others": pytest.approx(0.8)}}
    ]
    assert found["wanted"] == []
    # Neither the two that are finished, nor the experts, which only the finished start needs.
    assert len(found["missing"]) == len(in_order(made.cells())) - 3
    text = write_report(made, store, tmp_path / "report", "command").read_text("utf-8")
    assert "| from scratch | Dice | missing | missing |" in text
    assert "Negative controls" not in text
