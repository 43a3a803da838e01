"""How cells that measure do their work: systems on cases, and the cost of K experts."""

from __future__ import annotations

import statistics
import time
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.means import expert_folder
from ka2er_training.bench.shifts import shift_named
from ka2er_training.bench.subset import with_experts
from ka2er_training.evaluate import LabelledCase, evaluate
from ka2er_training.segmenters import EnsembleSegmenter, ExpertSegmenter, StudentSegmenter
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from ka2er_training.evaluate import Segmenter
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.loaded import LoadedStudent


def evaluate_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Measure one system on one task's cases; return the raw rows."""
    segmenter = _segmenter(cell, store, means)
    rows = evaluate(
        segmenter,
        cases_of(cell, means),
        change=_change(cell.settings["change"]),
        progress=means.progress,
        cancelled=means.cancelled,
    )
    return {"rows": [row.to_json() for row in rows]}


def _segmenter(cell: Cell, store: Store, means: Means) -> Segmenter:
    mode = cell.settings["mode"]
    if mode == "ensemble" or mode.endswith("expert"):
        experts = [Expert.load(expert_folder(n, store), means.device) for n in cell.needs]
        return EnsembleSegmenter(experts) if mode == "ensemble" else ExpertSegmenter(experts[0])
    return StudentSegmenter(student_of(cell, store, means), mode)


def student_of(cell: Cell, store: Store, means: Means) -> LoadedStudent:
    """Return the student that a cell measures."""
    return load_student(store.folder_of(cell.needs[0]) / "student", means.device)


def cases_of(cell: Cell, means: Means) -> list[LabelledCase]:
    """Return the cases that a cell measures on."""
    folder = cell.settings["folder"]
    task = means.task(cell.settings["task"], folder)
    return [case_of_dataset(means.data / folder, name, task) for name in cell.settings["cases"]]


def _change(name: str) -> Callable[[Volume, str], Volume] | None:
    """Return what makes a shifted volume; its seed is the case's name, the same for all systems."""
    if not name:
        return None
    shift = shift_named(name)
    return lambda volume, case: shift(volume, zlib.crc32(case.encode()))


def cost_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Return what an automatic pass costs with 1 … K experts in each mode, and the experts' own.

    The expert of the volume's own task comes first, so that K = 1 is the student that is needed.
    """
    loaded = student_of(cell, store, means)
    own = cell.settings["task"]
    names = sorted(loaded.experts, key=lambda name: name != own)
    task = means.task(own, cell.settings["folder"])
    case = case_of_dataset(means.data / cell.settings["folder"], cell.settings["case"], task)
    volume = read_volume(case.image)
    passes = {n: _timed(partial(loaded.experts[n].predict, volume), cell) for n in names}
    rows = []
    for k in range(1, len(names) + 1):
        smaller = with_experts(loaded, names[:k])
        for mode in cell.settings["modes"]:
            spent = _timed(partial(StudentSegmenter(smaller, mode).segment, volume, task), cell)
            rows.append({"k": k, "mode": mode, **spent})
        experts = [passes[name] for name in names[:k]]
        total = {key: sum(one[key] for one in experts) for key in ("cpu_s", "seconds")}
        rows.append({"k": k, "mode": "experts' own passes", **total})
    return {"rows": rows, "shape": list(volume.shape), "spacing_mm": list(volume.spacing)}


def _timed(work: Callable[[], Any], cell: Cell) -> dict[str, float]:
    """Return the median CPU and wall seconds of some repetitions."""
    cpu, wall = [], []
    for _ in range(cell.settings["repeats"]):
        begun = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
    return {"cpu_s": statistics.median(cpu), "seconds": statistics.median(wall)}


def case_of_dataset(folder: Path, name: str, task: Task, ending: str = ".nii.gz") -> LabelledCase:
    """Return a training case of an nnU-Net raw data set.

    Raises
    ------
    UserError
        If its image or labels are missing.
    """
    case = LabelledCase(
        name,
        task,
        folder / "imagesTr" / f"{name}_0000{ending}",
        folder / "labelsTr" / f"{name}{ending}",
    )
    for path in (case.image, case.labels):
        if not path.is_file():
            raise UserError(f"the file {path}", "none")
    return case
