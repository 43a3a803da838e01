"""What `ka2er info` prints for people."""

import json
import math

from ka2er_training.bench.stats import Interval
from ka2er_training.cli import DONE, main
from ka2er_training.description_text import text_of
from ka2er_training.evaluate import Summary
from ka2er_training.evaluation_text import text_table


def test_the_sample_student_is_told_in_lines_that_can_be_read(capsys):
    assert main(["info", "sample"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 140
    assert not [line for line in lines if "{" in line or "None" in line]
    assert "  - task: lungs" in lines
    assert "    n_training: 12" in lines
    assert "    present: yes" in lines
    assert "    system      task          label         cases  Dice" in "\n".join(lines)


def test_metrics_are_the_table_of_an_evaluation():
    none = Interval(math.nan, math.nan, math.nan, 0)
    rows = [
        Summary("s", "lungs", "lung", Interval(0.91234567, 0.9, 0.93, 4), none, none, 0, 1, 0),
        Summary("s", "lungs", "all", Interval(0.5, math.nan, math.nan, 1), none, none, 0, 0, 0),
    ]
    kept = json.loads(json.dumps([row.to_json() for row in rows]))
    wanted = "\n".join(["metrics", *("  " + line for line in text_table(rows).splitlines())])
    assert text_of({"metrics": kept}) == wanted


def test_lists_are_told_item_by_item_and_numbers_are_rounded():
    text = text_of(
        {
            "parent": None,
            "sizes": [1, 2.0, 0.123456789],
            "empty": {},
            "data": [{"task": "a", "n": {"b": True}}, "plain", [1, 2]],
            "notice": "word " * 40,
        }
    )
    assert text.splitlines() == [
        "parent: none",
        "sizes: [1, 2.0, 0.123457]",
        "empty: {}",
        "data",
        "  - task: a",
        "    n",
        "      b: yes",
        "  - plain",
        "  - [1, 2]",
        "notice: " + "word " * 21 + "word",
        "  " + "word " * 17 + "word",
    ]
