"""Experts' features on the student's grid.

Experts look at the whole volume on their own lattices.  A window of the student is another lattice,
possibly rotated and scaled by augmentation; both are affine in world coordinates, so one matrix per
feature map takes a token of the student to its place among the expert's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from napari_ka2er.core.volume import Geometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# What the student is given of an expert in a window.
REAL, HALLUCINATED, ABSENT = 0, 1, 2

# A feature map finer than this share of the student's pitch is averaged first, or it would alias.
_ALIAS = 0.7


class FeatureMapLike(Protocol):
    """One stage of an expert's features over a volume.

    `data` (C, z, y, x); `from_world` (4, 4) from world (z, y, x, 1) mm to its indices; `field`
    (2, 3) lowest and highest index that lies in the image, beyond which there is only padding.
    """

    @property
    def data(self) -> NDArray[Any]:
        """The features."""

    @property
    def from_world(self) -> NDArray[np.float64]:
        """Their place."""

    @property
    def field(self) -> NDArray[np.float64]:
        """Their extent."""


@dataclass(slots=True)
class WindowFeatures:
    """The experts' features on a batch of student windows.

    Parameters
    ----------
    levels : dict of int to list of Tensor
        For each stride, a tensor (B, C_k, Z/s, Y/s, X/s) per expert, raw (not standardised).
    masks : dict of int to Tensor
        For each stride, (B, K, Z/s, Y/s, X/s) bool: inside the expert's field.
    state : Tensor
        (B, K) of `REAL`, `HALLUCINATED` or `ABSENT`.  Features of experts that are not real are
        never read.
    """

    levels: dict[int, list[Tensor]]
    masks: dict[int, Tensor]
    state: Tensor

    def to(self, device: torch.device | str) -> WindowFeatures:
        """Return the same features on another device."""
        return WindowFeatures(
            {s: [t.to(device) for t in ts] for s, ts in self.levels.items()},
            {s: m.to(device) for s, m in self.masks.items()},
            self.state.to(device),
        )


def token_geometry(window: Geometry, stride: int) -> Geometry:
    """Return the lattice of a window's tokens: token i covers voxels ``i·s … i·s + s − 1``."""
    step = np.diag([stride, stride, stride, 1.0])
    step[:3, 3] = (stride - 1) / 2
    z, y, x = (n // stride for n in window.shape)
    return Geometry((z, y, x), window.affine @ step)


def align(feature: FeatureMapLike, tokens: Geometry) -> tuple[Tensor, Tensor]:
    """Return an expert's feature map at the student's tokens.

    Parameters
    ----------
    feature : FeatureMapLike
        Features (C, z, y, x) and the matrix from world (z, y, x) mm to their indices, which holds
        the expert's crop, axis order, resampling and token-centre offset.
    tokens : Geometry
        The student's tokens.

    Returns
    -------
    features : Tensor, shape (C, Z, Y, X), float32
        Trilinear; averaged first along axes on which the map is much finer than the tokens.
        Outside the field, the nearest value.
    inside : Tensor of bool, shape (Z, Y, X)
        Where the expert has looked.
    """
    matrix = feature.from_world @ tokens.affine
    size = np.array(feature.data.shape[1:])
    index = _indices(tokens.shape, matrix)
    low, high = torch.as_tensor(feature.field)
    inside = ((index >= low) & (index <= high)).all(dim=-1)
    factor = _pool_factors(matrix, size)
    first, end = _box(index, size, factor)
    crop = feature.data[:, first[0] : end[0], first[1] : end[1], first[2] : end[2]]
    values = torch.from_numpy(np.ascontiguousarray(crop, dtype=np.float32))[None]
    index = index - torch.as_tensor(first)
    if (factor > 1).any():
        kernel = [int(f) for f in factor]
        values = F.avg_pool3d(values, kernel, ceil_mode=True, count_include_pad=False)
        index = (index - torch.as_tensor((factor - 1) / 2)) / torch.as_tensor(factor)
    extent = torch.as_tensor(values.shape[2:], dtype=torch.float64)
    grid = (2 * (index + 0.5) / extent - 1).flip(-1)[None].float()  # (z, y, x) → (x, y, z)
    sampled = F.grid_sample(
        values, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0], inside


def _indices(shape: tuple[int, int, int], matrix: NDArray[np.float64]) -> Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return mesh @ torch.as_tensor(matrix[:3, :3].T.copy()) + torch.as_tensor(matrix[:3, 3].copy())


def _pool_factors(matrix: NDArray[np.float64], size: NDArray[np.int_]) -> NDArray[np.int_]:
    step = np.linalg.norm(
        matrix[:3, :3], axis=1
    )  # feature tokens per student token, by feature axis
    factor = np.where(step * _ALIAS > 1, np.round(step), 1).astype(int)
    within: NDArray[np.int_] = np.minimum(np.maximum(factor, 1), size)
    return within


def _box(
    index: Tensor, size: NDArray[np.int_], factor: NDArray[np.int_]
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the part of the map that the tokens need, so that a memory map is read sparingly.

    Whole cells of averages, or the last one would be another average in another window: cells up
    to one and a half beyond a token are interpolated.
    """
    flat = index.reshape(-1, 3)
    low = np.floor(flat.min(dim=0).values.numpy()).astype(int) - factor
    end = np.ceil(flat.max(dim=0).values.numpy() + 1.5 * factor - 0.5).astype(int) + 1
    low = np.clip(low, 0, size - 1) // factor * factor
    return low, np.clip(-(-end // factor) * factor, low + 1, size)


def align_window(
    views: Sequence[Sequence[FeatureMapLike] | None],
    stages: Sequence[Mapping[int, int]],
    window: Geometry,
    strides: Sequence[int],
) -> WindowFeatures:
    """Return all experts' features on one window of the student.

    Parameters
    ----------
    views : sequence
        Per expert, its feature maps (finest first), or None where it has not looked; then its state
        is `HALLUCINATED` and its features are zeros of one channel, never read.
    stages : sequence of mapping
        Per expert, stride → index of the feature map.
    window : Geometry
        The window's voxels.
    strides : sequence of int
        The student's levels.

    Returns
    -------
    WindowFeatures
        With a batch of one.
    """
    levels: dict[int, list[Tensor]] = {}
    masks: dict[int, Tensor] = {}
    for stride in strides:
        tokens = token_geometry(window, stride)
        pairs = [
            align(view[table[stride]], tokens) if view is not None else _nothing(tokens)
            for view, table in zip(views, stages, strict=True)
        ]
        levels[stride] = [features[None] for features, _ in pairs]
        masks[stride] = torch.stack([inside for _, inside in pairs])[None]
    state = torch.tensor([[HALLUCINATED if view is None else REAL for view in views]])
    return WindowFeatures(levels, masks, state)


def _nothing(tokens: Geometry) -> tuple[Tensor, Tensor]:
    return torch.zeros(1, *tokens.shape), torch.zeros(tokens.shape, dtype=torch.bool)
