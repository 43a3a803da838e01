"""Many clicks of a user, timed in a process of its own: ``python -m … WAY JSON``.

The ways: ``encode`` fills the cache and takes no time of clicks, ``direct`` asks a predictor in
this process, ``service`` one in a process of its own, as the widget does.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ka2er_training.bench.probes import ProbeSettings
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.model.service import PredictorService
from napari_ka2er.model.service_work import peak_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.predictor import Predictor

    Labels = NDArray[np.unsignedinteger[Any]]

SIZE = 192
CLICKS_PER_OBJECT = 5
# How far from the border of what was found a user sees that something is wrong, in voxels.
_NEAR, _FAR = 1.5, 4.0


@dataclass(frozen=True, slots=True)
class ClickSettings(ProbeSettings):
    """A probe's settings, with the features' folder; `repeats` clicks are timed.

    Parameters
    ----------
    cache : str
        Where ``encode`` leaves the features for the other ways.
    """

    cache: str = ""


@dataclass(frozen=True, slots=True)
class Click:
    """A click on a label; the first one of an object starts from the automatic mask."""

    label: int
    point: Point
    is_first: bool


def cube(volume: Volume, size: int = SIZE) -> Volume:
    """Return a volume of `size` voxels along each axis with the same middle and orientation.

    What is too long is cut, what is too short is padded with the lowest value.
    """
    missing = [size - n for n in volume.shape]
    pads = [(max(m, 0) // 2, max(m, 0) - max(m, 0) // 2) for m in missing]
    cuts = [max(-m, 0) // 2 for m in missing]
    data = volume.data[tuple(slice(c, c + size) for c in cuts)]
    data = np.pad(data, pads, constant_values=data.min())
    affine = np.array(volume.affine)
    affine[:3, 3] = volume.geometry.to_world(
        [c - before for c, (before, _) in zip(cuts, pads, strict=True)]
    )
    return Volume(data, affine, name=f"{volume.name}, {size}³")


def volume_of(path: str) -> Volume:
    """Return an image, or the sample T1 brought to 192³ if none is named."""
    if path:
        return read_volume(Path(path))
    return cube(read_volume(sample_t1()))


def sample_t1() -> Path:
    """Return the file of the sample T1."""
    return sample_folder() / "volumes" / "icbm_t1.nii.gz"


def clicks_on(labels: Labels, task: Task, geometry: Geometry, count: int) -> list[Click]:
    """Return clicks as of a user who corrects what was found, always the same ones.

    Objects of five clicks; the labels take turns.  Clicks lie outside and inside the border of what
    was found, in turns, or anywhere where there is no such voxel.
    """
    generator = np.random.default_rng(0)
    around = {value: _around(labels == value) for value in task.values}
    clicks = []
    for number in range(count):
        value = task.values[number // CLICKS_PER_OBJECT % len(task.values)]
        places = around[value][number % 2]
        voxel = (
            np.unravel_index(places[generator.integers(len(places))], labels.shape)
            if len(places)
            else generator.integers(labels.shape)
        )
        z, y, x = geometry.to_world(voxel)
        point = Point((float(z), float(y), float(x)), positive=number % 2 == 0)
        clicks.append(Click(value, point, number % CLICKS_PER_OBJECT == 0))
    return clicks


def _around(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the flat indices of voxels near the border of a mask, outside and inside of it."""
    found = []
    for side in (~mask, mask):
        distance = ndimage.distance_transform_edt(side) if mask.any() else np.zeros(mask.shape)
        found.append(np.flatnonzero((distance > _NEAR) & (distance < _FAR)))
    return found[0], found[1]


def timed(
    settings: ClickSettings,
    way: Predictor | PredictorService,
    spent: Callable[[], tuple[float, float]],
) -> dict[str, Any]:
    """Return what each click took; `spent` tells CPU seconds so far and those of the last call."""
    task = next(task for task in way.tasks if task.name == settings.task)
    volume = volume_of(settings.volume)
    way.set_volume(volume)
    automatic = way.segment(task.name).labels
    clicks = clicks_on(automatic, task, volume.geometry, settings.repeats)
    rows: dict[str, list[float]] = {"wall_s": [], "cpu_s": [], "border_s": []}
    answers = hashlib.sha256()
    points: list[Point] = []
    for click in [*clicks[:1], *clicks]:  # the first run allocates and chooses algorithms
        if click.is_first:
            points, mask = [], automatic == click.label
        points.append(click.point)
        cpu, begun = spent()[0], time.perf_counter()
        result = way.prompt(task.name, click.label, points, mask)
        wall = time.perf_counter() - begun
        total, busy = spent()
        mask[result.box] = result.mask
        answers.update(f"{result.box}".encode() + np.packbits(result.mask).tobytes())
        if result.n_windows:
            raise RuntimeError("the features were not cached")
        for name, value in zip(rows, (wall, total - cpu, wall - busy), strict=True):
            rows[name].append(value)
    return {
        **{name: values[1:] for name, values in rows.items()},
        "answers": answers.hexdigest(),
        "shape": list(volume.shape),
        "volume": volume.name,
    }


def direct(settings: ClickSettings) -> dict[str, Any]:
    """Time clicks that a predictor in this process answers."""
    import torch

    from napari_ka2er.model.checkpoint import load_student
    from napari_ka2er.model.predictor import Predictor

    loaded = load_student(Path(settings.student))
    predictor = Predictor(loaded, settings.mode, Path(settings.cache))
    measured = timed(settings, predictor, lambda: (time.process_time(), 0.0))
    del measured["border_s"]
    return {**measured, "peak_mib": peak_mib(), "threads": torch.get_num_threads()}


def service(settings: ClickSettings) -> dict[str, Any]:
    """Time clicks that a predictor in another process answers; CPU time is that of both."""
    log = Path(settings.cache) / "model.log"
    cache, student = Path(settings.cache), Path(settings.student)
    asked = PredictorService(student, settings.mode, "cpu", cache, log=log)

    def spent() -> tuple[float, float]:
        busy = asked.busy_s
        return time.process_time() + asked.usage().cpu_s, busy

    try:
        asked.wait_ready()
        measured = timed(settings, asked, spent)
        return {**measured, "peak_mib": asked.usage().peak_mib, "window_peak_mib": peak_mib()}
    finally:
        asked.close()


def encode(settings: ClickSettings) -> dict[str, Any]:
    """Fill the cache."""
    asked = PredictorService(
        Path(settings.student),
        settings.mode,
        "cpu",
        Path(settings.cache),
        log=Path(settings.cache) / "encode.log",
    )
    try:
        asked.set_volume(volume_of(settings.volume))
        return {"n_windows": asked.fill(settings.task), "cpu_s": asked.usage().cpu_s}
    finally:
        asked.close()


WAYS = {way.__name__: way for way in (encode, direct, service)}


def main(arguments: Sequence[str]) -> None:
    """Do what the arguments name and print what it took, as JSON on the last line."""
    way, text = arguments
    sys.stdout.write(json.dumps(WAYS[way](ClickSettings(**json.loads(text)))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
