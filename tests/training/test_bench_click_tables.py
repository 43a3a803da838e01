"""The table of simulated clicks and its verdicts, from numbers counted by hand."""

from types import SimpleNamespace

import pytest

from ka2er_training.bench.amalgamation import Entry
from ka2er_training.bench.cells import Cell, Store
from ka2er_training.bench.figures import click_curves
from ka2er_training.bench.report import all_verdicts, verdict_text
from ka2er_training.bench.stats import bootstrap
from ka2er_training.bench.tables import Results
from ka2er_training.bench.tables_clicks import click_table, click_verdicts

# Two cases of two labels each, before and after one and two clicks.
ROWS = [
    {"case": "c0", "label": "a", "dice": [0.2, 0.5, 0.7]},
    {"case": "c0", "label": "b", "dice": [0.8, 0.7, 0.9]},
    {"case": "c1", "label": "a", "dice": [0.92, 0.94, 0.93]},
    {"case": "c1", "label": "b", "dice": [0.5, 0.6, 0.7]},
]


@pytest.fixture
def results_of(tmp_path):
    """A function that returns results of which one cell of clicks has the given rows."""

    def made(rows):
        store = Store(tmp_path)
        cell = Cell("clicks", "clicks on t", {"n": len(list(tmp_path.rglob("result.json")))})
        store.keep(cell, {"rows": rows}, 1.0, 1.0)
        return Results([Entry(cell, "clicks", "KA²ER sparse", "t")], store)

    return made


def changed(case, dice):
    """Rows of which one case of one label has other numbers."""
    return [*ROWS[:2], {"case": case, "label": "a", "dice": dice}]


def found(results, number, clicks=(0, 1, 2)):
    return click_verdicts(results, clicks)[number]


def test_a_case_counts_once_however_many_labels_it_has(results_of):
    results = results_of(ROWS)
    (row,) = click_table(results, (0, 2)).rows
    assert row[:2] == ("t", "2")
    # Case by case .50 and .71 become .80 and .815; over four labels the interval was narrower.
    assert row[2] == str(bootstrap([0.5, 0.71]))
    assert row[3] == str(bootstrap([0.8, 0.815]))
    assert row[4] == f"{0.2025 / 0.395:.0%}"
    assert row[5] == "+0.0050, 2 clicks in 1 case"  # +.02 and -.01, on c1's label a
    assert row[6] == "100%"


def test_cases_unlike_labels_decide_who_became_better(results_of):
    rows = [
        {"case": "c0", "dice": [0.5, 0.8]},
        {"case": "c0", "dice": [0.6, 0.5]},
        {"case": "c1", "dice": [0.6, 0.5]},
    ]
    (row,) = click_table(results_of(rows), (0, 1)).rows
    assert row[-1] == "50%"  # one label of three, and one case of two


def test_clicks_on_good_masks_are_averaged_within_their_case_first(results_of):
    rows = [
        {"case": "c0", "dice": [0.95, 0.97, 0.97]},
        {"case": "c0", "dice": [0.95, 0.97, 0.97]},
        {"case": "c1", "dice": [0.95, 0.89, 0.9]},
    ]
    (row,) = click_table(results_of(rows), (0, 2)).rows
    # +.01 in the first case, -.06 in the second, whose second click meets no good mask.
    assert row[5] == "-0.0250, 5 clicks in 2 cases"


def test_dice_has_to_rise_from_each_number_of_clicks_to_the_next(results_of):
    text, holds = found(results_of(ROWS), 0)
    assert holds
    assert "Dice on t changes by at least +0.0800" in text
    assert "n=2" in text
    # c0 rises by .10 and .20 on average, c1 falls at last by more.
    falls = results_of(changed("c1", [0.5, 0.9, 0.6]))
    assert not found(falls, 0)[1]
    assert found(falls, 0, (0, 2))[1]  # .50 and .50 become .80 and .60


def test_the_last_click_has_to_close_a_third(results_of):
    text, holds = found(results_of(ROWS), 1)
    assert holds
    assert "2 clicks closed 51.3% of what was missing on t, n=2" in text
    slow = results_of([{"case": "c0", "dice": [0.7, 0.75, 0.79]}])
    text, holds = found(slow, 1)
    assert not holds
    assert "closed 30.0%" in text


def test_clicks_on_good_masks_must_not_make_them_worse_on_average(results_of):
    text, holds = found(results_of(ROWS), 2)
    assert holds
    assert "changes its Dice by +0.005000 on average on t, 2 clicks in 1 case" in text
    text, holds = found(results_of(changed("c1", [0.95, 0.96, 0.94999])), 2)
    assert not holds  # however little it is
    assert "-0.000005 on average" in text


def test_without_a_good_mask_nothing_is_said_about_them(results_of):
    assert len(click_verdicts(results_of([{"case": "c", "dice": [0.1, 0.2, 0.3]}]), (0, 1, 2))) == 2
    assert click_verdicts(results_of([]), (0, 1, 2)) == []


def test_the_report_and_its_json_judge_clicks_too(results_of):
    settings = SimpleNamespace(measurement=SimpleNamespace(clicks=(0, 1, 2)))
    plan = SimpleNamespace(settings=settings)
    text = verdict_text(all_verdicts(plan, results_of(ROWS)))
    assert text.count("\n- holds: ") == 3
    assert verdict_text([]).endswith("Nothing is finished yet.")


def test_the_plot_counts_cases(results_of, tmp_path):
    path = click_curves(results_of(ROWS), tmp_path / "clicks.svg")
    assert "t, n=2" in path.read_text("utf-8")
    assert click_curves(results_of([]), tmp_path / "none.svg") is None
