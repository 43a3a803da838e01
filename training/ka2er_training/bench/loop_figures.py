"""The loop's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ka2er_training.bench.figures import colors, draw_interval, saved
from ka2er_training.bench.loop_entries import ARMS, NO_CHANGE
from ka2er_training.bench.stats import bootstrap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ka2er_training.bench.loop_results import LoopResults


def round_curves(results: LoopResults, tasks: Sequence[str], path: Path) -> Path | None:
    """Plot Dice and clicks over the rounds; None before anything is measured."""
    points = results.curve()
    if not points:
        return None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, task in zip(colors(len(tasks)), tasks, strict=True):
        found = [bootstrap(list(results.dice(task, arm, n).values())) for n, arm in points]
        means = np.array([interval.mean for interval in found])
        ends = np.array([[i.low, i.high] for i in found])
        spread = np.nan_to_num(np.abs(ends.T - means))
        numbers = [n for n, _ in points]
        label = f"{task}, n={found[0].n}"
        left.errorbar(numbers, means, spread, fmt="o-", color=color, capsize=3, label=label)
    left.set_ylabel("Dice on the hold-out")
    left.legend(fontsize="small", ncols=len(tasks), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    clicks = [bootstrap(list(results.clicks(arm, n).values())).mean for n, arm in points]
    right.plot([n for n, _ in points], clicks, "o-", color=colors(1)[0])
    right.set_ylabel(f"clicks to a Dice of {results.good_dice:.2f}")
    right.set_ylim(0, 1.1 * max([c for c in clicks if np.isfinite(c)], default=1))
    for axes in (left, right):
        axes.set_xlabel("rounds")
        axes.set_xticks([n for n, _ in points])
        axes.grid(alpha=0.3)
    return saved(figure, path)


def arm_forest(results: LoopResults, tasks: Sequence[str], path: Path) -> Path | None:
    """Plot every arm's Dice with its interval, one panel per task; None without results."""
    last = max((entry.round for entry in results.entries), default=0)
    arms = [(arm, 0 if arm == NO_CHANGE else last) for arm in ARMS]
    if not any(results.dice(task, *arm) for task in tasks for arm in arms):
        return None
    figure = Figure(figsize=(3.2 * len(tasks) + 2, 2.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(tasks), sharey=True))
    for axes, task in zip(panels, tasks, strict=True):
        for at, (arm, number) in enumerate(arms):
            values = list(results.dice(task, arm, number).values())
            if values:
                draw_interval(axes, at, values)
        axes.set_title(task)
        axes.set_xlabel("Dice")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(arms)), [arm for arm, _ in arms])
    panels[0].invert_yaxis()
    return saved(figure, path)
