"""Open the loop's benchmark, and what its kinds of cells do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ka2er_training.bench.cells import Store
from ka2er_training.bench.loop_annotation import annotation_cell
from ka2er_training.bench.loop_measuring import measure_cell
from ka2er_training.bench.loop_order import order_cell
from ka2er_training.bench.loop_plan import LoopPlan
from ka2er_training.bench.loop_rounds import control_cell, copy_cell, round_cell, scratch_cell
from ka2er_training.bench.loop_settings import read_loop_settings
from ka2er_training.bench.loop_start import experts_cell, start_cell
from ka2er_training.bench.running import case_names, training_records

if TYPE_CHECKING:
    from pathlib import Path

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
    names = case_names(data, chosen.tasks)
    student = chosen.student
    records = training_records(chosen.expert.preset, student.preset, student.steps)
    return LoopPlan(chosen, names, records), Store(out / "cells")
