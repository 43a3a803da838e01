"""What clicks are worth: Dice after each click of a simulated user, and the seconds it took."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.measuring import cases_of, student_of
from ka2er_training.simulated_users import click_largest_error, correct
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.metrics import dice
from napari_ka2er.core.prompts import Point
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from ka2er_training.evaluate import LabelledCase
    from ka2er_training.simulated_users import Click
    from napari_ka2er.core.volume import Geometry, Volume

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


def click_rows(
    predictor: Predictor, case: LabelledCase, n_clicks: int, perfect_mm: float | None = None
) -> list[dict[str, Any]]:
    """Return, per label of a case, Dice after 0, 1 … `n_clicks` clicks and the seconds of each.

    The user is that of the CVPR 2025 challenge: the innermost voxel of the largest error.  Labels
    are corrected one by one, each from the automatic result.

    Parameters
    ----------
    predictor : Predictor
        The student; its volume is set here.
    case : LabelledCase
        What is to be reached.
    n_clicks : int
        Clicks per label.
    perfect_mm : float, optional
        Instead of the student, one answers that knows the truth within this distance of a click,
        and changes nothing beyond: what clicks could be worth.
    """
    volume = read_volume(case.image)
    gt, _ = read_labels(case.labels)
    predictor.set_volume(volume)
    automatic = predictor.segment(case.task.name).labels
    rows = []
    for label in case.task.labels:
        seconds: list[float] = []
        truth = gt == label.value
        if not truth.any():
            continue
        answer = _answering(predictor, volume, (case.task.name, label.value), seconds)
        if perfect_mm is not None:
            answer = partial(_perfect, truth, volume.geometry, perfect_mm)
        masks = correct(answer, automatic == label.value, truth, click_largest_error, n_clicks)
        values = [dice(truth, mask) for mask in masks]
        names = {"task": case.task.name, "label": label.name, "case": case.name}
        rows.append({**names, "dice": values, "seconds": seconds})
    return rows


def _perfect(
    truth: Mask, geometry: Geometry, reach_mm: float, mask: Mask, clicks: list[Click]
) -> Mask:
    """Return a mask without its errors within reach of the newest click."""
    wrong = np.argwhere(mask != truth)
    away = geometry.to_world(wrong) - geometry.to_world(clicks[-1].voxel)
    near = wrong[np.linalg.norm(away, axis=-1) <= reach_mm]
    changed = mask.copy()
    changed[tuple(near.T)] ^= True
    return changed


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
