import json
import math

import pytest

from ka2er_training.bench import tables, tables_change, tables_control, tables_cost
from ka2er_training.bench.amalgamation import OTHER_SERIES, Entry
from ka2er_training.bench.cells import Cell, Store
from ka2er_training.bench.figures import click_curves, cost_curves, forest
from ka2er_training.bench.report import control_verdicts, json_safe, verdicts
from ka2er_training.bench.systems import (
    CONTROL,
    EXPERTS,
    HALF_EXPERTS,
    JOINT,
    KA2ER,
    LAYERS,
    TWICE_EXPERTS,
)
from ka2er_training.bench.tables import Results, Table

FULL = KA2ER[0]


class Made:
    """Entries whose cells are finished with given numbers."""

    def __init__(self, folder):
        self.store, self.entries = Store(folder), []

    def add(self, table, system, values, *, task="t", seed=0, column="", finished=True):
        """Add an evaluation; `values` maps a case to its labels' Dice."""
        settings = {"n": len(self.entries)}
        cell = Cell("evaluation", f"{system} {task}", settings)
        rows = [
            {
                "system": "s", "task": task, "label": label, "case": case, "status": "scored",
                "dice": dice, "nsd": dice, "hd95_mm": 10 * (1 - dice), "tolerance_mm": 2.0,
                "gt_ml": 1.0, "pred_ml": 1.0, "seconds": 1.0, "cpu_s": 1.0,
            }
            for case, labels in values.items()
            for label, dice in labels.items()
        ]  # fmt: skip
        if finished:
            self.store.keep(cell, {"rows": rows}, 1.0, 1.0)
        self.entries.append(Entry(cell, table, system, task, seed, column))

    def add_result(self, table, result, task="t"):
        cell = Cell(table, table, {"n": len(self.entries)})
        self.store.keep(cell, result, 1.0, 1.0)
        self.entries.append(Entry(cell, table, "KA²ER", task))

    @property
    def results(self):
        return Results(self.entries, self.store)


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def same(value, n=8):
    return {f"case{i}": {"a": value} for i in range(n)}


def test_seeds_count_once_per_case_and_their_spread_is_beside(made):
    made.add("main", "x", same(0.8), seed=0)
    made.add("main", "x", same(0.9), seed=1)
    (row,) = tables.main_table(made.results).rows
    assert row == ("x", "0.850 [0.850, 0.850] ± 0.050, n=8")


def test_folds_add_cases_and_have_no_spread_of_seeds(made):
    made.add("main", "x", {"first": {"a": 0.8}}, seed=0)
    made.add("main", "x", {"second": {"a": 0.6}}, seed=1)
    (row,) = tables.main_table(made.results).rows
    assert row[1].startswith("0.700")
    assert "±" not in row[1]
    assert row[1].endswith("n=2")


def test_unfinished_cells_are_missing_not_zero(made):
    made.add("main", "x", same(0.8), task="done")
    made.add("main", "x", {}, task="open", finished=False)
    table = tables.main_table(made.results)
    assert table.head == ("system", "done", "open")
    assert table.rows[0][2] == "missing"


def test_systems_without_any_number_are_named_below_not_shown_empty(made):
    made.add("main", "x", same(0.8))
    made.add("main", "later", {}, finished=False)
    table = tables.main_table(made.results)
    assert [row[0] for row in table.rows] == ["x"]
    assert table.note.endswith("Not measured: later.")
    assert [row[0] for row in tables.label_table(made.results).rows] == ["x"]


def test_labels_are_averaged_within_a_case_and_shown_by_themselves(made):
    made.add("main", "x", {"case": {"a": 1.0, "b": 0.5}})
    assert tables.main_table(made.results).rows[0][1] == "0.750, n=1"
    table = tables.label_table(made.results)
    assert table.head == ("system", "t: a", "t: b")
    assert table.rows[0] == ("x", "1.000, n=1", "0.500, n=1")
    assert tables.main_table(made.results, "hd95_mm").rows[0][1] == "2.5, n=1"


def test_ka2er_is_compared_with_its_rivals_case_by_case(made):
    made.add("main", FULL.name, {f"c{i}": {"a": 0.5 + 0.05 * i} for i in range(8)})
    made.add("main", JOINT.name, {f"c{i}": {"a": 0.4 + 0.05 * i} for i in range(8)})
    made.add("main", EXPERTS.name, {f"c{i}": {"a": 0.52 + 0.05 * i} for i in range(8)})
    joint, expert = tables.comparison_table(made.results).rows
    assert joint[:3] == (FULL.name, JOINT.name, "t")
    assert joint[3].startswith("+0.100 [+0.100")
    assert expert[3].startswith("-0.020")
    # Two lines, both with p = 2/2^8: Holm doubles the first, and the second follows.
    assert joint[5] == expert[5] == f"{2 * 2 / 2**8:.3f}"
    holds = [ok for _, ok in verdicts(made.results)]
    assert holds == [True, False]  # 0.02 below the expert is more than 0.01


def test_what_a_gain_is_due_to_is_told_by_the_first_seed(made):
    made.add("main", CONTROL.name, {f"c{i}": {"a": 0.62 + 0.01 * i} for i in range(8)})
    made.add("main", LAYERS.name, {f"c{i}": {"a": 0.60 + 0.01 * i} for i in range(8)})
    made.add("main", JOINT.name, same(0.9), seed=1)  # another seed: no pair
    made.add("main", EXPERTS.name, {"c0": {"a": 0.8}})
    made.add("main", HALF_EXPERTS.name, {"c0": {"a": 0.795}})
    made.add("main", TWICE_EXPERTS.name, {"c0": {"a": 0.82}})
    control, schedule, twice = tables_control.control_table(made.results).rows
    assert control[:3] == (CONTROL.name, LAYERS.name, "t")
    assert control[3:] == ("+0.020 [+0.020, +0.020]", "8")
    assert schedule == (EXPERTS.name, HALF_EXPERTS.name, "t", "+0.005", "1")
    assert twice == (TWICE_EXPERTS.name, EXPERTS.name, "t", "+0.020", "1")
    assert [holds for _, holds in control_verdicts(made.results)] == [False, True, False]


