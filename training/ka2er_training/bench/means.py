"""What every cell works with: data, caches, the device, and whom to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ka2er_training.sources import read_source
from napari_ka2er.core.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Progress, Store


@dataclass(frozen=True, slots=True)
class Means:
    """What cells work with.

    Parameters
    ----------
    data : Path
        Folder with the tasks' nnU-Net raw data sets.
    cache : Path
        Folder for features of training volumes; may be deleted at any time.
    device : str
        Where to train and predict.
    progress, cancelled : callable, optional
        Told the share of the running cell that is done; asked whether to stop.
    """

    data: Path
    cache: Path
    device: str = "cpu"
    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None

    def task(self, name: str, folder: str) -> Task:
        """Return a task as its data set describes it, under the benchmark's name."""
        source = read_source(self.data / folder)
        return Task(name, source.labels, source.modality)


def expert_folder(cell: Cell, store: Store) -> Path:
    """Return the converted expert of a finished cell of kind expert or untrained."""
    return store.folder_of(cell) / "expert"
