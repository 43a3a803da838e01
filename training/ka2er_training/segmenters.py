"""Experts and students behind one interface, for evaluation."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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
    """A student in one mode; it keeps nothing from one volume to the next."""

    loaded: LoadedStudent
    mode: Mode
    name: str = "student"

    def segment(self, volume: Volume, task: Task) -> NDArray[Any]:
        """Return the student's automatic result."""
        with tempfile.TemporaryDirectory() as folder:
            predictor = Predictor(self.loaded, self.mode, Path(folder))
            predictor.set_volume(volume)
            labels: NDArray[Any] = predictor.segment(task.name).labels
        return labels
