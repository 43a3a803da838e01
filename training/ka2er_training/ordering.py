"""In which order to correct new volumes: at random, or first where student and expert disagree."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ka2er_training.inputs import earlier_results, list_inputs, read_ahead
from ka2er_training.label_folders import without_label_folders
from ka2er_training.segmenters import ExpertSegmenter, StudentSegmenter
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import is_label_map
from napari_ka2er.core.metrics import dice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.loaded import LoadedStudent

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

Order = Literal["random", "disagreement"]


def order_files(
    loaded: LoadedStudent,
    task: str,
    inputs: Sequence[Path],
    *,
    by: Order = "random",
    mode: Mode = "sparse",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[dict[str, Any]]:
    """Return volumes in the order in which to correct them.

    Results that ``ka2er predict`` left beside volumes of a folder are no volumes to correct; where
    volumes are read, for ``"disagreement"``, no label map in a folder is one.

    Parameters
    ----------
    loaded : LoadedStudent
        For ``"disagreement"`` with the task's expert beside it.
    task : str
        The task to correct.
    inputs : sequence of Path
        Files, DICOM or OME-Zarr folders, or folders of files.
    by : str
        ``"random"``: by the hash of the file's name, always the same.  ``"disagreement"``: those
        on which the student's and the expert's masks differ most come first.
    mode : str
        The student's mode.
    progress, cancelled : callable, optional
        Told the share done and a line of text; asked before each volume.

    Returns
    -------
    list of dict
        ``input`` and, by disagreement, ``disagreement`` (one minus the mean Dice of the two masks).
        Volumes that cannot be read or segmented are warned of and left out.

    Raises
    ------
    UserError
        If task or expert are missing, an input does not exist, or no volume can be used.
    CancelledError
        If `cancelled` says so.
    """
    loaded.config.entry(task)  # also a random order is of a task that there is
    found = without_label_folders(list_inputs(inputs), inputs)
    earlier = earlier_results(found, inputs)
    paths = [path for path in found if path not in earlier]
    if by == "random":
        return [{"input": str(path)} for path in sorted(paths, key=_lot)]
    scores = _scores(
        loaded, task, paths, mode, named=inputs, progress=progress, cancelled=cancelled
    )
    if not scores:
        raise UserError("volumes that can be segmented", "none, see above")
    chosen = most_disputed(scores, len(scores))
    return [{"input": name, "disagreement": round(scores[name], 4)} for name in chosen]


def _scores(
    loaded: LoadedStudent,
    task: str,
    paths: Sequence[Path],
    mode: Mode,
    *,
    named: Sequence[Path],
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> dict[str, float]:
    """Return by how much student and expert disagree on each volume that can be used."""
    student, expert = StudentSegmenter(loaded, mode), ExpertSegmenter(loaded.experts[task])
    drawn = loaded.config.entry(task).task
    scores: dict[str, float] = {}
    for i, (path, reading) in enumerate(read_ahead(paths)):
        if cancelled is not None and cancelled():
            raise CancelledError
        if progress is not None:
            progress(i / len(paths), path.name)
        try:
            volume = reading.result()
            if path not in named and is_label_map(volume):
                logger.info("%s: left out, as it is a label map", path)
                continue
            masks = [segmenter.segment(volume, drawn) for segmenter in (student, expert)]
        except UserError as error:
            logger.warning("%s: %s", path.name, error)
            continue
        scores[str(path)] = disagreement(masks[0], masks[1], drawn)
    return scores


def disagreement(first: NDArray[Any], second: NDArray[Any], task: Task) -> float:
    """Return one minus the mean Dice of two label maps; a label in neither does not count."""
    values = [v for v in task.values if (first == v).any() or (second == v).any()]
    if not values:
        return 0.0
    return 1.0 - float(np.mean([dice(first == v, second == v) for v in values]))


def most_disputed(scores: Mapping[str, float], n: int) -> list[str]:
    """Return the cases with the highest scores, highest first; ties in the given order."""
    return sorted(scores, key=lambda name: -scores[name])[:n]


def _lot(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode()).digest()
