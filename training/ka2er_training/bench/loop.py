"""Open, run and list the loop's benchmark."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.cells import Store, in_order, missing, run_cells
from ka2er_training.bench.loop_annotation import annotation_cell
from ka2er_training.bench.loop_measuring import measure_cell
from ka2er_training.bench.loop_order import order_cell
from ka2er_training.bench.loop_plan import LoopPlan
from ka2er_training.bench.loop_rounds import control_cell, copy_cell, round_cell, scratch_cell
from ka2er_training.bench.loop_settings import read_loop_settings
from ka2er_training.bench.loop_start import experts_cell, start_cell
from ka2er_training.bench.means import Means
from ka2er_training.plan import preset
from ka2er_training.presets import PRESETS, check_choice
from ka2er_training.progress import progress_bar
from ka2er_training.sources import read_source
from ka2er_training.student_work import Teaching
from napari_ka2er.model.device import resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Outcome
    from ka2er_training.bench.loop_settings import LoopSettings
    from ka2er_training.bench.settings import TaskSettings

logger = logging.getLogger(__name__)

RUNNERS = {
    "experts": experts_cell,
    "start": start_cell,
    "annotation": annotation_cell,
    "round": round_cell,
    "scratch": scratch_cell,
    "measure": measure_cell,
    "control": control_cell,
    "copy": copy_cell,
    "order": order_cell,
}


def open_loop(data: Path, out: Path, settings: str) -> tuple[LoopPlan, Store]:
    """Return the plan for the data that are there, and the store of its cells.

    Raises
    ------
    UserError
        If settings cannot be used, or a data set is missing.
    """
    chosen = read_loop_settings(settings)
    names = {task.name: _names(data, task) for task in chosen.tasks}
    return LoopPlan(chosen, names, training_records(chosen)), Store(out / "cells")


def _names(data: Path, task: TaskSettings) -> list[str]:
    return [case.id for case in read_source(data / task.folder).cases]


def training_records(settings: LoopSettings) -> dict[str, Any]:
    """Return all numbers of the presets, so that cells know when one of them changes."""
    check_choice(settings.expert.preset, tuple(PRESETS), "preset of experts")
    sizes = preset(settings.student.preset)
    teaching = Teaching(steps=settings.student.steps)
    return {
        "expert": dataclasses.asdict(PRESETS[settings.expert.preset]),
        "student": {
            "sizes": dataclasses.asdict(sizes),
            "teaching": dataclasses.asdict(teaching),
        },
    }


def run_loop(
    plan: LoopPlan,
    store: Store,
    data: Path,
    *,
    device: str = "auto",
    max_minutes: float | None = None,
    only: str = "",
) -> Outcome:
    """Run the missing cells; see `ka2er_training.bench.cells.run_cells`.

    Parameters
    ----------
    plan, store
        As `open_loop` returned them.
    data : Path
        Folder with the data sets.
    device : str
        Where to train and predict.
    max_minutes : float, optional
        No cell is begun after this time.
    only : str
        Only cells whose name contains this, and what they need.
    """
    with progress_bar() as show:
        means = Means(data, store.folder.parent / "features", str(resolve_device(device)), show)
        runners = {kind: partial(run, means=means) for kind, run in RUNNERS.items()}
        wanted = [cell for cell in in_order(plan.cells()) if only in cell.name]
        outcome = run_cells(wanted, store, runners, max_minutes=max_minutes)
    n_missing = len(missing(plan.cells(), store))
    logger.info(
        "%d cells done now, %d failed, %d missing",
        len(outcome.done), len(outcome.failed), n_missing,
    )  # fmt: skip
    return outcome


def listing(cells: Iterable[Cell], store: Store) -> list[str]:
    """Return a line per missing cell, in the order in which they would run, and a last one."""
    wanted = list(cells)
    left = missing(wanted, store)
    lines = [f"{cell.digest[:12]}  {cell.kind:<10}  {cell.name}" for cell in left]
    return [*lines, f"{len(left)} of {len(in_order(wanted))} cells are missing"]
