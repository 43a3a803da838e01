"""Which new cases to correct first: those on which the student and its expert disagree most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ka2er_training.bench.loop_annotation import state_workspace
from ka2er_training.bench.measuring import case_of_dataset
from ka2er_training.ordering import disagreement, most_disputed
from ka2er_training.registry import student_folder
from ka2er_training.segmenters import ExpertSegmenter, StudentSegmenter
from napari_ka2er.core.io import read_volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means


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
