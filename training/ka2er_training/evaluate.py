"""How good a student or an expert is on labelled cases: per case and label, at native spacing."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ka2er_training.bench.stats import Interval, bootstrap
from ka2er_training.metrics import Scores, score_case
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.resampling import resample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Geometry, Volume

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]


class Segmenter(Protocol):
    """Anything that turns a volume into a label map of a task."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def segment(self, volume: Volume, task: Task) -> NDArray[Any]:
        """Return the label map (Z, Y, X) on the volume's lattice."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """A case with the truth: its name, its task, and where image and labels are.

    Voxels whose label is `ignore` were not looked at by anybody; they count neither for nor
    against a prediction.
    """

    name: str
    task: Task
    image: Path
    labels: Path
    ignore: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One label of one case, as one system found it.

    Parameters
    ----------
    system, task, label, case : str
        Whose result it is, and of what.
    scores : Scores
        Dice, NSD, HD95, volumes.
    seconds, cpu_s : float
        Wall and CPU time of the whole case (the same for all its labels).
    """

    system: str
    task: str
    label: str
    case: str
    scores: Scores
    seconds: float
    cpu_s: float

    def to_json(self) -> dict[str, Any]:
        """Return plain, flat data that `from_json` takes back."""
        data = asdict(self)
        return {**data.pop("scores"), **data}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """Build a row from what `to_json` returned."""
        scores = {key: data[key] for key in Scores.__dataclass_fields__}
        own = {key: value for key, value in data.items() if key not in scores}
        return cls(scores=Scores(**scores), **own)


def evaluate(
    segmenter: Segmenter,
    cases: Sequence[LabelledCase],
    *,
    change: Callable[[Volume, str], Volume] | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> list[Row]:
    """Segment cases and compare with their labels on the label files' lattice.

    Parameters
    ----------
    segmenter : Segmenter
        A student or an expert.
    cases : sequence of LabelledCase
        Labelled volumes that no training has seen.
    change : callable, optional
        ``change(volume, case)`` is what the segmenter is shown instead; labels stay as they are.
    progress, cancelled : callable, optional
        Told the share done; asked before every case.

    Returns
    -------
    list of Row
        One per case and label; empty without cases.

    Raises
    ------
    CancelledError
        If `cancelled` says so.
    """
    rows: list[Row] = []
    for i, case in enumerate(cases):
        if cancelled is not None and cancelled():
            raise CancelledError
        if progress is not None:
            progress(i / len(cases), f"{segmenter.name}: {case.name}")
        rows += evaluate_case(segmenter, case, change)
    return rows


def evaluate_case(
    segmenter: Segmenter,
    case: LabelledCase,
    change: Callable[[Volume, str], Volume] | None = None,
) -> list[Row]:
    """Return the rows of one case; see `evaluate`."""
    volume = read_volume(case.image)
    shown = volume if change is None else change(volume, case.name)
    wall, cpu = time.perf_counter(), time.process_time()
    pred = segmenter.segment(shown, case.task)
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return compared(segmenter.name, case, pred, shown.geometry, spent)


def compared(
    name: str,
    case: LabelledCase,
    pred: NDArray[Any],
    geometry: Geometry,
    spent: tuple[float, float],
    *,
    surfaces: bool = True,
) -> list[Row]:
    """Return the rows of a case from a label map that was predicted.

    Parameters
    ----------
    name : str
        Of the system.
    case : LabelledCase
        With the truth, on whose lattice the two are compared.
    pred : ndarray, shape (Z, Y, X)
        The label map.
    geometry : Geometry
        Its lattice.
    spent : tuple of float
        Wall and CPU seconds that it took.
    surfaces : bool
        Whether NSD and HD95 are measured too.
    """
    gt, lattice = read_labels(case.labels)
    pred = on_lattice(pred, geometry, lattice)
    if case.ignore is not None:
        pred = np.where(gt == case.ignore, 0, pred)
    return [
        Row(name, case.task.name, label, case.name, scores, *spent)
        for label, scores in score_case(gt, pred, lattice, case.task, surfaces=surfaces).items()
    ]


def on_lattice(labels: NDArray[Any], source: Geometry, target: Geometry) -> NDArray[Any]:
    """Return a label map on another lattice, by nearest voxel; unchanged if it is the same one."""
    if source.is_close(target):
        return labels
    return resample(labels, source, target, order=0)


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the table: a system on one label.

    Parameters
    ----------
    system, task, label : str
        ``"all"`` as label is the mean over the task's labels within each case.
    dice, nsd, hd95_mm : Interval
        Means over the cases in which the label occurs or was predicted.
    absent, missed, invented : int
        Cases without the label that were left out; with an empty prediction; with a prediction
        where there is nothing.
    """

    system: str
    task: str
    label: str
    dice: Interval
    nsd: Interval
    hd95_mm: Interval
    absent: int
    missed: int
    invented: int

    def to_json(self) -> dict[str, Any]:
        """Return plain data; what is not a number becomes None."""
        data = asdict(self)
        for key in ("dice", "nsd", "hd95_mm"):
            data[key] = {k: None if _is_nan(v) else v for k, v in data[key].items()}
        return data


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Return one summary per system, task and label, and one of all labels if there are several."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.system, row.task), []).append(row)
    summaries = []
    for members in groups.values():
        labels = list(dict.fromkeys(row.label for row in members))
        summaries += [_summary([r for r in members if r.label == name], name) for name in labels]
        if len(labels) > 1:
            summaries.append(_summary(members, "all"))
    return summaries


def _summary(rows: Sequence[Row], label: str) -> Summary:
    status = [row.scores.status for row in rows]
    dice, nsd, hd95 = (
        bootstrap(list(per_case(rows, metric).values())) for metric in ("dice", "nsd", "hd95_mm")
    )
    counts = [status.count(s) for s in ("absent", "missed", "invented")]
    return Summary(rows[0].system, rows[0].task, label, dice, nsd, hd95, *counts)


def per_case(rows: Iterable[Row], metric: str = "dice") -> dict[str, float]:
    """Return each case's mean of a metric over its labels; cases without anything are left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        value = getattr(row.scores, metric)
        if value is not None:
            values.setdefault(row.case, []).append(value)
    return {case: float(np.mean(found)) for case, found in values.items()}


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
