"""Experts and students behind one interface, for evaluation."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ka2er_training.holdout_features import SharedFeatures, trust
from napari_ka2er.model.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.experts import Expert
    from napari_ka2er.model.loaded import LoadedStudent


@dataclass(frozen=True, slots=True)
class Look:
    """What a segmenter found in a volume.

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X)
        The label map.
    weights : tuple of float or None
        A student's mean trust in each expert, and last in none, where labels are found.
    """

    labels: NDArray[Any]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ExpertSegmenter:
    """One expert, as nnU-Net predicts (no mirroring)."""

    expert: Expert
    name: str = "expert"

    def segment(self, volume: Volume, task: Task) -> NDArray[Any]:
        """Return the expert's label map."""
        return self.expert.predict(volume)


@dataclass(frozen=True, slots=True)
class EnsembleSegmenter:
    """All experts asked at once, none knowing whose volume it is.

    A voxel belongs to the label with the highest probability that any expert gives, if that is at
    least a half; labels of other tasks than the one asked for count as background.
    """

    experts: Sequence[Expert]
    name: str = "ensemble"

    def segment(self, volume: Volume, task: Task) -> NDArray[Any]:
        """Return the label map of one task."""
        highest = np.full(volume.shape, 0.5, np.float32)
        labels = np.zeros(volume.shape, np.uint8)
        for expert in self.experts:
            logits = torch.from_numpy(expert.predict_logits(volume))
            probabilities = logits.softmax(dim=0).numpy()
            for value in expert.task.values:
                wins = probabilities[value] > highest
                labels[wins] = value if expert.task.name == task.name else 0
                highest[wins] = probabilities[value][wins]
        return labels


@dataclass(frozen=True, slots=True)
class StudentSegmenter:
    """A student in one mode.

    It keeps nothing from one volume to the next, but the experts' features in the folder
    `features`, if that is given: students with the same expert find them there.
    """

    loaded: LoadedStudent
    mode: Mode
    name: str = "student"
    features: Path | None = None

    def segment(self, volume: Volume, task: Task) -> NDArray[Any]:
        """Return the student's automatic result."""
        return self.look(volume, task).labels

    def look(self, volume: Volume, task: Task) -> Look:
        """Return the automatic result, and which experts were trusted for it."""
        with tempfile.TemporaryDirectory() as folder:
            predictor = Predictor(self.loaded, self.mode, Path(folder))
            if self.features is not None:
                predictor.cache = SharedFeatures(Path(folder), self.features)
            predictor.set_volume(volume)
            found = predictor.segment(task.name)
            return Look(found.labels, trust(found))
