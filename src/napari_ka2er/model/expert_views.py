"""A student's experts looking at one volume for one of the student's grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_ka2er.model.alignment import align_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_ka2er.core.volume import Geometry, Volume
    from napari_ka2er.model.alignment import WindowFeatures
    from napari_ka2er.model.config import ExpertEntry
    from napari_ka2er.model.expert_view import ExpertView
    from napari_ka2er.model.loaded import LoadedStudent

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]


class ExpertViews:
    """The experts' views of a volume, each made when it is first wanted.

    Parameters
    ----------
    loaded : LoadedStudent
        The student and its experts.
    volume : Volume
        The image.
    spacing_mm : tuple of float
        Of the student's grid.
    folder : Path
        Where the experts keep their features.
    """

    def __init__(
        self,
        loaded: LoadedStudent,
        volume: Volume,
        spacing_mm: tuple[float, float, float],
        folder: Path,
    ) -> None:
        self._loaded = loaded
        self._volume = volume
        self._spacing_mm = spacing_mm
        self._folder = folder
        self._views: dict[str, ExpertView] = {}

    @property
    def in_use(self) -> set[str]:
        """Names of the folders with features of the views that there are."""
        folders = (view.folder for view in self._views.values())
        return {folder.name for folder in folders if folder is not None}

    def forget(self) -> None:
        """Free the views and, with each, the preprocessed volume; they can be made anew."""
        self._views = {}

    def look(
        self,
        window: Geometry,
        wanted: Sequence[bool],
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> WindowFeatures | None:
        """Let experts look at a window of the student.

        Parameters
        ----------
        window : Geometry
            The window's voxels.
        wanted : sequence of bool
            Per expert, whether it is to look.
        progress, cancelled : callable, optional
            As in `ExpertView.fill`, for all of them together.

        Returns
        -------
        WindowFeatures or None
            None where no expert is wanted.

        Raises
        ------
        CancelledError
            If `cancelled` says so; the experts' windows that have run are kept.
        """
        if not any(wanted):
            return None
        entries = self._loaded.config.experts
        chosen = [entry for entry, is_wanted in zip(entries, wanted, strict=True) if is_wanted]
        for done, entry in enumerate(chosen):
            told = part_of(progress, done / len(chosen), 1 / len(chosen), f"expert {entry.name}, ")
            self._view(entry).fill(window, read_at=entry.stages, progress=told, cancelled=cancelled)
        maps = [self._views[e.name].stages if e in chosen else None for e in entries]
        student = self._loaded.student
        strides = [int(stride) for stride in (*student.coarse, *student.fine)]
        features = align_window(maps, [entry.stages for entry in entries], window, strides)
        return features.to(self._loaded.device)

    def _view(self, entry: ExpertEntry) -> ExpertView:
        if entry.name not in self._views:
            self._views[entry.name] = self._loaded.experts[entry.name].look(
                self._volume,
                self._spacing_mm,
                self._folder,
                stages=sorted(set(entry.stages.values())),
            )
        return self._views[entry.name]


def part_of(
    progress: Progress | None, first: float, share: float, prefix: str = ""
) -> Progress | None:
    """Return a progress for a part of the work that begins at `first` and is `share` of all."""
    if progress is None:
        return None
    return lambda done, what: progress(first + share * done, f"{prefix}{what}")
