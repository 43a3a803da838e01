"""The benchmark's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ka2er_training.bench.stats import bootstrap, mean_over_seeds
from ka2er_training.bench.tables_clicks import clicked
from napari_ka2er.core.task import COLORS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from ka2er_training.bench.tables import Results

# The same file for the same numbers.
_METADATA = {"Date": None}


def forest(results: Results, path: Path) -> Path | None:
    """Plot every system's Dice with its interval, one panel per task; None without results."""
    tasks = [task for task in results.names("main", "task") if results.find("main", task=task)]
    if not tasks:
        return None
    systems = results.names("main", "system")
    figure = Figure(figsize=(3.2 * len(tasks) + 3, 0.4 * len(systems) + 1.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(tasks), sharey=True))
    for axes, task in zip(panels, tasks, strict=True):
        for at, system in enumerate(systems):
            seeds = results.values("main", system=system, task=task)
            if seeds:
                draw_interval(axes, at, list(mean_over_seeds(seeds).values()))
        axes.set_title(task)
        axes.set_xlabel("Dice")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(systems)), systems)
    panels[0].invert_yaxis()
    return saved(figure, path)


def draw_interval(axes: Axes, at: int, values: Sequence[float]) -> None:
    """Draw cases as dots, their mean and its interval."""
    interval = bootstrap(values)
    axes.plot(values, [at] * len(values), ".", color="0.75", markersize=4)
    if not np.isnan(interval.low):
        axes.plot([interval.low, interval.high], [at, at], color=COLORS[4], linewidth=2)
    axes.plot(interval.mean, at, "o", color=COLORS[4], markersize=5)


def click_curves(results: Results, path: Path) -> Path | None:
    """Plot mean Dice over the number of clicks, one line per task; None without results."""
    entries = [e for e in results.find("clicks") if results.store.result(e.cell)["rows"]]
    if not entries:
        return None
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for color, entry in zip(colors(len(entries)), entries, strict=True):
        rows = results.store.result(entry.cell)["rows"]
        dice = clicked(rows, len(rows[0]["dice"]) - 1).dice
        axes.plot(dice.mean(axis=0), "o-", color=color, label=f"{entry.task}, n={len(dice)}")
    axes.set_xlabel("clicks")
    axes.set_ylabel("Dice")
    axes.grid(alpha=0.3)
    axes.legend()
    return saved(figure, path)


def cost_curves(results: Results, path: Path) -> Path | None:
    """Plot CPU seconds over the number of experts, one panel per task; None without results."""
    entries = results.find("cost")
    if not entries:
        return None
    figure = Figure(figsize=(3 * len(entries) + 1, 3), layout="constrained")
    for axes, entry in zip(np.atleast_1d(figure.subplots(1, len(entries))), entries, strict=True):
        rows = results.store.result(entry.cell)["rows"]
        modes = list(dict.fromkeys(row["mode"] for row in rows))
        for color, mode in zip(colors(len(modes)), modes, strict=True):
            points = [(row["k"], row["cpu_s"]) for row in rows if row["mode"] == mode]
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=mode)
        axes.set_title(entry.task)
        axes.set_xlabel("experts")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("CPU s per volume")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return saved(figure, path)


def colors(n: int) -> list[str]:
    """Return `n` colours of the labels, the first again after the last."""
    return [COLORS[i % len(COLORS)] for i in range(n)]


def saved(figure: Figure, path: Path) -> Path:
    """Write a figure; the same numbers give the same SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "ka2er"}):
        figure.savefig(path, metadata=_METADATA if path.suffix == ".svg" else None, dpi=120)
    return path
