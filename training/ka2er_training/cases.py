"""Training volumes on the student's grid with the experts' features beside them, kept on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ka2er_training.sides import may_mirror
from ka2er_training.stored_map import StoredMap, stored
from ka2er_training.workspace import write_json
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.resampling import grid_of, resample, resample_one_hot, student_image
from napari_ka2er.model.alignment import WindowFeatures, align, align_window
from napari_ka2er.model.config import STRIDES
from napari_ka2er.model.expert_store import FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ka2er.core.volume import Geometry, Volume
    from napari_ka2er.model.config import StudentConfig, TaskEntry
    from napari_ka2er.model.experts import Expert

_N_FOCUS = 400  # foreground voxels remembered per label, to centre windows on
# Of image, target and soft; arrays of another one are not used.  2: soft is ½ beyond the volume.
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """A training volume on the student's grid.

    Parameters
    ----------
    name : str
        The case's id.
    task : str
        The task whose labels it has.
    grid : Geometry
        The student's grid.
    image : StoredMap
        (1, Z, Y, X) normalised.
    target : StoredMap
        (L + 1, Z, Y, X): soft labels of the task, then 1 where they are annotated.  Without
        annotation the last channel is 0.
    soft : StoredMap or None
        (L, Z, Y, X) probabilities by the task's own expert.
    focus : tuple of ndarray
        Per label, some grid indices (N, 3) inside it.
    views : tuple of tuple of StoredMap
        Per expert, its feature maps, finest first.
    weight : float
        How often it is drawn, relative to the task's other cases.
    mirrored : bool
        Whether its windows may be swapped left to right.
    """

    name: str
    task: str
    grid: Geometry
    image: StoredMap
    target: StoredMap
    soft: StoredMap | None
    focus: tuple[NDArray[np.float64], ...]
    views: tuple[tuple[StoredMap, ...], ...]
    weight: float = 1.0
    mirrored: bool = True

    @property
    def is_labelled(self) -> bool:
        """Whether anything is annotated."""
        return any(len(points) for points in self.focus)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a training volume comes from.

    Parameters
    ----------
    name : str
        The case's id.
    task : str
        Its task.
    image : Path
        The image.
    label : Path or None
        The label map, or None for an unlabelled volume.
    ignore : int or None
        The label value of voxels that nobody reviewed.
    weight : float
        How often it is drawn, relative to the task's other cases.
    """

    name: str
    task: str
    image: Path
    label: Path | None
    ignore: int | None = None
    weight: float = 1.0


@dataclass(slots=True)
class Sample:
    """One training window, tensors with a batch axis of one."""

    task: str
    image: Tensor
    target: Tensor
    valid: Tensor
    features: WindowFeatures | None
    soft: Tensor | None = None
    inside: Tensor | None = None
    spacing_mm: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0))


def prepare_case(
    source: Source, entry: TaskEntry, experts: Sequence[Expert], cache: Path, *, soft: bool = True
) -> PreparedCase:
    """Return a training volume ready for drawing windows; work that is on disk is not done again.

    Parameters
    ----------
    source : Source
        Image and labels.
    entry : TaskEntry
        Grid spacing and labels of the task.
    experts : sequence of Expert
        Every expert looks at every volume, whatever its task.
    cache : Path
        Folder that may be deleted at any time.
    soft : bool
        Whether to keep the own expert's probabilities too.
    """
    volume = read_volume(source.image)
    grid = grid_of(volume.geometry, entry.spacing_mm)
    folder = cache / "cases" / _key(volume, source, entry)
    image = stored(folder / "image.npy", grid, lambda: _image(volume, grid)[None])
    target = stored(folder / "target.npy", grid, lambda: _target(source, volume, entry, grid))
    own = next((expert for expert in experts if expert.task.name == source.task), None)
    probabilities = (
        stored(
            folder / f"soft-{own.digest[:12]}.npy", grid, lambda: _soft(own, volume, entry, grid)
        )
        if own is not None and soft
        else None
    )
    views = tuple(_view(expert, volume, entry, cache / "features") for expert in experts)
    return PreparedCase(
        source.name,
        source.task,
        grid,
        image,
        target,
        probabilities,
        _focus(target.data),
        views,
        source.weight,
        may_mirror(entry.task, volume.geometry, own),
    )


