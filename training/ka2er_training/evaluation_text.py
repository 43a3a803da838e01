"""What `ka2er evaluate` found, as aligned text: the means, and every case's label."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ka2er_training.evaluate import Row, Summary


def text_table(summaries: Sequence[Summary]) -> str:
    """Return the summaries as aligned text: means and 95 % bootstrap intervals over cases."""
    head = ("system", "task", "label", "cases", "Dice", "NSD", "HD95 mm", "absent", "missed")
    return _aligned([head, *(_means(summary) for summary in summaries)])


def rows_table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text, a line for each label of each case; "-" is not measured."""
    head = ("system", "task", "case", "label", "Dice", "NSD", "HD95 mm", "status")
    return _aligned([head, *(_scores(row) for row in rows)])


def _means(summary: Summary) -> tuple[str, ...]:
    hd95 = summary.hd95_mm
    distance = "-" if hd95.n == 0 else f"{hd95.mean:.1f}"
    counts = (str(summary.absent), str(summary.missed))
    names = (summary.system, summary.task, summary.label)
    return (*names, str(summary.dice.n), str(summary.dice), str(summary.nsd), distance, *counts)


def _scores(row: Row) -> tuple[str, ...]:
    found = row.scores
    measured = ((found.dice, ".3f"), (found.nsd, ".3f"), (found.hd95_mm, ".1f"))
    cells = ("-" if value is None else f"{value:{form}}" for value, form in measured)
    return (row.system, row.task, row.case, row.label, *cells, found.status)


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Return lines whose cells begin below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
