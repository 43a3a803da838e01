"""Open, run and list the amalgamation benchmark."""

from __future__ import annotations

import dataclasses
import logging
from functools import partial
from typing import TYPE_CHECKING

from ka2er_training.bench.amalgamation import Plan
from ka2er_training.bench.cells import Store, in_order, missing, run_cells
from ka2er_training.bench.clicks import click_cell
from ka2er_training.bench.experts import reset_expert_cell, train_expert_cell
from ka2er_training.bench.means import Means
from ka2er_training.bench.measuring import cost_cell, evaluate_cell
from ka2er_training.bench.settings import read_bench_settings
from ka2er_training.bench.students import train_prompts_cell, train_student_cell
from ka2er_training.plan import preset
from ka2er_training.presets import PRESETS
from ka2er_training.progress import progress_bar
from ka2er_training.sources import read_source
from ka2er_training.student_work import Teaching
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.device import resolve_device

if TYPE_CHECKING:
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Outcome, Progress
    from ka2er_training.bench.settings import BenchSettings

logger = logging.getLogger(__name__)

RUNNERS = {
    "expert": train_expert_cell,
    "untrained": reset_expert_cell,
    "student": train_student_cell,
    "prompts": train_prompts_cell,
    "evaluation": evaluate_cell,
    "clicks": click_cell,
    "cost": cost_cell,
}


def open_benchmark(data: Path, out: Path, settings: str) -> tuple[Plan, Store]:
    """Return a benchmark's plan for the data that are there, and the store of its cells.

    Raises
    ------
    UserError
        If settings cannot be used, or a data set is missing.
    """
    chosen = read_bench_settings(settings)
    names = {
        task.name: [case.id for case in read_source(data / task.folder).cases]
        for task in chosen.tasks
    }
    return Plan(chosen, names, training_records(chosen)), Store(out / "cells")


def training_records(settings: BenchSettings) -> dict[str, object]:
    """Return all numbers of the presets, so that cells know when one of them changes."""
    if settings.expert.preset not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"a preset of experts ({known})", repr(settings.expert.preset))
    sizes = preset(settings.student.preset)
    teaching = Teaching(steps=settings.student.steps)
    return {
        "expert": dataclasses.asdict(PRESETS[settings.expert.preset]),
        "student": {
            "sizes": dataclasses.asdict(sizes),
            "teaching": dataclasses.asdict(teaching),
        },
    }


def run_benchmark(
    plan: Plan,
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
        As `open_benchmark` returned them.
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
        progress: Progress = show
        means = Means(data, store.folder.parent / "features", str(resolve_device(device)), progress)
        runners = {kind: partial(run, means=means) for kind, run in RUNNERS.items()}
        wanted = [cell for cell in in_order(plan.cells()) if only in cell.name]
        outcome = run_cells(wanted, store, runners, max_minutes=max_minutes)
    logger.info(
        "%d cells done now, %d failed, %d missing",
        len(outcome.done),
        len(outcome.failed),
        len(missing(plan.cells(), store)),
    )
    return outcome


def listing(plan: Plan, store: Store) -> list[str]:
    """Return a line per missing cell, in the order in which they would run, and a last one."""
    left: list[Cell] = missing(plan.cells(), store)
    lines = [f"{cell.digest[:12]}  {cell.kind:<10}  {cell.name}" for cell in left]
    n_all = len(in_order(plan.cells()))
    return [*lines, f"{len(left)} of {n_all} cells are missing"]
