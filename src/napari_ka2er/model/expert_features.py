"""The features of an expert's decoder, and one stage of them over a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ka2er.core.volume import corners

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.expert_windows import WindowGrid

# A reader averages a map this much finer than its own tokens before it interpolates.
_AVERAGED = 1.4


def total_strides(network: nn.Module) -> tuple[tuple[int, ...], ...]:
    """Return the total stride (z, y, x) of each stage of a U-Net, finest first."""
    encoder: Any = network.encoder
    total = np.cumprod(np.array(encoder.strides), axis=0)
    return tuple(tuple(int(n) for n in row) for row in total)


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
    encoder: Any = network.encoder
    decoder: Any = network.decoder
    skips = encoder(image)
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
    field : ndarray, shape (2, 3)
        Lowest and highest index that lies in the image; beyond is padding.
    stage : int
        0 is the finest.
    stride : tuple of int
        Working voxels per feature, along the expert's axes.
    windows : WindowGrid
        What the expert runs.
    filled_windows : ndarray of bool
        Which of them have run; changes while a view is filled.
    """

    data: NDArray[np.float16]
    from_world: NDArray[np.float64]
    field: NDArray[np.float64]
    stage: int
    stride: tuple[int, ...]
    windows: WindowGrid
    filled_windows: NDArray[np.bool_]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Where windows have run, shape (z, y, x)."""
        mask = np.zeros(self.data.shape[1:], dtype=bool)
        for index in np.argwhere(self.filled_windows).tolist():
            mask[self.windows.core(index, self.stride)] = True
        return mask

    def windows_for(self, points: Geometry) -> set[tuple[int, ...]]:
        """Return the windows whose features interpolation at some points reads.

        Parameters
        ----------
        points : Geometry
            A lattice of points.  Those beyond the image get the nearest feature; where all of them
            are, no window is needed.
        """
        matrix = self.from_world @ points.affine
        step = np.linalg.norm(matrix[:3, :3], axis=1)
        reach = np.where(step > _AVERAGED, 1.5 * np.round(step) - 0.5, 0)  # cells of averages
        index = corners(points) @ self.from_world[:3, :3].T + self.from_world[:3, 3]
        low, high = index.min(axis=0), index.max(axis=0)
        if (high < self.field[0]).any() or (low > self.field[1]).any():
            return set()
        last = np.array(self.data.shape[1:]) - 1
        first = np.clip(np.floor(low - reach), 0, last).astype(int)
        end = np.clip(np.ceil(high + reach), 0, last).astype(int)
        return self.windows.touching(first, end, self.stride)
