"""What the process of a `PredictorService` can be asked to do."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.student_card import read_student_json
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.answers import Usage
from napari_ka2er.model.service_wire import Facts
from napari_ka2er.model.shared import attached

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.prompts import Position, Prompt
    from napari_ka2er.model.config import Mode
    from napari_ka2er.model.predictor import Predictor
    from napari_ka2er.model.ranking import TaskFit
    from napari_ka2er.model.segmentation import Segmentation
    from napari_ka2er.model.shared import Place


@dataclass(frozen=True, slots=True)
class Talk:
    """How a call reports, and how it learns that it is to stop."""

    progress: Callable[[float, str], None]
    cancelled: Callable[[], bool]


class Work:
    """The calls by name; each takes its talk and what the service sends, and returns plain data.

    Parameters
    ----------
    settings : dict
        ``student``, ``mode``, ``device`` and ``cache_dir`` as `PredictorService` takes them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._predictor: Predictor
        self._mask: NDArray[np.bool_]
        self._last: Segmentation | None = None

    def load(self, talk: Talk) -> Facts:
        """Load the student."""
        folder, cache = Path(self._settings["student"]), self._settings["cache_dir"]
        read_student_json(folder)  # what is no student is told before PyTorch, which takes seconds
        talk.progress(0.0, "starting PyTorch")
        from napari_ka2er.model.checkpoint import load_student
        from napari_ka2er.model.device import resolve_device
        from napari_ka2er.model.maps import expert_names
        from napari_ka2er.model.predictor import Predictor

        talk.progress(0.5, "loading the student")
        device = resolve_device(self._settings["device"])
        loaded = load_student(folder, device)
        self._predictor = Predictor(loaded, self._settings["mode"], cache and Path(cache))
        version = str(loaded.card.get("version", ""))
        return Facts(version, loaded.digest, self._predictor.tasks, expert_names(loaded.config))

    def set_volume(
        self,
        talk: Talk,
        *,
        data: Place,
        mask: Place,
        affine: NDArray[np.float64],
        channel_names: tuple[str, ...],
        name: str,
    ) -> None:
        """Choose the volume; `mask` is where masks come and go."""
        values, masks = attached(data), attached(mask)
        self._predictor.set_volume(Volume(values, affine, channel_names, name))
        self._mask = masks
        self._last = None

    def segment(self, talk: Talk, task: str, mode: Mode | None, labels: Place) -> tuple[Any, ...]:
        """Write the automatic labels; return what goes into a `SegmentationAnswer` beside them."""
        out = attached(labels)
        result = self._segment(talk, task, mode)
        out[...] = result.labels
        return result.seconds, result.n_windows, result.volumes_ml()

    def prompt(
        self,
        talk: Talk,
        *,
        task: str,
        label: int | None,
        prompts: Sequence[Prompt],
        has_previous: bool,
        is_free: bool,
    ) -> tuple[Region, float, float, int, Region]:
        """Write the new mask into its box; return the rest of the `PromptResult`."""
        result = self._predictor.prompt(
            task,
            label,
            prompts,
            self._mask if has_previous else None,
            is_free=is_free,
            progress=talk.progress,
            cancelled=talk.cancelled,
        )
        self._mask[result.box] = result.mask
        return result.box, result.predicted_dice, result.seconds, result.n_windows, result.roi

    def fill(
        self, talk: Talk, task: str, around_mm: Position | None, max_windows: int | None
    ) -> int:
        """Encode what is missing; return the number of windows."""
        return self._predictor.fill(
            task,
            around_mm,
            max_windows=max_windows,
            progress=talk.progress,
            cancelled=talk.cancelled,
        )

    def filled_share(self, talk: Talk, task: str) -> float:
        """Return the share of tiles that are filled."""
        return float(self._predictor.features(task).store.filled.mean())

    def uncertainty(self, talk: Talk, task: str, values: Place) -> None:
        """Write the uncertainty."""
        from napari_ka2er.model.maps import uncertainty_map

        out = attached(values)
        result = self._result(talk, task)
        out[...] = uncertainty_map(self._predictor, result, talk.progress, talk.cancelled)

    def expert_map(self, talk: Talk, task: str, values: Place) -> None:
        """Write the expert map."""
        out = attached(values)
        self._result(talk, task).expert_map(out=out)

    def rank_tasks(self, talk: Talk) -> list[TaskFit]:
        """Return how well each task fits."""
        return self._predictor.rank_tasks(progress=talk.progress, cancelled=talk.cancelled)

    def usage(self, talk: Talk) -> Usage:
        """Return what this process has used."""
        return Usage(time.process_time(), peak_mib())

    def _segment(self, talk: Talk, task: str, mode: Mode | None) -> Segmentation:
        self._last = None  # room for the next
        result = self._predictor.segment(
            task, mode=mode, progress=talk.progress, cancelled=talk.cancelled
        )
        self._last = result
        return result

    def _result(self, talk: Talk, task: str) -> Segmentation:
        """Return the task's result in the predictor's mode, the last one if it is that."""
        features, last = self._predictor.features(task), self._last
        if last is not None and last.features is features and last.task.name == task:
            return last
        return self._segment(talk, task, None)


def peak_mib() -> float | None:
    """Return the highest resident memory of this process; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
