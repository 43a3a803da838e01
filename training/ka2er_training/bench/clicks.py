"""What clicks are worth: Dice after each click of a simulated user, and the seconds it took."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ka2er_training.bench.measuring import cases_of, student_of
from ka2er_training.evaluate import on_lattice
from ka2er_training.simulated_users import click_largest_error, correct
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.metrics import dice
from napari_ka2er.core.prompts import Box, Point
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from ka2er_training.evaluate import LabelledCase
    from ka2er_training.simulated_users import Click, User
    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.volume import Geometry, Volume
    from napari_ka2er.model.answers import PromptResult
    from napari_ka2er.model.config import StudentConfig

    Mask = NDArray[np.bool_]

_LEAST_PIECE = 30  # voxels; what is smaller is painted sooner than clicked


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
    are corrected one by one, each from the automatic result.  Voxels that nobody reviewed are
    neither clicked nor counted.

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
    gt = truth_of(case, volume.geometry)
    known = known_of(case, gt)
    predictor.set_volume(volume)
    automatic = predictor.segment(case.task.name).labels
    rows = []
    for label in case.task.labels:
        truth = gt == label.value
        if not truth.any():
            continue
        what = {"task": case.task.name, "label": label.name, "case": case.name}
        results: list[PromptResult] = []
        answer = _answering(predictor, volume, (case.task.name, label.value), results)
        if perfect_mm is not None:
            answer = partial(_perfect, truth, volume.geometry, perfect_mm)
        masks = correct(answer, automatic == label.value, truth, _looking_at(known), n_clicks)
        rows.append({**what, **_figures(truth, masks, results, known)})
    return rows


def unnamed_rows(
    predictor: Predictor,
    case: LabelledCase,
    n_clicks: int,
    most: int = 3,
    *,
    is_boxed: bool = False,
) -> list[dict[str, Any]]:
    """Return, per piece of a case's labels, Dice after 0, 1 … `n_clicks` clicks; see `click_rows`.

    Every piece is clicked for itself, beginning with nothing, and the student is not told what it
    is: what prompts do for structures that it has no name for.  It need not know the task.

    Parameters
    ----------
    predictor : Predictor
        The student; its volume is set here.  The grid is that of its tasks whose spacing is nearest
        to the volume's.
    case : LabelledCase
        What is to be reached.
    n_clicks : int
        Clicks per piece.
    most : int
        Pieces of a label, the largest ones of at least 30 voxels.
    is_boxed : bool
        Whether a box is drawn around each piece in its first and in its last slice before it is
        clicked; the Dice after 0 clicks is then that of the boxes' answer.
    """
    volume = read_volume(case.image)
    gt = truth_of(case, volume.geometry)
    known = known_of(case, gt)
    predictor.set_volume(volume)
    task = nearest_grid(predictor.loaded.config, volume.geometry)
    rows = []
    for label in case.task.labels:
        for i, truth in enumerate(_pieces(gt == label.value, most)):
            what = {"task": case.task.name, "label": label.name, "case": case.name, "piece": i}
            results: list[PromptResult] = []
            boxes = end_boxes(truth, volume.geometry) if is_boxed else []
            answer = _answering(predictor, volume, (task, None), results, boxes)
            begun = np.zeros(truth.shape, bool)
            for n_boxes in range(1, len(boxes) + 1):
                begun = _asked(predictor, (task, None), boxes[:n_boxes], begun)[0]
            masks = correct(answer, begun, truth, _looking_at(known), n_clicks)
            rows.append({**what, **_figures(truth, masks, results, known)})
    return rows


def end_boxes(piece: Mask, geometry: Geometry) -> list[Prompt]:
    """Return boxes around a piece in its first and in its last slice, across the widest gap.

    Parameters
    ----------
    piece : ndarray of bool, shape geometry.shape
        Not empty.
    geometry : Geometry
        Its lattice; slices lie across the axis with the largest spacing.

    Returns
    -------
    list of Box
        Both as large as the whole piece along the other axes.
    """
    voxels = np.argwhere(piece)
    low, high = voxels.min(axis=0), voxels.max(axis=0)
    across = int(np.argmax(geometry.spacing))
    boxes: list[Prompt] = []
    for end in (low[across], high[across]):
        corners = np.array([low, high])
        corners[:, across] = end
        (z, y, x), (zz, yy, xx) = geometry.to_world(corners).tolist()
        boxes.append(Box((z, y, x), (zz, yy, xx)))
    return boxes


def truth_of(case: LabelledCase, geometry: Geometry) -> NDArray[Any]:
    """Return a case's labels on its image's lattice, on which clicks are made and answered."""
    return on_lattice(*read_labels(case.labels), geometry)


def known_of(case: LabelledCase, gt: NDArray[Any]) -> Mask | None:
    """Return where somebody has looked, or None where that is everywhere."""
    return None if case.ignore is None else np.asarray(gt != case.ignore)


def _looking_at(known: Mask | None) -> User:
    """Return a user who sees no error where nobody has looked."""

    def user(mask: Mask, gt: Mask) -> Click | None:
        return click_largest_error(mask if known is None else mask & known, gt)

    return user


def nearest_grid(config: StudentConfig, geometry: Geometry) -> str:
    """Return the task whose grid spacing is most like a volume's, by the volume of a voxel."""
    own = float(np.log(np.prod(geometry.spacing)))
    away = {e.task.name: abs(np.log(np.prod(e.spacing_mm)) - own) for e in config.tasks}
    return min(away, key=lambda name: away[name])


def _pieces(mask: Mask, most: int) -> list[Mask]:
    """Return the largest connected pieces, largest first."""
    numbers, _ = ndimage.label(mask)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    largest = np.argsort(-sizes, kind="stable")[:most]
    return [numbers == i for i in largest if sizes[i] >= _LEAST_PIECE]


def _figures(
    truth: Mask, masks: list[Mask], results: list[PromptResult], known: Mask | None
) -> dict[str, Any]:
    """Return Dice of each mask, and of each answer its time and the Dice it was predicted."""
    return {
        "dice": [dice(truth, mask if known is None else mask & known) for mask in masks],
        "seconds": [result.seconds for result in results],
        "predicted": [result.predicted_dice for result in results],
    }


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
    predictor: Predictor,
    volume: Volume,
    what: tuple[str, int | None],
    results: list[PromptResult],
    boxes: Sequence[Prompt] = (),
) -> Callable[[Mask, list[Click]], Mask]:
    """Return a function that answers clicks as the student does, and notes every answer."""

    def answer(mask: Mask, clicks: list[Click]) -> Mask:
        prompts = list(boxes)
        for click in clicks:
            z, y, x = volume.geometry.to_world(click.voxel)
            prompts.append(Point((float(z), float(y), float(x)), click.positive))
        changed, result = _asked(predictor, what, prompts, mask)
        results.append(result)
        return changed

    return answer


def _asked(
    predictor: Predictor, what: tuple[str, int | None], prompts: Sequence[Prompt], mask: Mask
) -> tuple[Mask, PromptResult]:
    """Return a mask after prompts of which the last is new, and the student's answer."""
    result = predictor.prompt(*what, prompts, previous=mask)
    changed = mask.copy()
    changed[result.box] = result.mask
    return changed, result
