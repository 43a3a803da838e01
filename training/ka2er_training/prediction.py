"""Segment files automatically: the work behind `ka2er predict`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ka2er_training.inputs import case_names, list_inputs, read_ahead, stem_of, suffix_for
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import WRITTEN_SUFFIXES, check_target, write_labels, write_volume
from napari_ka2er.core.io.atomic import make_folder, require_writable
from napari_ka2er.model.maps import expert_names, uncertainty_map
from napari_ka2er.model.ranking import TaskFit, taken_or_refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.predictor import Predictor

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made of each volume.

    Parameters
    ----------
    tasks : tuple of str
        The tasks; empty takes those that fit the volume.
    uncertainty : bool
        Also write how unsure each voxel is.
    expert_map : bool
        Also write how much each expert was trusted.
    level : int
        Level of an OME-Zarr pyramid, 0 is the finest; other formats have level 0 only.
    """

    tasks: tuple[str, ...] = ()
    uncertainty: bool = False
    expert_map: bool = False
    level: int = 0


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    wanted: Wanted,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Segment volumes and write the label maps in their geometry.

    The next volume is read while the current one is segmented.

    Parameters
    ----------
    predictor : Predictor
        The student.
    inputs : sequence of Path
        Files, DICOM or OME-Zarr folders, or folders of files.
    out : Path
        A folder for ``<case>_<task>.nii.gz`` (or the input's own format); or one file, for one
        volume and one task.
    wanted : Wanted
        Tasks and extras.
    progress : callable, optional
        Called with the share that is done and what is being done.

    Returns
    -------
    list of dict
        Per volume and task: ``input``, ``task``, ``labels`` (the file), ``why``, ``windows``,
        ``seconds``, ``volumes_ml`` by label, and the extra files.

    Raises
    ------
    UserError
        Before any work, if an input or a task is unknown or `out` cannot be written; then if
        nothing fits or a volume lacks the level.  Of several volumes the others are segmented
        first.
    """
    for task in wanted.tasks:
        predictor.entry(task)
    paths = list_inputs(inputs)
    if _is_file(out) and (len(paths) > 1 or len(wanted.tasks) > 1):
        raise UserError("a folder to write several label maps to", f"the file {out}")
    if _is_file(out):
        check_target(out)
    else:
        require_writable(out)
    names = case_names(paths)
    results: list[dict[str, Any]] = []
    refused: list[UserError] = []
    for number, (path, reading) in enumerate(read_ahead(paths, wanted.level)):
        show = _part(progress, number, len(paths), names[path])
        try:
            predictor.set_volume(reading.result())
            results += _predict_volume(predictor, path, out, wanted, show)
        except UserError as error:
            refused.append(error)
            if len(paths) > 1:
                logger.warning("%s: %s", path.name, error)
    if len(refused) == len(paths) == 1:
        raise refused[0]
    if refused:
        raise UserError(f"{len(paths)} volumes to segment", f"{len(refused)} that cannot be, above")
    return results


def _predict_volume(
    predictor: Predictor, path: Path, out: Path, wanted: Wanted, progress: Progress | None
) -> list[dict[str, Any]]:
    """Segment the current volume, read from `path`."""
    fits = _fits(predictor, wanted, progress)
    if _is_file(out) and len(fits) > 1:
        raise UserError("a folder to write several label maps to", f"the file {out}")
    results = []
    for fit in fits:
        name = f"{stem_of(path)}_{fit.task}{suffix_for(path)}"
        target = out if _is_file(out) else out / name
        result = _predict_task(predictor, fit, target, wanted, progress)
        results.append({"input": str(path), **result})
        logger.info("%s: %s (%s) -> %s", stem_of(path), fit.task, fit.reason, target)
    return results


def _is_file(out: Path) -> bool:
    return out.name.lower().endswith(WRITTEN_SUFFIXES)


def _fits(predictor: Predictor, wanted: Wanted, progress: Progress | None) -> list[TaskFit]:
    """Return the tasks to carry out, and why."""
    if wanted.tasks:
        return [TaskFit(task, 1.0, "named", taken=True) for task in wanted.tasks]
    fits = predictor.rank_tasks(progress=progress)
    return taken_or_refuse(fits, predictor.volume.name)


def _predict_task(
    predictor: Predictor, fit: TaskFit, target: Path, wanted: Wanted, progress: Progress | None
) -> dict[str, Any]:
    """Segment one task of the current volume and write what is wanted."""
    volume = predictor.volume
    result = predictor.segment(fit.task, progress=progress)
    make_folder(target.parent)
    write_labels(target, result.labels, volume, result.task)
    entry: dict[str, Any] = {
        "task": fit.task,
        "labels": str(target),
        "why": fit.reason,
        "mode": predictor.mode,
        "windows": result.n_windows,
        "seconds": round(result.seconds, 2),
        "volumes_ml": result.volumes_ml(),
    }
    if wanted.uncertainty:
        path = _beside(target, "uncertainty")
        values = uncertainty_map(predictor, result, progress)
        _write_image(path, values, volume, ("uncertainty",))
        entry["uncertainty"] = str(path)
    if wanted.expert_map:
        path = _beside(target, "experts")
        names = expert_names(predictor.loaded.config)
        _write_image(path, result.expert_map(), volume, names)
        entry["expert_map"] = str(path)
    return entry


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f"{stem_of(target)}_{what}{suffix_for(target)}")


def _write_image(
    path: Path, data: NDArray[np.float32], like: Volume, channels: tuple[str, ...]
) -> None:
    data = data[0] if data.ndim == 4 and len(data) == 1 else data
    write_volume(path, replace(like, data=data, channel_names=channels, name=stem_of(path)))


def _part(
    progress: Progress | None, number: int, count: int, name: str
) -> Callable[[float, str], None] | None:
    """Return a progress function for one of several volumes."""
    if progress is None:
        return None

    def show(share: float, what: str) -> None:
        progress((number + share) / count, f"{name}: {what}")

    return show
