"""A predictor in a process of its own, for a window that must not wait for it or end with it.

PyTorch stays in that process: its libraries crash beside some OpenGL drivers, and its work would
hold the interpreter that draws the window.  Nothing here imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.answers import ModelError, PromptResult, SegmentationAnswer, Usage
from napari_ka2er.model.segmentation import label_type
from napari_ka2er.model.service_calls import StudentProcess
from napari_ka2er.model.service_process import ServiceDiedError
from napari_ka2er.model.shared import SharedMask, shared_array

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.prompts import Position, Prompt
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.ranking import TaskFit
    from napari_ka2er.model.service_calls import Cancelled, Progress

__all__ = ["ModelError", "PredictorService", "ServiceDiedError"]


class PredictorService(StudentProcess):
    """What a `Predictor` does, done by a process that starts now and loads the student.

    Calls wait for the answer without holding the interpreter; make them from a worker thread, one
    at a time.  They wait for the student first and raise what `wait_ready` raises.  A `UserError`
    or `CancelledError` of the process is raised here, anything else as a `ModelError`;
    `ServiceDiedError` says that the process is gone.  It ends with `close`, or when ours ends.

    Parameters
    ----------
    student : Path
        The student's folder.
    mode, device, cache_dir
        As `Predictor` and `resolve_device` take them.  On the CPU the process uses all cores, or as
        many as OMP_NUM_THREADS says, at a lower priority than ours.
    log : Path, optional
        What the process prints; by default ``model.log`` in the user's folder for logs.

    Raises
    ------
    UserError
        If the log cannot be written.
    """

    def __init__(
        self,
        student: Path,
        mode: str = "sparse",
        device: str = "auto",
        cache_dir: Path | None = None,
        *,
        log: Path | None = None,
    ) -> None:
        super().__init__(student, mode, device, cache_dir, log=log)
        self._volume_shape: tuple[int, int, int] | None = None
        self._mask: SharedMask | None = None

    @property
    def _shape(self) -> tuple[int, int, int]:
        if self._volume_shape is None:
            raise UserError("a volume to work on", "none", "set one first")
        return self._volume_shape

    def set_volume(self, volume: Volume) -> None:
        """Choose the volume; its values are copied to memory that both processes see.

        Raises
        ------
        UserError
            If it has several channels, or there is no room; the one before stays.
        """
        data = volume.data
        with (
            self._turn(),
            shared_array(data.shape, data.dtype) as (values, values_place),
            shared_array(volume.shape, np.bool_) as (mask, mask_place),
        ):
            values[...] = data
            arguments = {
                "data": values_place,
                "mask": mask_place,
                "affine": volume.affine,
                "channel_names": volume.channel_names,
                "name": volume.name,
            }
            self._ask("set_volume", arguments)
            self._volume_shape, self._mask = volume.shape, SharedMask(mask)

    def segment(
        self,
        task: str,
        *,
        mode: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> SegmentationAnswer:
        """Return the automatic result of a task; see `Predictor.segment`."""
        with self._turn(progress, cancelled):
            kinds = [label_type(known) for known in self.tasks if known.name == task]
            with shared_array(self._shape, kinds[0] if kinds else np.uint8) as (labels, place):
                arguments = {"task": task, "mode": mode, "labels": place}
                rest = self._ask("segment", arguments, progress, cancelled)
        return SegmentationAnswer(labels, *rest)

    def prompt(
        self,
        task: str,
        label: int | None,
        prompts: Sequence[Prompt],
        previous: NDArray[np.bool_] | None = None,
        *,
        is_free: bool = False,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> PromptResult:
        """Return how a mask changes because of prompts; see `Predictor.prompt`."""
        if previous is not None and previous.shape != self._shape:
            raise UserError(f"a mask of shape {self._shape}", f"{previous.shape}")
        arguments = {
            "task": task,
            "label": label,
            "prompts": tuple(prompts),
            "has_previous": previous is not None,
            "is_free": is_free,
        }
        with self._turn(progress, cancelled):
            if self._mask is None:
                raise UserError("a volume to work on", "none", "set one first")
            self._mask.lay(previous)
            box, *rest = self._ask("prompt", arguments, progress, cancelled)
            return PromptResult(box, self._mask.take(box), *rest)

    def fill(
        self,
        task: str,
        around_mm: Position | None = None,
        *,
        max_windows: int | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> int:
        """Encode what is missing, nearest first; return the number of windows; see `Predictor`."""
        with self._turn(progress, cancelled):
            arguments = {"task": task, "around_mm": around_mm, "max_windows": max_windows}
            n_windows: int = self._ask("fill", arguments, progress, cancelled)
            return n_windows

    def filled_share(self, task: str) -> float:
        """Return which share of the volume, on the task's grid, is encoded, in [0, 1]."""
        with self._turn():
            share: float = self._ask("filled_share", {"task": task})
            return share

    def uncertainty(
        self, task: str, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> NDArray[np.float32]:
        """Return how unsure the student is of each voxel, shape (Z, Y, X); see `maps`."""
        with (
            self._turn(progress, cancelled),
            shared_array(self._shape, np.float32) as (values, place),
        ):
            self._ask("uncertainty", {"task": task, "values": place}, progress, cancelled)
        return values

    def expert_map(
        self, task: str, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Return how much each expert was trusted: `expert_names`, and shape (K+1, Z, Y, X)."""
        with self._turn(progress, cancelled):
            shape = (len(self.expert_names), *self._shape)
            with shared_array(shape, np.float32) as (values, place):
                self._ask("expert_map", {"task": task, "values": place}, progress, cancelled)
        return self.expert_names, values

    def rank_tasks(
        self, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> list[TaskFit]:
        """Return how well each task fits the volume, best first; see `Predictor.rank_tasks`."""
        with self._turn(progress, cancelled):
            fits: list[TaskFit] = self._ask("rank_tasks", {}, progress, cancelled)
            return fits

    def usage(self) -> Usage:
        """Return the CPU time and memory that the process has used so far."""
        with self._turn():
            usage: Usage = self._ask("usage", {})
            return usage
