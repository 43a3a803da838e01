"""What the benchmarks made of cells have in common: running what is missing, and listing it."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.cells import in_order, missing, run_cells
from ka2er_training.bench.means import Means
from ka2er_training.plan import preset
from ka2er_training.presets import PRESETS, check_choice
from ka2er_training.progress import progress_bar
from ka2er_training.sources import read_source
from ka2er_training.teaching import ALONE, Teaching
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.device import resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Outcome, Store
    from ka2er_training.bench.settings import TaskSettings

logger = logging.getLogger(__name__)


def case_names(data: Path, tasks: Iterable[TaskSettings]) -> dict[str, list[str]]:
    """Return, per task, the names of all its cases.

    Raises
    ------
    UserError
        If a data set is missing.
    """
    return {
        task.name: [case.id for case in read_source(data / task.folder).cases] for task in tasks
    }


def training_records(expert_preset: str, student_preset: str, steps: int) -> dict[str, Any]:
    """Return all numbers of the presets, so that cells know when one of them changes.

    Raises
    ------
    UserError
        If there is no such preset.
    """
    check_choice(expert_preset, tuple(PRESETS), "preset of experts")
    teaching = dataclasses.asdict(Teaching(steps=steps))
    if teaching["alone"] == ALONE:  # came later; the cells until then had this number
        del teaching["alone"]
    return {
        "expert": dataclasses.asdict(PRESETS[expert_preset]),
        "student": {"sizes": dataclasses.asdict(preset(student_preset)), "teaching": teaching},
    }


def run_missing(
    cells: Iterable[Cell],
    store: Store,
    runners: Mapping[str, Callable[..., dict[str, Any]]],
    data: Path,
    *,
    device: str = "auto",
    max_minutes: float | None = None,
    only: str = "",
) -> Outcome:
    """Run the missing cells; see `ka2er_training.bench.cells.run_cells`.

    Parameters
    ----------
    cells : iterable of Cell
        Of the plan, most wanted first.
    store : Store
        Where results are kept.
    runners : mapping of str to callable
        Per kind of cell, what does its work with the cell, the store and ``means``.
    data : Path
        Folder with the data sets.
    device : str
        Where to train and predict.
    max_minutes : float, optional
        No cell is begun after this time.
    only : str
        Only cells whose name contains this, and what they need.
    """
    wanted = named(cells, only)
    with progress_bar() as show:
        means = Means(data, store.folder.parent / "features", str(resolve_device(device)), show)
        works = {kind: partial(run, means=means) for kind, run in runners.items()}
        outcome = run_cells(wanted, store, works, max_minutes=max_minutes)
    counts = len(outcome.done), len(outcome.failed), len(missing(wanted, store))
    logger.info("%d cells done now, %d failed, %d missing", *counts)
    return outcome


def named(cells: Iterable[Cell], only: str) -> list[Cell]:
    """Return the cells of a plan whose name contains `only`: all of them if it is empty.

    What is asked for by name is run for its own sake; without a name, for the plan's cells.

    Raises
    ------
    UserError
        If there is none.
    """
    wanted = list(cells)
    if not only:
        return wanted
    chosen = [cell for cell in in_order(wanted) if only in cell.name]
    if not chosen:
        raise UserError("a part of a cell's name for --only", only, "--list shows names")
    return chosen


def listing(cells: Iterable[Cell], store: Store, only: str = "") -> list[str]:
    """Return a line per missing cell, in the order in which they would run, and a last one."""
    wanted = named(cells, only)
    left = missing(wanted, store)
    lines = [f"{cell.digest[:12]}  {cell.kind:<10}  {cell.name}" for cell in left]
    return [*lines, f"{len(left)} of {len(in_order(wanted))} cells are missing"]
