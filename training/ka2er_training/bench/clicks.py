"""What clicks are worth: Dice after each click of a simulated user, and the seconds it took."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.measuring import cases_of, student_of
from ka2er_training.simulated_users import click_largest_error, correct
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.metrics import dice
from napari_ka2er.core.prompts import Point
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from ka2er_training.evaluate import LabelledCase
    from ka2er_training.simulated_users import Click
    from napari_ka2er.core.volume import Volume

    Mask = NDArray[np.bool_]


def click_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Let a simulated user correct the student's automatic masks; return Dice after each click."""
    loaded = student_of(cell, store, means)
    rows = []
    cases = cases_of(cell, means)
    for i, case in enumerate(cases):
        if means.progress is not None:
            means.progress(i / len(cases), f"clicks on {case.name}")
        with tempfile.TemporaryDirectory() as folder:
            predictor = Predictor(loaded, cell.settings["mode"], Path(folder))
            rows += click_rows(predictor, case, max(cell.settings["clicks"]))
    return {"rows": rows}


def click_rows(predictor: Predictor, case: LabelledCase, n_clicks: int) -> list[dict[str, Any]]:
    """Return, per label of a case, Dice after 0, 1 … `n_clicks` clicks and the seconds of each.

    The user is that of the CVPR 2025 challenge: the innermost voxel of the largest error.  Labels
    are corrected one by one, each from the automatic result.
    """
    volume = read_volume(case.image)
    gt, _ = read_labels(case.labels)
    predictor.set_volume(volume)
    automatic = predictor.segment(case.task.name).labels
    rows = []
    for label in case.task.labels:
        seconds: list[float] = []
        answer = _answering(predictor, volume, (case.task.name, label.value), seconds)
        truth = gt == label.value
        if not truth.any():
            continue
        masks = correct(answer, automatic == label.value, truth, click_largest_error, n_clicks)
        values = [dice(truth, mask) for mask in masks]
        names = {"task": case.task.name, "label": label.name, "case": case.name}
        rows.append({**names, "dice": values, "seconds": seconds})
    return rows


def _answering(
    predictor: Predictor, volume: Volume, what: tuple[str, int], seconds: list[float]
) -> Callable[[Mask, list[Click]], Mask]:
    """Return a function that answers clicks as the student does, and notes how long it took."""
    task, value = what

    def answer(mask: Mask, clicks: list[Click]) -> Mask:
        points = []
        for click in clicks:
            z, y, x = volume.geometry.to_world(click.voxel)
            points.append(Point((float(z), float(y), float(x)), click.positive))
        result = predictor.prompt(task, value, points, previous=mask)
        seconds.append(result.seconds)
        changed = mask.copy()
        changed[result.box] = result.mask
        return changed

    return answer
