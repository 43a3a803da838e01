"""Prompts as tensors on the lattice of a region of interest (ROI)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_ka2er.core.boxes import is_empty
from napari_ka2er.core.prompts import Box
from napari_ka2er.core.touched import extent_of, voxels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.volume import Geometry

NEGATIVE, POSITIVE, LOW_CORNER, HIGH_CORNER, PADDING = 0, 1, 2, 3, -1
N_DRAWN, N_MAPS = 5, 9
# Decay lengths in mean voxel edges of the lattice.  The narrow map says which voxel was meant, the
# wide one reaches as far as the receptive field of the refinement.
WIDE, NARROW = 6.0, 1.5
_REACH = 4 * WIDE
_MAX_TOKENS = 4
_MAX_TOKENS_IN_ALL = 32
_MAX_CENTRES = 64


@dataclass(frozen=True, slots=True, eq=False)
class PromptTensors:
    """What the prompt encoder and the mask decoder see of the prompts.

    Parameters
    ----------
    points : Tensor, shape (B, N, 3)
        Voxel coordinates (z, y, x) in the ROI.
    point_labels : Tensor of int64, shape (B, N)
        1 in the object, 0 out of it, 2 and 3 the corners of a box, -1 padding.
    dense : Tensor, shape (B, 5, Z, Y, X)
        ``exp(-distance / WIDE)`` to (all positive, all negative, newest positive, newest negative)
        prompts, and 1 inside a box.
    focus : Tensor, shape (B, 2, 3)
        Lowest and highest voxel of the newest prompt; the ROI's middle without one.
    """

    points: Tensor
    point_labels: Tensor
    dense: Tensor
    focus: Tensor

    @property
    def newest(self) -> Tensor:
        """How near the newest prompt is, whatever its sign, shape (B, 1, Z, Y, X)."""
        return self.dense[:, 2:4].amax(dim=1, keepdim=True)

    @property
    def inside(self) -> Tensor:
        """1 inside a box, shape (B, 1, Z, Y, X)."""
        return self.dense[:, 4:]

    def to(self, device: torch.device | str) -> PromptTensors:
        """Return the same prompts on another device."""
        return PromptTensors(
            self.points.to(device),
            self.point_labels.to(device),
            self.dense.to(device),
            self.focus.to(device),
        )


class PromptCanvas:
    """Prompts drawn one after the other on a batch of ROIs of one shape.

    Parameters
    ----------
    batch_size : int
        Number of ROIs.
    shape : tuple of int
        Voxels of a ROI along (Z, Y, X).
    spacing_mm : tuple of float
        Distance between voxel centres along (Z, Y, X); distances are true ones, in mm, divided by
        the mean edge, so that maps look alike at every resolution.
    device : device, optional
        Where the maps live.
    """

    def __init__(
        self,
        batch_size: int,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = shape
        self._edges = torch.tensor(edges_of(spacing_mm), dtype=torch.float32)
        self._dense = torch.zeros(batch_size, N_DRAWN, *shape, device=device)
        self._tokens: list[list[tuple[Tensor, int]]] = [[] for _ in range(batch_size)]
        middle = torch.tensor(shape) / 2 - 0.5
        self._focus = middle.expand(batch_size, 2, 3).clone()

    def draw(self, item: int, voxels: Tensor, positive: bool) -> None:
        """Mark `voxels`, shape (N, 3), of one ROI as in or out of the object.

        Without voxels (a prompt outside the ROI) nothing is drawn, and nothing is newest.
        """
        self._dense[item, 2:4] = 0
        if len(voxels) == 0:
            return
        sign = 0 if positive else 1
        window, near = self._nearness(voxels.float().cpu())
        near = near.to(self._dense.device)
        self._dense[item, 2 + sign][window] = near
        everywhere = self._dense[item, sign][window]
        torch.maximum(everywhere, near, out=everywhere)
        self._tokens[item] += [(v, POSITIVE if positive else NEGATIVE) for v in _spread(voxels)]
        self._set_focus(item, voxels)

    def draw_box(self, item: int, voxels: Tensor) -> None:
        """Mark what lies between `voxels`, shape (N, 3), of one ROI as where the object lies."""
        self._dense[item, 2:4] = 0
        if len(voxels) == 0:
            return
        low, high = voxels.amin(0).cpu(), voxels.amax(0).cpu()
        self._dense[item, 4] = 0
        self._dense[item, 4][_slices(low, high)] = 1
        self._tokens[item] += [(low, LOW_CORNER), (high, HIGH_CORNER)]
        self._set_focus(item, voxels)

    def tensors(self) -> PromptTensors:
        """Return what was drawn so far; later drawing does not change it.

        Of very many prompts only the newest are points; the maps show all of them.
        """
        newest = [tokens[-_MAX_TOKENS_IN_ALL:] for tokens in self._tokens]
        n_tokens = max(len(tokens) for tokens in newest)
        points = torch.zeros(len(self._tokens), n_tokens, 3)
        labels = torch.full((len(self._tokens), n_tokens), PADDING)
        for item, tokens in enumerate(newest):
            for n, (voxel, label) in enumerate(tokens):
                points[item, n], labels[item, n] = voxel, label
        device = self._dense.device
        return PromptTensors(
            points.to(device),
            labels.to(device),
            self._dense.clone(),
            self._focus.clone().to(device),
        )

    def _set_focus(self, item: int, voxels: Tensor) -> None:
        self._focus[item, 0] = voxels.amin(0).cpu()
        self._focus[item, 1] = voxels.amax(0).cpu()

    def _nearness(self, voxels: Tensor) -> tuple[tuple[slice, ...], Tensor]:
        """Return where a prompt is near, as slices, and exp(-distance / WIDE) there."""
        reach = torch.ceil(_REACH / self._edges)
        last = torch.tensor(self.shape) - 1
        low = torch.maximum(voxels.amin(0) - reach, torch.zeros(3))
        high = torch.minimum(voxels.amax(0) + reach, last)
        window = _slices(low, high)
        squared = torch.full([s.stop - s.start for s in window], _REACH**2)
        if len(voxels) > _MAX_CENTRES:
            squared = torch.minimum(squared, self._transform(voxels - low, squared.shape))
        else:
            squared = torch.minimum(squared, self._nearest(voxels - low, squared.shape))
        return window, torch.where(squared < _REACH**2, torch.exp(-squared.sqrt() / WIDE), 0.0)

    def _nearest(self, voxels: Tensor, shape: torch.Size) -> Tensor:
        """Squared distance to the nearest of a few voxels: cheaper than a transform."""
        squared = torch.full(shape, torch.inf)
        axes = [torch.arange(n, dtype=torch.float32) for n in shape]
        for voxel in voxels:
            z, y, x = (
                ((axis - position) * edge) ** 2
                for axis, position, edge in zip(axes, voxel, self._edges, strict=True)
            )
            squared = torch.minimum(squared, z[:, None, None] + y[:, None] + x)
        return squared

    def _transform(self, voxels: Tensor, shape: torch.Size) -> Tensor:
        """Squared distance to the nearest of many voxels."""
        is_free = np.ones(shape, dtype=bool)
        is_free[tuple(voxels.long().numpy().T)] = False
        distance = ndimage.distance_transform_edt(is_free, sampling=self._edges.numpy())
        return torch.from_numpy(distance.astype(np.float32)) ** 2


def prompt_tensors(prompts: Sequence[Prompt], grid: Geometry) -> PromptTensors:
    """Return prompts, oldest first, as tensors of batch size 1 on a ROI's lattice.

    Parts of prompts outside the ROI are left out; without prompts there are no points and the maps
    are zero.
    """
    canvas = PromptCanvas(1, grid.shape, grid.spacing)
    for prompt in prompts:
        if isinstance(prompt, Box) and prompt.positive:
            canvas.draw_box(0, _corners(extent_of(prompt, grid)))
        else:
            canvas.draw(0, torch.from_numpy(voxels_of(prompt, grid)), prompt.positive)
    return canvas.tensors()


def maps_of(dense: Tensor) -> Tensor:
    """Return all maps that the mask decoder sees.

    Parameters
    ----------
    dense : Tensor, shape (B, 5, Z, Y, X)
        Of `PromptTensors`, whole or a part.

    Returns
    -------
    Tensor, shape (B, 9, Z, Y, X)
        The four wide maps, the same four with the narrow decay, the inside of a box.
    """
    wide = dense[:, :4]
    # exp(-d / NARROW) is the fourth power of exp(-d / WIDE); two squares are the cheapest way.
    return torch.cat([wide, wide.square().square_(), dense[:, 4:]], dim=1)


def edges_of(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return a voxel's edges along (Z, Y, X), shape (3,), in units of their geometric mean."""
    spacing = np.array(spacing_mm, dtype=np.float64)
    edges: NDArray[np.float64] = spacing / np.exp(np.log(spacing).mean())
    return edges


def _corners(extent: Region) -> Tensor:
    """Return the lowest and the highest voxel of a box, shape (2, 3), or none, (0, 3)."""
    if is_empty(extent):
        return torch.zeros(0, 3, dtype=torch.long)
    return torch.tensor([[part.start for part in extent], [part.stop - 1 for part in extent]])


def _slices(low: Tensor, high: Tensor) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))


def _spread(voxels: Tensor) -> Tensor:
    """Return a few voxels spread evenly over a prompt's voxels."""
    n_tokens = min(len(voxels), _MAX_TOKENS)
    return voxels[torch.linspace(0, len(voxels) - 1, n_tokens).round().long().cpu()].cpu()