def test_one_case_shows_nothing_against_the_control(made):
    made.add("main", CONTROL.name, {"c0": {"a": 0.7}})
    made.add("main", LAYERS.name, {"c0": {"a": 0.6}})
    assert [holds for _, holds in control_verdicts(made.results)] == [True]


def test_longer_training_stands_below_the_same_seeds_plain_one(made):
    made.add("main", "x", same(0.8), seed=0)
    made.add("main", "x", same(0.2), seed=1)  # has no longer training: not in the table
    made.add("main", "other", same(0.1))
    made.add("long", "x", same(0.9), seed=0, column="1200")
    made.add("long", "longer only", same(0.7), seed=0, column="1200")
    made.add("long", "x", same(0.95), seed=0, column="2400")
    table = tables_change.long_table(made.results)
    assert [(row[0], row[1], row[2][:5]) for row in table.rows] == [
        ("x", "as above", "0.800"),
        ("x", "1200", "0.900"),
        ("x", "2400", "0.950"),
        ("longer only", "1200", "0.700"),
        ("longer only", "2400", "missi"),
    ]


def test_a_shift_is_measured_against_the_same_cases_unshifted(made):
    made.add("main", "x", {"c0": {"a": 0.9}, "c1": {"a": 0.7}, "c2": {"a": 0.1}})
    made.add("shift", "x", {"c0": {"a": 0.8}, "c1": {"a": 0.5}}, column="noise")
    (row,) = tables_change.shift_table(made.results).rows
    assert row[1].startswith("-0.150")
    assert row[1].endswith("n=2")


def test_a_case_that_has_a_dice_on_one_side_only_is_left_out_of_a_shift(made):
    """Something was invented under the shift where there is nothing, or only before it."""
    made.add("main", "x", {"c0": {"a": 0.9}, "before": {"a": 0.0}})
    made.add("shift", "x", {"c0": {"a": 0.8}, "after": {"a": 0.0}}, column="noise")
    (row,) = tables_change.shift_table(made.results).rows
    assert row[1] == "-0.100, n=1"


def test_another_series_is_measured_against_the_mean_of_the_first(made):
    made.add("main", "x", {"c0": {"a": 0.9}, "c1": {"a": 0.7}})
    made.add("shift", "x", {"other": {"a": 0.6}}, column=OTHER_SERIES)
    assert tables_change.shift_table(made.results).rows[0][1] == "-0.200, n=1"


def test_few_labels_have_a_line_per_number_of_labels(made):
    made.add("few", "x", same(0.5), column="2")
    made.add("few", "x", same(0.6), column="6")
    rows = tables_change.few_table(made.results).rows
    assert [(row[0], row[1], row[2][:5]) for row in rows] == [
        ("x", "2", "0.500"),
        ("x", "6", "0.600"),
    ]


def test_what_was_not_measured_with_few_labels_or_shifted_is_named_below(made):
    made.add("main", "x", same(0.8))
    made.add("main", "later", same(0.8))
    made.add("shift", "x", same(0.7), column="noise")
    made.add("shift", "later", {}, column="noise", finished=False)
    made.add("few", "x", same(0.5), column="2")
    made.add("few", "later", {}, column="2", finished=False)
    made.add("few", "later", same(0.4), column="6")
    shift, few = tables_change.shift_table(made.results), tables_change.few_table(made.results)
    assert [row[0] for row in shift.rows] == ["x"]
    assert shift.note.endswith("Not measured: later.")
    assert [row[:2] for row in few.rows] == [("x", "2"), ("later", "6")]
    assert few.note.endswith("Not measured: later (2), x (6).")


def test_costs_are_listed_by_number_of_experts(made):
    rows = [
        {"k": k, "mode": mode, "cpu_s": k * cost, "seconds": k * cost / 2}
        for k in (1, 2)
        for mode, cost in (("full", 3.0), ("experts' own passes", 4.0))
    ]
    made.add_result("cost", {"rows": rows, "shape": [3, 4, 5]})
    assert tables_cost.cost_table(made.results).rows == (
        ("t", "3x4x5", "full", "3.0, 6.0", "1.5, 3.0"),
        ("t", "3x4x5", "experts' own passes", "4.0, 8.0", "2.0, 4.0"),
    )


def test_plots_show_what_is_there_and_nothing_when_there_is_nothing(made, tmp_path):
    plots = (forest, click_curves, cost_curves)
    assert [plot(made.results, tmp_path / "none.svg") for plot in plots] == [None, None, None]
    made.add("main", "x", same(0.8))
    made.add_result("clicks", {"rows": [{"case": "c0", "dice": [0.5, 0.6]}]})
    made.add_result("cost", {"rows": [{"k": 1, "mode": "full", "cpu_s": 1.0, "seconds": 1.0}]})
    for plot in plots:
        path = plot(made.results, tmp_path / f"{plot.__name__}.svg")
        assert "</svg>" in path.read_text("utf-8")


def test_a_table_in_markdown():
    table = Table("Title", ("a", "b"), (("1", "2"),), "Note.")
    assert table.markdown() == "## Title\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nNote.\n"


def test_json_refuses_nan():
    assert json_safe({"a": 1.0}) == json.loads('{"a": 1.0}')
    with pytest.raises(ValueError, match="JSON"):
        json_safe({"a": math.nan})
