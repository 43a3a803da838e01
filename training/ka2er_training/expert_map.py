"""How much a student trusts each expert, per task."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ka2er_training.evaluate_workspace import holdout_of
from napari_ka2er.core.io import read_volume
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.loaded import LoadedStudent
    from napari_ka2er.model.segmentation import Segmentation

NULL = "null"


def mean_weights(
    workspace: Workspace, loaded: LoadedStudent, *, n_cases: int = 2, mode: Mode = "sparse"
) -> dict[str, dict[str, float]]:
    """Return each expert's mean weight where a task's labels are found, over hold-out cases.

    Parameters
    ----------
    workspace : Workspace
        Whose hold-out; the first cases of each task are taken.
    loaded : LoadedStudent
        The student.
    n_cases : int
        Of each task.
    mode : str
        How it works.

    Returns
    -------
    dict of str to dict of str to float
        Per task with hold-out cases, per expert, and ``"null"`` for the null expert; they sum to
        1.  Where nothing is found, the whole volume counts.  Empty for a student without
        amalgamation.
    """
    if loaded.config.amalgamation == "none":
        return {}
    names = [*(entry.name for entry in loaded.config.experts), NULL]
    found = {}
    for task in (entry.task.name for entry in loaded.config.tasks):
        cases = holdout_of(workspace, task)[:n_cases] if task in workspace.tasks else []
        weights = [_weights(loaded, case.image, task, mode) for case in cases]
        if weights:
            means = [sum(column) / len(weights) for column in zip(*weights, strict=True)]
            found[task] = dict(zip(names, means, strict=True))
    return found


def _weights(loaded: LoadedStudent, image: Path, task: str, mode: Mode) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        predictor = Predictor(loaded, mode, Path(folder))
        predictor.set_volume(read_volume(image))
        return _means(predictor.segment(task))


def _means(result: Segmentation) -> list[float]:
    inside = result.labels > 0
    weights = result.expert_map()
    if not inside.any():
        inside[:] = True
    return [float(weight[inside].mean()) for weight in weights]
