"""The automatic result of one task, on the voxels of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.metrics import volumes_ml, voxel_ml
from napari_ka2er.model.ranking import Evidence
from napari_ka2er.model.sampling import sample, slab_of, slabs
from napari_ka2er.model.uncertainty import sigmoid, uncertainty_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.filling import GridFeatures


@dataclass(slots=True, eq=False)
class Segmentation:
    """What the student made of a task in a volume.

    Parameters
    ----------
    task : Task
        Its labels.
    geometry : Geometry
        The image's lattice; every array that is returned lies on it.
    features : GridFeatures
        The filled grid.
    seconds : float
        Time it took.
    n_windows : int
        Windows that were encoded for it; the others came from the cache.
    labels : ndarray of uint8 or uint16, shape (Z, Y, X)
        The label map, 0 where no label reaches a probability of a half.
    """

    task: Task
    geometry: Geometry
    features: GridFeatures
    seconds: float = 0.0
    n_windows: int = 0
    labels: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        values = np.array(self.task.values, dtype=label_type(self.task))
        self.labels = np.zeros(self.geometry.shape, values.dtype)
        for rows, logits in self._slabs():
            best = logits.argmax(axis=0)
            self.labels[rows] = np.where(logits.max(axis=0) >= 0, values[best], 0)

    @property
    def _channels(self) -> slice:
        """Where the task's labels lie among the stored logits."""
        return self.features.channels_of(self.task.name)

    def _slabs(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield ranges of Z and the labels' logits there."""
        stored = self.features.store.arrays["logits"][self._channels]
        for rows in slabs(self.geometry.shape, len(stored)):
            slab = slab_of(self.geometry, rows)
            yield rows, sample(stored, self.features.geometry, slab)

    def logits(self) -> NDArray[np.float32]:
        """Return the labels' logits, shape (labels, Z, Y, X); 0 is a probability of a half."""
        result = np.empty((len(self.task.labels), *self.geometry.shape), np.float32)
        for rows, logits in self._slabs():
            result[:, rows] = logits
        return result

    def uncertainty(self, other: Segmentation | None = None) -> NDArray[np.float32]:
        """Return how unsure each voxel is, in [0, 1], shape (Z, Y, X).

        Parameters
        ----------
        other : Segmentation, optional
            The same task without experts; where they disagree, neither is to be trusted.
        """
        result = np.empty(self.geometry.shape, np.float32)
        for rows, logits in self._slabs():
            result[rows] = uncertainty_of(logits, None if other is None else other._logits(rows))
        return result

    def _logits(self, rows: slice) -> NDArray[np.float32]:
        stored = self.features.store.arrays["logits"][self._channels]
        return sample(stored, self.features.geometry, slab_of(self.geometry, rows))

    def expert_map(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return how much each expert, and last the null expert, was trusted.

        Parameters
        ----------
        out : ndarray of float32, shape (K+1, Z, Y, X), optional
            Filled and returned instead of a new array, as the map of a large volume is large.

        Returns
        -------
        ndarray of float32, shape (K+1, Z, Y, X)
            They sum to 1 at every voxel.
        """
        stored = self.features.store.arrays["weights"]
        shape = (len(stored), *self.geometry.shape)
        result = np.empty(shape, np.float32) if out is None else out
        lattice = self.features.token_lattice
        for rows in slabs(self.geometry.shape, len(stored)):
            result[:, rows] = sample(stored, lattice, slab_of(self.geometry, rows))
        return result

    def volumes_ml(self) -> dict[str, float]:
        """Return the size of each label in millilitres, by name."""
        sizes = volumes_ml(self.labels, self.geometry, self.task.values)
        return {label.name: round(sizes[label.value], 3) for label in self.task.labels}

    def evidence(self) -> Evidence:
        """Return what speaks for this task being the right one for the volume.

        A student without experts always has null alone, which then says nothing.
        """
        n_found, confidence, null = 0, 0.0, 0.0
        weights = self.features.store.arrays["weights"]
        null_channel = weights[-1:] if len(weights) > 1 else np.zeros_like(weights)
        for rows, logits in self._slabs():
            best = logits.max(axis=0)
            inside = best >= 0
            if not inside.any():
                continue
            n_found += int(inside.sum())
            confidence += float(sigmoid(best[inside]).sum(dtype=np.float64))
            slab = slab_of(self.geometry, rows)
            trusted = sample(null_channel, self.features.token_lattice, slab)[0]
            null += float(trusted[inside].sum(dtype=np.float64))
        if not n_found:
            return Evidence(0.0, 0.0, 0.0)
        volume_ml = n_found * voxel_ml(self.geometry)
        return Evidence(volume_ml, confidence / n_found, null / n_found)


def label_type(task: Task) -> type[np.uint8] | type[np.uint16]:
    """Return the smallest type that holds a task's values."""
    return np.uint8 if max(task.values) < 256 else np.uint16
