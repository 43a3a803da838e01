"""What an expert sees in a volume: its decoder's features, window by window and only where wanted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.volume import corners

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.expert_store import FeatureStore
    from napari_ka2er.model.expert_windows import WindowGrid, WorkingGrid

_FP16_MAX = 65504.0


def decode(network: nn.Module, image: Tensor, finest: int = 0) -> list[Tensor]:
    """Return the features of a U-Net's decoder.

    Parameters
    ----------
    network : nn.Module
        A U-Net of dynamic-network-architectures.
    image : Tensor, shape (B, C, z, y, x)
        A preprocessed window.
    finest : int
        The finest stage wanted; finer ones are not computed.

    Returns
    -------
    list of Tensor, shape (B, C_s, z / stride, …)
        Stage `finest` first, the bottleneck (the encoder's last output) last.
    """
    skips = network.encoder(image)
    decoder: Any = network.decoder
    features = [skips[-1]]
    steps = zip(decoder.transpconvs, decoder.stages, reversed(skips[finest:-1]), strict=False)
    for upsample, merge, skip in steps:
        features.append(merge(torch.cat((upsample(features[-1]), skip), 1)))
    return features[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """One stage of an expert's features over a volume.

    Parameters
    ----------
    data : ndarray of float16, shape (C, z, y, x)
        Features along the expert's own axes; zeros where no window has run.
    from_world : ndarray, shape (4, 4)
        From world (z, y, x, 1) in mm to fractional indices of `data`.  Holds the crop, the axis
        order, the resampling and where the stage's tokens look.
    pitch_mm : ndarray, shape (3,)
        Distance of neighbouring features along the expert's axes.
    field : ndarray, shape (2, 3)
        Lowest and highest index that lies in the image; beyond is padding.
    stage : int
        0 is the finest.
    stride : tuple of int
        Working voxels per feature, along the expert's axes.
    view : ExpertView
        What fills it.
    """

    data: NDArray[np.float16]
    from_world: NDArray[np.float64]
    pitch_mm: NDArray[np.float64]
    field: NDArray[np.float64]
    stage: int
    stride: tuple[int, ...]
    view: ExpertView

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Where windows have run, shape (z, y, x)."""
        mask = np.zeros(self.data.shape[1:], dtype=bool)
        for index in np.argwhere(self.view.filled):
            mask[self.view.windows.core(index, self.stride)] = True
        return mask

    def tokens_of(self, region: Geometry) -> tuple[NDArray[np.int_], NDArray[np.int_]] | None:
        """Return the first and last token that bilinear interpolation in a region reads.

        None if the region lies outside the image.
        """
        outer = corners(region)
        voxel = np.abs(region.affine[:3, :3]).sum(axis=1) / 2  # to the voxels' own corners
        signs = np.array(list(product((-1, 1), repeat=3)))
        points = (outer[:, None] + signs * voxel).reshape(-1, 3)
        index = points @ self.from_world[:3, :3].T + self.from_world[:3, 3]
        low, high = index.min(axis=0), index.max(axis=0)
        if (high < self.field[0]).any() or (low > self.field[1]).any():
            return None
        last = np.array(self.data.shape[1:]) - 1
        first = np.clip(np.floor(low), 0, last).astype(int)
        return first, np.clip(np.ceil(high), 0, last).astype(int)


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
        Strides and token centres.
    work : Work
        How to prepare the image and run a window.

    Attributes
    ----------
    stages : tuple of FeatureMap
        Finest first, bottleneck last; stages that are not kept have no channels.
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
        self._store = store
        self._work = work
        self._image: NDArray[np.float32] | None = None
        self._lock = Lock()
        self.cost_windows = 0
        self.stages = tuple(self._map(stage, layout) for stage in range(len(layout.strides)))

    def _map(self, stage: int, layout: StageLayout) -> FeatureMap:
        stride, centre = layout.strides[stage], layout.centres[stage]
        shape = [n // s for n, s in zip(self.grid.padded_shape, stride, strict=True)]
        nothing = np.zeros((0, *shape), dtype=np.float16)
        return FeatureMap(
            data=self._store.maps.get(stage, nothing),
            from_world=self.grid.stage(stride, centre),
            pitch_mm=self.grid.spacing * np.array(stride),
            field=self.grid.field(stride, centre),
            stage=stage,
            stride=tuple(stride),
            view=self,
        )

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which windows have run, by their place along the expert's axes."""
        return self._store.filled

    @property
    def n_windows(self) -> int:
        """Number of windows that cover the volume."""
        return int(self._store.filled.size)

    def fill(
        self,
        region: Geometry | None = None,
        *,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Run the windows that a region needs and that have not run yet.

        Parameters
        ----------
        region : Geometry, optional
            Where features will be read; None for the whole volume.
        progress : callable, optional
            Told the share done in [0, 1] and what is being done.
        cancelled : callable, optional
            Asked before each window whether to stop.

        Raises
        ------
        CancelledError
            If it was stopped; windows that have run are kept.
        """
        with self._lock:
            missing = self.missing(region)
            for number, index in enumerate(missing):
                if cancelled is not None and cancelled():
                    raise CancelledError("the expert was stopped")
                self._run(index)
                if progress is not None:
                    progress((number + 1) / len(missing), f"window {number + 1} of {len(missing)}")

    def missing(self, region: Geometry | None = None) -> list[tuple[int, ...]]:
        """Return the windows that a region needs and that have not run yet."""
        wanted = set(np.ndindex(*self.windows.shape)) if region is None else self._needed(region)
        return sorted(index for index in wanted if not self.filled[index])

    def _needed(self, region: Geometry) -> set[tuple[int, ...]]:
        needed: set[tuple[int, ...]] = set()
        for stage in self._store.maps:
            feature = self.stages[stage]
            tokens = feature.tokens_of(region)
            if tokens is not None:
                needed |= self.windows.touching(*tokens, feature.stride)
        return needed

    def _run(self, index: tuple[int, ...]) -> None:
        if self._image is None:
            self._image = self._work.prepare()
        window = self._image[(slice(None), *self.windows.window(index))]
        kept = sorted(self._store.maps)
        features = self._work.look(window, kept[0])
        self.cost_windows += 1
        parts = {}
        for stage in kept:
            stride = self.stages[stage].stride
            where = self.windows.core(index, stride)
            offset = [w.start // s for w, s in zip(self.windows.window(index), stride, strict=True)]
            inner = tuple(
                slice(c.start - o, c.stop - o) for c, o in zip(where, offset, strict=True)
            )
            values = features[stage - kept[0]][(slice(None), *inner)]
            parts[stage] = where, np.clip(values, -_FP16_MAX, _FP16_MAX)
        self._store.write(index, parts)


@dataclass(frozen=True, slots=True)
class StageLayout:
    """Per stage, finest first: stride and the voxel at which token 0 looks, along the expert's axes."""

    strides: Sequence[tuple[int, ...]]
    centres: Sequence[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Work:
    """What a view needs done.

    Parameters
    ----------
    prepare : callable
        Returns the preprocessed and padded image (C, z, y, x); called once, when a window must run.
    look : callable
        Takes a window (C, z, y, x) and the finest stage wanted; returns that stage's features
        (C, z, y, x) and those of the coarser ones, up to the bottleneck.
    """

    prepare: Callable[[], NDArray[np.float32]]
    look: Callable[[NDArray[np.float32], int], list[NDArray[np.float32]]]
