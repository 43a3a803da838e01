"""Which new cases to correct first: those on which the student and its expert disagree most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.loop_annotation import state_workspace
from ka2er_training.bench.measuring import case_of_dataset
from ka2er_training.registry import student_folder
from ka2er_training.segmenters import ExpertSegmenter, StudentSegmenter
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.metrics import dice
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from napari_ka2er.core.task import Task


def order_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Score the candidates and choose; neither truth nor labels are looked at."""
    settings = cell.settings
    workspace = state_workspace(cell.needs[0], store)
    task = workspace.record(settings["task"]).task
    student = StudentSegmenter(
        load_student(student_folder(workspace), means.device), settings["mode"]
    )
    expert = ExpertSegmenter(Expert.load(workspace.expert_folder(task.name), means.device))
    scores = {}
    for i, name in enumerate(settings["candidates"]):
        if means.progress is not None:
            means.progress(i / len(settings["candidates"]), f"looking at {name}")
        volume = read_volume(case_of_dataset(means.data / settings["folder"], name, task).image)
        masks = (student.segment(volume, task), expert.segment(volume, task))
        scores[name] = disagreement(*masks, task)
    return {"scores": scores, "chosen": most_disputed(scores, settings["n"])}


def disagreement(first: NDArray[Any], second: NDArray[Any], task: Task) -> float:
    """Return one minus the mean Dice of two label maps; a label in neither does not count."""
    values = [v for v in task.values if (first == v).any() or (second == v).any()]
    if not values:
        return 0.0
    return 1.0 - float(np.mean([dice(first == v, second == v) for v in values]))


def most_disputed(scores: Mapping[str, float], n: int) -> list[str]:
    """Return the cases with the highest scores, highest first; ties in the given order."""
    return sorted(scores, key=lambda name: -scores[name])[:n]
