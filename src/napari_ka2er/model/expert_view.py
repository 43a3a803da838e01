"""An expert looking at a volume: windows run only where features are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from napari_ka2er.core.errors import CancelledError
from napari_ka2er.model.alignment import token_geometry
from napari_ka2er.model.expert_features import FeatureMap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.expert_store import FeatureStore
    from napari_ka2er.model.expert_windows import WindowGrid, WorkingGrid

_FP16_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class StageLayout:
    """Per stage, finest first: its stride, and the voxel at which its token 0 looks.

    Both along the expert's own axes.
    """

    strides: Sequence[tuple[int, ...]]
    centres: Sequence[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Work:
    """What a view needs done.

    Parameters
    ----------
    prepare : callable
        Returns the preprocessed image (C, z, y, x), padded up to the patch.
    look : callable
        Takes a window (C, z, y, x) and the finest stage wanted; returns that stage's features
        (C, z, y, x) and those of the coarser ones, up to the bottleneck.
    """

    prepare: Callable[[], NDArray[np.float32]]
    look: Callable[[NDArray[np.float32], int], list[NDArray[np.float32]]]


class ExpertView:
    """An expert looking at one volume.

    Windows have the expert's own patch size, as instance normalisation makes features depend on the
    window's extent.  Of each window only the core is kept, so that a feature does not depend on
    which windows have run, nor on their order.

    Parameters
    ----------
    grid : WorkingGrid
        Where the expert's voxels lie.
    windows : WindowGrid
        Its windows.
    store : FeatureStore
        What is kept, per stage.
    layout : StageLayout
        Strides and token centres of all stages.
    work : Work
        How to prepare the image and run a window.

    Attributes
    ----------
    stages : tuple of FeatureMap
        Finest first, bottleneck last; those that are not kept have no channels.
    cost_windows : int
        Windows that this view has run.
    """

    def __init__(
        self,
        grid: WorkingGrid,
        windows: WindowGrid,
        store: FeatureStore,
        layout: StageLayout,
        work: Work,
    ) -> None:
        self.grid = grid
        self.windows = windows
        self.cost_windows = 0
        self._store = store
        self._work = work
        self._image: NDArray[np.float32] | None = None
        self._lock = Lock()
        self.stages = tuple(self._map(stage, layout) for stage in range(len(layout.strides)))

    def _map(self, stage: int, layout: StageLayout) -> FeatureMap:
        stride, centre = layout.strides[stage], layout.centres[stage]
        shape = [n // s for n, s in zip(self.grid.padded_shape, stride, strict=True)]
        return FeatureMap(
            data=self._store.maps.get(stage, np.zeros((0, *shape), dtype=np.float16)),
            from_world=self.grid.stage(stride, centre),
            field=self.grid.field(stride, centre),
            stage=stage,
            stride=tuple(stride),
            windows=self.windows,
            filled_windows=self._store.filled,
        )

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which windows have run, by their place along the expert's axes."""
        return self._store.filled

    @property
    def folder(self) -> Path | None:
        """Where the features are kept; None in memory."""
        return self._store.folder

    @property
    def n_windows(self) -> int:
        """Number of windows that cover the volume."""
        return int(self._store.filled.size)

    def fill(
        self,
        region: Geometry | None = None,
        *,
        read_at: Mapping[int, int] | None = None,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Run the windows that a region needs and that have not run yet.

        Parameters
        ----------
        region : Geometry, optional
            The voxels where features will be read; None for the whole volume.
        read_at : mapping of int to int, optional
            Stride in voxels of the region → stage that will be read there, as in `ExpertEntry`:
            coarse tokens lie inside the region, so that fewer windows are needed.  By default
            every stage at every voxel.
        progress : callable, optional
            Told the share done in [0, 1] and what is being done.
        cancelled : callable, optional
            Asked before each window whether to stop.

        Raises
        ------
        CancelledError
            If it was stopped; windows that have run are kept.
        UserError
            If the disk has too little room for the features.
        """
        with self._lock:
            missing = self.missing(region, read_at)
            self._check_room(missing)
            for number, index in enumerate(missing, start=1):
                if cancelled is not None and cancelled():
                    raise CancelledError("the expert was stopped")
                self._run(index)
                if progress is not None:
                    progress(number / len(missing), f"window {number} of {len(missing)}")
            if self.filled.all():
                self._image = None

    def _check_room(self, missing: Sequence[tuple[int, ...]]) -> None:
        if missing:
            self._store.check_room(
                {
                    stage: [
                        self.windows.core(index, self.stages[stage].stride) for index in missing
                    ]
                    for stage in self._store.maps
                }
            )

    def missing(
        self, region: Geometry | None = None, read_at: Mapping[int, int] | None = None
    ) -> list[tuple[int, ...]]:
        """Return the windows that a region needs and that have not run yet; see `fill`."""
        if region is None:
            wanted = set(np.ndindex(*self.windows.shape))
        else:
            pairs = [(1, s) for s in self._store.maps] if read_at is None else read_at.items()
            found = [self.stages[s].windows_for(token_geometry(region, t)) for t, s in pairs]
            wanted = set().union(*found)
        return sorted(index for index in wanted if not self.filled[index])

    def _run(self, index: tuple[int, ...]) -> None:
        if self._image is None:
            self._image = self._work.prepare()
        place = self.windows.window(index)
        kept = sorted(self._store.maps)
        features = self._work.look(self._image[(slice(None), *place)], kept[0])
        self.cost_windows += 1
        parts = {}
        for stage in kept:
            stride = self.stages[stage].stride
            core = self.windows.core(index, stride)
            values = at_tokens(features[stage - kept[0]], [w.start for w in place], core, stride)
            parts[stage] = core, np.clip(values, -_FP16_MAX, _FP16_MAX)
        self._store.write(index, parts)


def at_tokens(
    values: NDArray[np.float32],
    start: Sequence[int],
    core: Sequence[slice],
    stride: Sequence[int],
) -> NDArray[np.float32]:
    """Return a window's features at the volume's tokens.

    Parameters
    ----------
    values : ndarray, shape (C, z, y, x)
        The window's; its token 0 lies at voxel `start`.
    start : sequence of int
        The window's first voxel.
    core : sequence of slice
        The volume's tokens; token i lies at voxel ``i · stride``.
    stride : sequence of int
        Voxels per token.

    Returns
    -------
    ndarray, shape (C, *core)
        As they are where tokens coincide; else linear between the two neighbours, and the last one
        beyond.
    """
    for axis, (first, where, step) in enumerate(zip(start, core, stride, strict=True), start=1):
        place = np.arange(where.start, where.stop) - first / step
        values = _at(values, np.minimum(place, values.shape[axis] - 1), axis)
    return values


def _at(values: NDArray[np.float32], place: NDArray[np.float64], axis: int) -> NDArray[np.float32]:
    """Return features at ascending places along an axis, none of them beyond its ends."""
    low = np.floor(place).astype(int)
    share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(4)])
    if not share.any() and low[-1] - low[0] == len(low) - 1:  # most windows: nothing is copied
        return values[(*[slice(None)] * axis, slice(low[0], low[-1] + 1))]
    near = values.take(low, axis=axis)
    following = values.take(np.minimum(low + 1, values.shape[axis] - 1), axis=axis)
    between: NDArray[np.float32] = near + share * (following - near)
    return between
