"""Open the amalgamation benchmark, and what its kinds of cells do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ka2er_training.bench.amalgamation import Plan
from ka2er_training.bench.cells import Store
from ka2er_training.bench.clicks import click_cell
from ka2er_training.bench.experts import reset_expert_cell, train_expert_cell
from ka2er_training.bench.measuring import cost_cell, evaluate_cell
from ka2er_training.bench.running import case_names, training_records
from ka2er_training.bench.settings import read_bench_settings
from ka2er_training.bench.students import train_prompts_cell, train_student_cell

if TYPE_CHECKING:
    from pathlib import Path

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
    names = case_names(data, chosen.tasks)
    student = chosen.student
    records = training_records(chosen.expert.preset, student.preset, student.steps)
    return Plan(chosen, names, records), Store(out / "cells")
