"""What clicks say about the voxels around them, without anything learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ka2er.core.prompts import Box
from napari_ka2er.core.touched import voxels_of
from napari_ka2er.model.prompt_maps import edges_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.volume import Geometry

    Floats = NDArray[np.float64]

# Found on training cases of the sample student (docs/benchmarks/sample.md), in mean voxel edges and
# in logits.  A mask that is wrong in one place is often wrong in the same way all around: beside
# the errors of a few voxels there are some as wide as the object.
_SCALE = 4.0
_WIDEST = 24.0
_WIDE_SHARE = 0.3
_MARGIN = 1.5
_NOISE = 0.3
_REACH = 3.5
_MAX_PER_PROMPT = 16


def spread(
    logits: NDArray[np.float32], prompts: Sequence[Prompt], grid: Geometry
) -> NDArray[np.float32]:
    """Return logits moved towards what prompts say, smoothly, around those they contradicted.

    Where a prompt and the logits disagree, or agree by less than a margin, there is an error of
    known size; between such places it is taken for a Gaussian process, whose mean is added
    (kriging).  The process is the sum of a narrow one and one as wide as the mask is large.
    Prompts that the logits agree with hold it near zero.  Prompts have noise, so that where they
    stand close together some may stay contradicted.

    Parameters
    ----------
    logits : ndarray of float32, shape grid.shape
        The mask's logits.
    prompts : sequence of Prompt
        All prompts of the object, oldest first; boxes around it say nothing about single voxels.
        Of a long prompt some voxels are taken, evenly.
    grid : Geometry
        The logits' lattice.

    Returns
    -------
    ndarray of float32, shape grid.shape
        `logits` itself if no prompt contradicts them, or none lies on the lattice.

    References
    ----------
    Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eq. 2.25.
    """
    voxels, signs = _declared(prompts, grid)
    known = logits[tuple(voxels.T)].astype(np.float64)
    missing = np.where(signs * known < _MARGIN, signs * _MARGIN - known, 0.0)
    if not missing.any():
        return logits
    edges = edges_of(grid.spacing)
    places = voxels * edges
    bumps = ((1.0, _SCALE), (_WIDE_SHARE, _wide_scale(logits, edges)))
    covariance = sum(share * _covariance(places, scale) for share, scale in bumps)
    weights = np.linalg.solve(covariance + _NOISE * np.eye(len(places)), missing)
    result = logits.copy()
    for share, scale in bumps:
        window = _window(voxels, scale / edges, logits.shape)
        result[window] += _bumps(window, edges, places, weights * share, scale)
    return result


def _wide_scale(logits: NDArray[np.float32], edges: Floats) -> float:
    """Return the radius of a ball as large as the mask, within limits."""
    volume = np.count_nonzero(logits > 0) * float(np.prod(edges))
    radius = (volume * 3 / (4 * np.pi)) ** (1 / 3)
    return float(np.clip(radius, _SCALE, _WIDEST))


def _declared(prompts: Sequence[Prompt], grid: Geometry) -> tuple[NDArray[np.intp], Floats]:
    """Return voxels, shape (N, 3), each once, and +1 or -1 for each; the newest prompt counts."""
    found: dict[tuple[int, ...], float] = {}
    for prompt in prompts:
        if isinstance(prompt, Box) and prompt.positive:
            continue
        voxels = voxels_of(prompt, grid)
        n = min(len(voxels), _MAX_PER_PROMPT)
        for voxel in voxels[np.linspace(0, len(voxels) - 1, n).round().astype(int)]:
            found[tuple(int(v) for v in voxel)] = 1.0 if prompt.positive else -1.0
    return np.array(list(found), dtype=np.intp).reshape(-1, 3), np.array(list(found.values()))


def _covariance(places: Floats, scale: float) -> Floats:
    squared = ((places[:, None] - places) ** 2).sum(axis=-1)
    covariance: Floats = np.exp(-squared / (2 * scale**2))
    return covariance


def _window(voxels: NDArray[np.intp], scale: Floats, shape: tuple[int, ...]) -> Region:
    """Return how far Gaussians around voxels reach; `scale` in voxels along each axis."""
    reach = np.ceil(_REACH * scale).astype(int)
    low = np.maximum(voxels.min(axis=0) - reach, 0)
    high = np.minimum(voxels.max(axis=0) + reach + 1, shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _bumps(
    window: Region,
    edges: Floats,
    places: Floats,
    heights: NDArray[np.floating],
    scale: float,
) -> NDArray[np.float32]:
    """Return the sum of Gaussians of one scale at N places, in a window.

    Each is the product of one along each axis, so that the sum is one product of matrices, (Z, N)
    by (N, Y X): as fast for a dozen scribbles as for a click.
    """
    z, y, x = (
        np.exp(-((np.arange(p.start, p.stop) * edge - at[:, None]) ** 2) / (2 * scale**2))
        for p, edge, at in zip(window, edges, places.T, strict=True)
    )
    planes = (y[:, :, None] * x[:, None]).astype(np.float32)
    columns = (z * heights[:, None]).astype(np.float32)
    # By PyTorch: NumPy's BLAS has threads of its own, which then wait in the way of PyTorch's.
    product = torch.tensordot(torch.from_numpy(columns), torch.from_numpy(planes), dims=([0], [0]))
    summed: NDArray[np.float32] = product.numpy()
    return summed
