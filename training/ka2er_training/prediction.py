"""Segment files automatically: the work behind `ka2er predict`."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ka2er_training.inputs import (
    beside,
    case_names,
    check_out,
    is_file,
    list_inputs,
    read_ahead,
    stem_of,
    target_of,
    without_results,
)
from ka2er_training.label_folders import without_label_folders
from ka2er_training.tasks_that_fit import fits_of
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import is_label_map, write_labels, write_volume
from napari_ka2er.core.io.atomic import make_folder
from napari_ka2er.model.maps import expert_names, uncertainty_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.predictor import Predictor
    from napari_ka2er.model.ranking import TaskFit

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

_OTHER_FILES = (".png", ".jpg", ".jpeg", ".json", ".txt", ".csv")


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

    The next volume is read while the current one is segmented.  Label maps in a folder are left
    out, as they may be results of an earlier run; so are an nnU-Net data set's folders of labels.

    Parameters
    ----------
    predictor : Predictor
        The student.
    inputs : sequence of Path
        Files, DICOM or OME-Zarr folders, or folders of these.
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
        ``seconds`` (both with the search for tasks that fit in a volume's first), ``volumes_ml``
        by label, and the extra files.

    Raises
    ------
    UserError
        Before any work, if an input or a task is unknown, or `out` cannot be written or is an
        input; then if nothing fits or a volume lacks the level.  Of several volumes the others are
        segmented first, and the error's result says which were.
    """
    wanted = replace(wanted, tasks=tuple(dict.fromkeys(wanted.tasks)))
    for task in wanted.tasks:
        predictor.entry(task)
    _refuse_other_file(out)
    names = case_names(without_label_folders(list_inputs(inputs, out), inputs))
    check_out(out, len(names), len(wanted.tasks))
    names = without_results(names, inputs, _targets(predictor, names, out, wanted))
    results: list[dict[str, Any]] = []
    refused: dict[Path, UserError] = {}
    for number, (path, reading) in enumerate(read_ahead(list(names), wanted.level)):
        show = _part(progress, number, len(names), names[path])
        try:
            volume = reading.result()
            if path not in inputs and is_label_map(volume):
                logger.info("%s: left out, as it is a label map", path)
                continue
            predictor.set_volume(volume)
            found = _predict_volume(predictor, path, names[path], out, wanted, show)
            results += ({"input": str(path), **result} for result in found)
        except UserError as error:
            refused[path] = error
            if len(names) > 1:
                logger.warning("%s: %s", path, error)
    return _results_or_refuse(results, refused, len(names))


def _refuse_other_file(out: Path) -> None:
    """Refuse a name that means a file which no label map is, and would become a folder's."""
    if out.suffix.lower() in _OTHER_FILES and not out.is_dir():
        raise UserError("a folder, or a label map's file, to write to", f"{out}")


def _targets(
    predictor: Predictor, names: Mapping[Path, str], out: Path, wanted: Wanted
) -> list[Path]:
    """Return every file that may be written."""
    tasks = wanted.tasks or tuple(task.name for task in predictor.tasks)
    ends = ["uncertainty"] * wanted.uncertainty + ["experts"] * wanted.expert_map
    maps = {target_of(out, path, name, task) for path, name in names.items() for task in tasks}
    return [*maps, *(beside(target, end) for target in maps for end in ends)]


def _results_or_refuse(
    results: list[dict[str, Any]], refused: Mapping[Path, UserError], n_volumes: int
) -> list[dict[str, Any]]:
    """Return the results if no volume was refused and there are some."""
    if refused and n_volumes == 1:
        raise next(iter(refused.values()))
    if refused:
        errors = [{"input": str(path), "error": str(error)} for path, error in refused.items()]
        raise UserError(
            f"{n_volumes} volumes to segment",
            f"{len(refused)} that cannot be, above",
            result={"results": results, "refused": errors},
        )
    if not results:
        raise UserError("a volume to segment", "only label maps", "name the file of one to take it")
    return results


def _predict_volume(
    predictor: Predictor,
    path: Path,
    name: str,
    out: Path,
    wanted: Wanted,
    progress: Progress | None,
) -> list[dict[str, Any]]:
    """Segment the current volume, read from `path`."""
    start = time.perf_counter()
    fits, n_windows = fits_of(predictor, name, wanted.tasks, progress)
    seconds = time.perf_counter() - start
    if is_file(out) and len(fits) > 1:
        raise UserError("a folder to write several label maps to", f"the file {out}")
    results = []
    for fit in fits:
        target = target_of(out, path, name, fit.task)
        results.append(_predict_task(predictor, fit, target, wanted, progress))
        why = f"named, found {_sum_ml(results[-1])}" if wanted.tasks else fit.reason
        logger.info("%s: %s (%s) -> %s", name, fit.task, why, target)
    results[0]["windows"] += n_windows
    results[0]["seconds"] = round(results[0]["seconds"] + seconds, 2)
    return results


def _sum_ml(result: dict[str, Any]) -> str:
    """Return the size of all that was found."""
    ml = sum(result["volumes_ml"].values())
    return f"{ml:.0f} ml" if ml >= 100 else f"{ml:.3g} ml"


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
        path = beside(target, "uncertainty")
        values = uncertainty_map(predictor, result, progress)
        _write_image(path, values, volume, ("uncertainty",))
        entry["uncertainty"] = str(path)
    if wanted.expert_map:
        path = beside(target, "experts")
        names = expert_names(predictor.loaded.config)
        _write_image(path, result.expert_map(), volume, names)
        entry["expert_map"] = str(path)
    return entry


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