def _key(volume: Volume, source: Source, entry: TaskEntry) -> str:
    parts = [
        str(_FORMAT),
        volume.digest(),
        str(entry.spacing_mm),
        str(entry.task.values),
        str(source.ignore),
    ]
    if source.label is not None:
        parts.append(hashlib.sha256(source.label.read_bytes()).hexdigest())
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


def _image(volume: Volume, grid: Geometry) -> NDArray[np.float32]:
    return student_image(volume.channels[0], volume.geometry, grid)


def _target(
    source: Source, volume: Volume, entry: TaskEntry, grid: Geometry
) -> NDArray[np.float16]:
    n_labels = len(entry.task.labels)
    if source.label is None:
        return np.zeros((n_labels + 1, *grid.shape), np.float16)
    labels, geometry = read_labels(source.label)
    soft = resample_one_hot(labels, geometry, grid, entry.task.values)
    known = np.ones(labels.shape, np.uint8) if source.ignore is None else labels != source.ignore
    inside = resample(known.astype(np.uint8), geometry, grid, order=0)
    return np.concatenate([soft, inside[None].astype(np.float16)])


def _soft(expert: Expert, volume: Volume, entry: TaskEntry, grid: Geometry) -> NDArray[np.float32]:
    logits = torch.from_numpy(expert.predict_logits(volume))
    probabilities = logits.softmax(dim=0).numpy()
    parts = [  # ½ beyond the volume: no expert knows what is there, and no loss is taken from it
        resample(probabilities[v], volume.geometry, grid, order=1, cval=0.5)
        for v in entry.task.values
    ]
    return np.stack(parts)


def _view(expert: Expert, volume: Volume, entry: TaskEntry, cache: Path) -> tuple[StoredMap, ...]:
    """Return an expert's filled feature maps; their places are kept beside the arrays."""
    seen_at = f"{FORMAT_VERSION}{expert.digest}{expert.token_centres}{entry.spacing_mm}"
    index = (
        cache / f"{volume.digest()[:24]}-{hashlib.sha256(seen_at.encode()).hexdigest()[:24]}.json"
    )
    if not index.exists():
        view = expert.look(volume, entry.spacing_mm, cache)
        view.fill()
        maps = [
            {
                "file": _file(m.data, cache),
                "from_world": m.from_world.tolist(),
                "field": m.field.tolist(),
            }
            for m in view.stages
        ]
        write_json(index, maps)
    return tuple(
        StoredMap(cache / m["file"], np.array(m["from_world"]), np.array(m["field"]))
        for m in json.loads(index.read_text())
    )


def _file(data: NDArray[Any], cache: Path) -> str:
    assert isinstance(data, np.memmap)  # as `look` was given a cache folder
    return str(Path(str(data.filename)).relative_to(cache))


def _focus(target: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    generator = np.random.default_rng(0)
    points = []
    for channel in target[:-1]:
        found = np.argwhere(channel > 0.5)
        keep = generator.permutation(len(found))[:_N_FOCUS]
        points.append(found[keep].astype(np.float64))
    return tuple(points)


def draw(
    case: PreparedCase, config: StudentConfig, window: Geometry, *, with_features: bool = True
) -> Sample:
    """Return one window of a case, resampled together with its targets and the experts' features.

    Parameters
    ----------
    case : PreparedCase
        The volume.
    config : StudentConfig
        Says which stage of which expert goes where.
    window : Geometry
        The window's lattice in the world, at any pose.
    with_features : bool
        False for students without amalgamation.
    """
    image, _ = align(case.image, window)
    stacked, inside = align(case.target, window)
    valid = (stacked[-1:] > 0.5) & inside
    features = (
        align_window(case.views, [e.stages for e in config.experts], window, STRIDES)
        if with_features
        else None
    )
    return Sample(
        task=case.task,
        image=image[None],
        target=stacked[None, :-1],
        valid=valid[None].float(),
        features=features,
        soft=None if case.soft is None else align(case.soft, window)[0][None],
        inside=inside[None, None].float(),
        spacing_mm=window.spacing,
    )
