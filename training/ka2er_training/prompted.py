"""Segment one object by clicks or boxes: the work behind `ka2er prompt`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import check_target, write_labels
from napari_ka2er.core.io.atomic import make_folder
from napari_ka2er.core.metrics import voxel_ml
from napari_ka2er.core.task import Label, Task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.predictor import Predictor
    from napari_ka2er.model.prompting import PromptResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clicks:
    """One object to segment: its task, its label's name or value (None: any), and prompts."""

    task: str
    label: str | None
    prompts: Sequence[Prompt]


def prompt_volume(
    predictor: Predictor, volume: Volume, out: Path, clicks: Clicks
) -> dict[str, Any]:
    """Segment one object by prompts, given one after the other, and write it.

    Parameters
    ----------
    predictor : Predictor
        The student.
    volume : Volume
        The image.
    out : Path
        The label map to write.
    clicks : Clicks
        The object.

    Returns
    -------
    dict
        ``labels``, ``task``, ``label``, ``voxels``, ``volume_ml``, ``predicted_dice``,
        ``click_seconds``.

    Raises
    ------
    UserError
        If task or label are unknown, no prompt says what belongs to the object or one lies outside
        the volume, or `out` cannot be written.
    """
    task = predictor.entry(clicks.task).task
    label = _label(task, clicks.label)
    check_target(out)
    _require_positive(clicks)
    predictor.set_volume(volume)
    mask, answers = _answer(predictor, clicks, None if label is None else label.value)
    shown = Task(task.name, (label or Label(1, "object"),), task.modality)
    make_folder(out.parent)
    write_labels(out, mask * np.uint16(shown.values[0]), volume, shown)
    name, n_voxels = shown.labels[0].name, int(mask.sum())
    size_ml = n_voxels * voxel_ml(volume.geometry)
    logger.info("%s: %s, %d voxels, %.2f ml", out, name, n_voxels, size_ml)
    return {
        "labels": str(out),
        "task": task.name,
        "label": name,
        "voxels": n_voxels,
        "volume_ml": round(size_ml, 3),
        "predicted_dice": round(answers[-1].predicted_dice, 4),
        "click_seconds": [round(answer.seconds, 3) for answer in answers],
    }


def _answer(
    predictor: Predictor, clicks: Clicks, value: int | None
) -> tuple[NDArray[np.bool_], list[PromptResult]]:
    """Give prompts one by one; return the last mask and every answer."""
    mask = np.zeros(predictor.volume.shape, bool)
    answers = []
    for n_prompts in range(1, len(clicks.prompts) + 1):
        answer = predictor.prompt(clicks.task, value, clicks.prompts[:n_prompts], mask)
        mask[answer.box] = answer.mask
        answers.append(answer)
    return mask, answers


def _require_positive(clicks: Clicks) -> None:
    """Refuse prompts of which none says where the object is."""
    if not clicks.prompts:
        raise UserError("at least one --point or --box", "none")
    if not any(prompt.positive for prompt in clicks.prompts):
        got = "only points that lie out of it"
        wanted = "at least one --point in the object, or a --box"
        raise UserError(wanted, got, "add one without ',-'")


def _label(task: Task, name: str | None) -> Label | None:
    """Return the label with this name or value."""
    if name is None:
        return None
    return task.label(int(name) if name.isdecimal() else name)
