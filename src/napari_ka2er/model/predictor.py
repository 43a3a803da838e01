"""The student at work on one volume after another: what the command line and the widget call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import refuse_non_finite
from napari_ka2er.model.cache import Cache
from napari_ka2er.model.filling import GridFeatures
from napari_ka2er.model.fingerprints import fingerprint
from napari_ka2er.model.prompting import Prompter
from napari_ka2er.model.question import Question
from napari_ka2er.model.ranking import judge, prior_fit
from napari_ka2er.model.segmentation import Segmentation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ka2er.core.prompts import Position, Prompt
    from napari_ka2er.core.task import Task
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.config import Mode, TaskEntry
    from napari_ka2er.model.filling import Cancelled, Progress
    from napari_ka2er.model.loaded import LoadedStudent
    from napari_ka2er.model.prompting import Mask, PromptResult
    from napari_ka2er.model.ranking import TaskFit

MODES = ("sparse", "full", "distilled")


class Predictor:
    """A student that segments volumes, automatically and with prompts.

    Not for use by two threads at once.

    Parameters
    ----------
    loaded : LoadedStudent
        The student; it brings its device.
    mode : str
        ``"sparse"`` runs the experts that matter, ``"full"`` all, ``"distilled"`` none.
    cache_dir : Path, optional
        Where features are kept; by default in the user's cache folder.

    Raises
    ------
    UserError
        If the mode is unknown.
    """

    def __init__(
        self, loaded: LoadedStudent, mode: Mode = "sparse", cache_dir: Path | None = None
    ) -> None:
        if mode not in MODES:
            raise UserError(f"a mode: {', '.join(MODES)}", repr(mode))
        self.loaded = loaded
        self.mode: Mode = mode
        self.cache = Cache(cache_dir)
        self._volume: Volume | None = None
        self._grids: dict[tuple[object, ...], GridFeatures] = {}

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The student's tasks."""
        return tuple(entry.task for entry in self.loaded.config.tasks)

    @property
    def volume(self) -> Volume:
        """The volume that is worked on.

        Raises
        ------
        UserError
            If none has been set.
        """
        if self._volume is None:
            raise UserError("a volume to work on", "none", "set one first")
        return self._volume

    def set_volume(self, volume: Volume) -> None:
        """Choose the volume; what was made of it before is found again by its digest.

        Raises
        ------
        UserError
            If it has several channels, or voxels that are no finite numbers: the networks would
            answer them with a label everywhere.
        """
        if volume.n_channels > 1:
            raise UserError(
                "a volume with one channel",
                f"{volume.n_channels} in {volume.name}",
                "save the channel of interest as a file of its own",
            )
        _refuse_non_finite(volume)
        self._volume = volume
        self._grids = {}

    def features(self, task: str, mode: Mode | None = None) -> GridFeatures:
        """Return the volume on a task's grid, as far as it is encoded.

        Raises
        ------
        UserError
            If the student does not know the task.
        """
        entry = self.loaded.config.entry(task)
        key = (entry.spacing_mm, entry.window, mode or self.mode)
        if key not in self._grids:
            self._grids[key] = GridFeatures(
                self.loaded, self.volume, entry, mode or self.mode, self.cache
            )
        return self._grids[key]

    def segment(
        self,
        task: str,
        *,
        mode: Mode | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Segmentation:
        """Return the automatic result of a task.

        Parameters
        ----------
        task : str
            One of the student's tasks.
        mode : str, optional
            Another mode for this once.
        progress : callable, optional
            Called with the share that is done and what is being done.
        cancelled : callable, optional
            Asked between windows.

        Raises
        ------
        CancelledError
            If `cancelled` says so; a later call goes on where this one stopped.
        """
        start = time.perf_counter()
        features = self.features(task, mode)
        n_windows = features.fill(progress=progress, cancelled=cancelled)
        known = self.loaded.config.entry(task).task
        result = Segmentation(known, self.volume.geometry, features, n_windows=n_windows)
        result.seconds = time.perf_counter() - start
        return result

    def fill(
        self,
        task: str,
        around_mm: Position | None = None,
        *,
        max_windows: int | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> int:
        """Encode what is not encoded yet, beginning near a place, so that clicks find it ready.

        Parameters
        ----------
        task : str
            Whose grid to fill.
        around_mm : tuple of float, optional
            World position (z, y, x).
        max_windows : int, optional
            Stop after this many.
        progress, cancelled : callable, optional
            As in `segment`.

        Returns
        -------
        int
            Number of windows that were encoded.
        """
        features = self.features(task)
        centre = None if around_mm is None else features.geometry.to_index(around_mm)
        return features.fill(
            centre=centre, max_windows=max_windows, progress=progress, cancelled=cancelled
        )

    def prompt(
        self,
        task: str,
        label: int | None,
        prompts: Sequence[Prompt],
        previous: Mask | None = None,
        *,
        is_free: bool = False,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> PromptResult:
        """Return how a mask changes because of prompts.

        Parameters
        ----------
        task : str
            Whose grid is used.
        label : int or None
            Value of the label that is meant; None for any structure.
        prompts : sequence of Prompt
            All prompts for this mask, oldest first.
        previous : ndarray of bool, shape (Z, Y, X), optional
            The mask so far; None or all false begins a new one.
        is_free : bool
            Whether the mask may also change where no prompt touches the change.
        progress, cancelled : callable, optional
            As in `segment`.

        Raises
        ------
        UserError
            If task or label are unknown, the mask has another shape than the volume, there are no
            prompts, or one lies outside the volume.
        """
        if previous is not None and previous.shape != self.volume.shape:
            raise UserError(f"a mask of shape {self.volume.shape}", f"{previous.shape}")
        question = Question(prompts, self.output(task, label), previous, is_free)
        prompter = Prompter(self.features(task), self.volume.geometry)
        return prompter.answer(question, progress, cancelled)

    def output(self, task: str, label: int | None) -> int:
        """Return which of the student's outputs a label is; their number if `label` is None."""
        config = self.loaded.config
        if label is None:
            return config.n_outputs
        known = config.entry(task).task
        return config.outputs(task)[known.values.index(known.label(label).value)]

    def rank_tasks(
        self, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> list[TaskFit]:
        """Return how well each task fits the volume, best first.

        Tasks that fit by intensities and field of view are tried, and what they find counts; their
        features stay cached for the segmentation that follows.
        """
        volume = fingerprint(self.volume)
        priors = {e.task.name: prior_fit(e, volume) for e in self.loaded.config.tasks}
        fits = []
        for name, prior in priors.items():
            evidence = None
            if prior[0] > 0:
                told = _telling(progress, f"trying {name}")
                found = self.segment(name, progress=told, cancelled=cancelled)
                evidence = found.evidence()
            fits.append(judge(name, prior, evidence, self.entry(name).intensity.get("most_ml")))
        return sorted(fits, key=lambda fit: -fit.score)

    def entry(self, task: str) -> TaskEntry:
        """Return what the student knows of a task."""
        return self.loaded.config.entry(task)


def _refuse_non_finite(volume: Volume) -> None:
    """Raise a `UserError` for NaN and infinity, which the ends alone tell: no copy is made."""
    data = volume.data
    if data.dtype.kind == "f" and not np.isfinite([data.min(), data.max()]).all():
        refuse_non_finite(data, volume.name)


def _telling(progress: Progress | None, what: str) -> Progress | None:
    """Return a progress that says what is being done in other words."""
    return None if progress is None else lambda share, _: progress(share, what)
