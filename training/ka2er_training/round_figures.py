"""Figures of a round's report: changes per label, expert maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from ka2er_training.gate_stats import Bounds
from ka2er_training.report import figure_uri
from napari_ka2er.core.task import COLORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from ka2er_training.verdicts import Verdict

    Weights = Mapping[str, Mapping[str, float]]

BETTER, WORSE, UNSURE = COLORS[2], COLORS[5], "0.45"


def changes_figure(scores: Sequence[Mapping[str, Any]], verdict: Verdict | None) -> str:
    """Return every label's change of Dice with its interval as a data URI; empty without scores.

    Parameters
    ----------
    scores : sequence of mapping
        See `ka2er_training.rounds.Round`.
    verdict : Verdict or None
        Its margin is drawn as a line.
    """
    if not scores:
        return ""
    figure = Figure(figsize=(8, 0.42 * len(scores) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    for at, line in enumerate(scores):
        change = Bounds.from_json(line["change"])
        colour = BETTER if change.low > 0 else WORSE if change.high < 0 else UNSURE
        if change.n > 1:
            axes.plot([change.low, change.high], [at, at], color=colour, lw=3, alpha=0.6)
        axes.plot(change.mean, at, "o", color=colour, markersize=7, zorder=3)
    axes.axvline(0, color="0.2", lw=1)
    if verdict is not None:
        label = f"margin, -{verdict.margin:g}"
        axes.axvline(-verdict.margin, color=WORSE, lw=1, ls="--", label=label)
        axes.legend(fontsize=8, loc="best")
    axes.set_yticks(range(len(scores)), [f"{s['task']}: {s['label']}" for s in scores])
    axes.set_xlabel("change of Dice on the hold-out (dot: mean, bar: interval)")
    axes.margins(y=0.5 / len(scores))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return figure_uri(figure)


def weights_figure(before: Weights, after: Weights) -> str:
    """Return the expert map before and after as a data URI; empty if there is none.

    Rows are tasks, columns experts and the null expert; a cell is the mean weight.
    """
    sides = {name: side for name, side in (("before", before), ("after", after)) if side}
    if not sides:
        return ""
    tasks = list(dict.fromkeys(task for side in sides.values() for task in side))
    names = list(dict.fromkeys(n for side in sides.values() for w in side.values() for n in w))
    width = 2.2 + 0.95 * len(names) * len(sides)
    figure = Figure(figsize=(width, 0.6 * len(tasks) + 1.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sides), sharey=True))
    for axes, (name, side) in zip(panels, sides.items(), strict=True):
        table = np.array([[side.get(t, {}).get(n, np.nan) for n in names] for t in tasks])
        _heat(axes, table, names, name)
    panels[0].set_yticks(range(len(tasks)), tasks)
    panels[0].set_ylabel("task")
    return figure_uri(figure)


def _heat(axes: Axes, table: np.ndarray, names: Sequence[str], title: str) -> None:
    axes.imshow(table, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            colour = "white" if value > 0.55 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axes.set_title(f"expert map {title}")
