"""What `ka2er bench speed` measures, each in a process of its own: ``python -m … NAME JSON``.

A probe sets something up and returns the work to repeat.  Only the work is timed; memory is the
process's peak, and beside it what was resident when the set-up was done.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import torch

from ka2er_training.bench.references import REFERENCES, synthetic_ct
from napari_ka2er.model.service_work import peak_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.loaded import LoadedStudent
    from napari_ka2er.model.predictor import Predictor

    Work = Callable[[], object]

MIB = 2**20


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """What a probe needs to know.

    Parameters
    ----------
    student, volume : str
        A student's folder and an image file.
    task : str
        Of the student.
    repeats : int
        How often the work is timed, after one run that is not.
    mode : str
        Of the student.
    expert : str
        Name of one of its experts.
    """

    student: str = ""
    volume: str = ""
    task: str = ""
    repeats: int = 5
    mode: Mode = "sparse"
    expert: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a probe's work took.

    Parameters
    ----------
    wall_s, cpu_s : list of float
        Per repetition and unit; CPU time is that of all threads.
    peak_mib, ready_mib : float
        Highest resident memory of the process, and what it held before the work began.
    threads : int
        Threads that PyTorch was allowed.
    what : str
        In a few words.
    """

    wall_s: list[float]
    cpu_s: list[float]
    peak_mib: float
    ready_mib: float
    threads: int
    what: str = ""


class Probe(NamedTuple):
    """Work that is set up.

    Parameters
    ----------
    work : callable
        What is timed.
    what : str
        In a few words.
    units : int
        Seconds are told per unit of so many.
    """

    work: Work
    what: str
    units: int = 1


def encode_window(settings: ProbeSettings) -> Probe:
    """Return the encoding of one window of the student's, with the experts that its mode runs."""
    loaded, volume = _load(settings)
    entry = loaded.config.entry(settings.task)

    def run() -> int:
        with _predictor(settings, loaded, volume) as predictor:
            features = predictor.features(settings.task)
            z, y, x = (slice(n // 2, n // 2 + 1) for n in features.geometry.shape)
            return features.fill((z, y, x))

    window = "x".join(map(str, entry.window))
    return Probe(run, f"encode the window of {window} around the volume's middle, {settings.mode}")


def encode_volume(settings: ProbeSettings) -> Probe:
    """Return the encoding of all windows of a volume; seconds are those of one."""
    loaded, volume = _load(settings)
    with _predictor(settings, loaded, volume) as predictor:
        n_windows = len(predictor.features(settings.task).lattice.tiles)

    def run() -> int:
        with _predictor(settings, loaded, volume) as predictor:
            return predictor.features(settings.task).fill()

    return Probe(run, f"mean of all {n_windows} windows of the volume, {settings.mode}", n_windows)


def automatic_pass(settings: ProbeSettings) -> Probe:
    """Return the student's automatic result on a whole volume, nothing cached."""
    loaded, volume = _load(settings)

    def run() -> object:
        with _predictor(settings, loaded, volume) as predictor:
            return predictor.segment(settings.task).labels

    return Probe(run, f"automatic pass, {settings.mode}, {_shape(volume)}")


def large_ct(settings: ProbeSettings) -> Probe:
    """Return the automatic pass over a computed CT of 512x512x400 voxels, which is in memory."""
    loaded, _ = _load(settings)
    volume = synthetic_ct()

    def run() -> object:
        with _predictor(settings, loaded, volume) as predictor:
            return predictor.segment(settings.task).labels

    what = f"automatic pass, {settings.mode}, {settings.task}, computed {_shape(volume)}"
    return Probe(run, what)


def expert_pass(settings: ProbeSettings) -> Probe:
    """Return one expert's own nnU-Net prediction of the whole volume."""
    loaded, volume = _load(settings)
    expert = loaded.experts[settings.expert]
    what = f"nnU-Net pass of {settings.expert}, {_shape(volume)}"
    return Probe(partial(expert.predict, volume), what)


def click(settings: ProbeSettings) -> Probe:
    """Return a click in the middle of the volume, with its features cached."""
    from napari_ka2er.core.prompts import Point

    loaded, volume = _load(settings)
    holder = _predictor(settings, loaded, volume)
    predictor = holder.__enter__()  # its cache must outlive the set-up; the process ends with it
    labels = predictor.segment(settings.task).labels
    task = loaded.config.entry(settings.task).task
    z, y, x = volume.geometry.to_world([n // 2 for n in volume.shape])
    prompt = Point((float(z), float(y), float(x)), positive=True)
    previous = labels == task.values[0]

    def run() -> object:
        return predictor.prompt(settings.task, task.values[0], [prompt], previous=previous)

    region = predictor.prompt(settings.task, task.values[0], [prompt], previous=previous).roi
    size = "x".join(str(part.stop - part.start) for part in region)
    return Probe(run, f"one click, features cached, region {size}, {settings.mode}")


class _predictor:
    """A predictor with a cache of its own, which is gone afterwards."""

    def __init__(self, settings: ProbeSettings, loaded: LoadedStudent, volume: Volume) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._made = settings.mode, loaded, volume

    def __enter__(self) -> Predictor:
        from napari_ka2er.model.predictor import Predictor

        mode, loaded, volume = self._made
        predictor = Predictor(loaded, mode, Path(self._folder.name))
        predictor.set_volume(volume)
        return predictor

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()


def _load(settings: ProbeSettings) -> tuple[LoadedStudent, Volume]:
    from napari_ka2er.core.io import read_volume
    from napari_ka2er.model.checkpoint import load_student

    loaded = load_student(Path(settings.student))
    for name in loaded.experts:  # loading is not part of any measurement
        assert loaded.experts[name].task
    return loaded, read_volume(Path(settings.volume))


def _reference(make: Callable[[], tuple[Work, str]], settings: ProbeSettings) -> Probe:
    return Probe(*make())


def _shape(volume: Volume) -> str:
    return "x".join(map(str, volume.shape))


PROBES: Mapping[str, Callable[[ProbeSettings], Probe]] = {
    **{
        probe.__name__: probe
        for probe in (encode_window, encode_volume, automatic_pass, large_ct, expert_pass, click)
    },
    **{name: partial(_reference, make) for name, make in REFERENCES.items()},
}


def run_probe(name: str, settings: ProbeSettings) -> Spent:
    """Set a probe up, run it once, then time its repetitions."""
    work, what, units = PROBES[name](settings)
    ready = psutil.Process().memory_info().rss / MIB
    if settings.repeats > 1:
        work()  # the first run allocates and chooses algorithms
    wall, cpu = [], []
    for _ in range(settings.repeats):
        begun = time.perf_counter(), time.process_time()
        work()
        wall.append((time.perf_counter() - begun[0]) / units)
        cpu.append((time.process_time() - begun[1]) / units)
    peak = peak_mib() or psutil.Process().memory_info().rss / MIB
    return Spent(wall, cpu, peak, ready, torch.get_num_threads(), what)


def main(arguments: Sequence[str]) -> None:
    """Run the probe that the arguments name and print what it took, as JSON on the last line."""
    name, text = arguments
    spent = run_probe(name, ProbeSettings(**json.loads(text)))
    sys.stdout.write(json.dumps(asdict(spent)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
