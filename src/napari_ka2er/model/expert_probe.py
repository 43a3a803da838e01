"""Where an expert's tokens look.

A strided convolution of a plain U-Net centres token i of stride s at voxel s·i, an average pooling
at s·i + (s - 1)/2, and a decoder mixes both: taken for granted, either is up to half a token wrong.
So it is measured once, when an expert is converted.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.modules.instancenorm import _InstanceNorm

from napari_ka2er.model.expert_features import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

_MIN_TOKENS = 4
# Step of the finite differences: networks are piecewise linear, so it need only stay between
# rounding errors and the next kink.
_STEP = 1e-3
# Standard deviation in voxels: experts are asked where they see structures, not single voxels.
_SMOOTHNESS = 2.0
_VOXELS, _MAX_DRAWS = 500_000, 8


def token_centres(
    network: nn.Module,
    patch: Sequence[int],
    strides: Sequence[Sequence[int]],
    *,
    n_draws: int | None = None,
) -> tuple[tuple[float, float, float], ...]:
    """Return the voxel at which token 0 of each decoder stage looks.

    The centre of a token is the centroid of its squared response to small smooth changes of the
    image, averaged over channels (each divided by its variance) and over the tokens in the middle
    of the patch.  With a smooth random field v, the token's derivative J and the position a,
    E[(J v)(J a v)] / E[(J v)²] is that centroid, so that derivatives along v and a·v give all
    tokens at once (after Hutchinson's trace estimator).

    Parameters
    ----------
    network : nn.Module
        A U-Net of dynamic-network-architectures, frozen.
    patch : sequence of int
        Its patch size along its own axes.
    strides : sequence of (int, int, int)
        Total stride per stage, finest first.
    n_draws : int, optional
        Random images to average over; by default fewer for larger patches, which hold more tokens.

    Returns
    -------
    tuple of (float, float, float)
        Voxels along the expert's axes, per stage; token i looks at ``centre + stride · i``.
    """
    device = next(network.parameters()).device
    shape = [max(p, _MIN_TOKENS * s) for p, s in zip(patch, strides[-1], strict=True)]
    size = (1, int(next(network.parameters()).shape[1]), *shape)
    random = torch.Generator().manual_seed(0)
    moments = torch.zeros(len(strides), 4, dtype=torch.float64)
    for _ in range(n_draws or min(max(round(_VOXELS / np.prod(shape)), 1), _MAX_DRAWS)):
        image, change = (_smooth_field(size, random).to(device) for _ in range(2))
        moments += _moments(network, image, change, strides)
    centres = (moments[:, 1:] / moments[:, :1]).tolist()
    return tuple((z, y, x) for z, y, x in centres)


def trained_centres(
    probed: Sequence[Sequence[float]],
    strides: Sequence[Sequence[int]],
    *,
    is_deeply_supervised: bool = True,
) -> tuple[tuple[float, float, float], ...]:
    """Return the voxel that token 0 of each stage of a *trained* expert is about.

    Deep supervision teaches token i of a decoder stage of stride s the label of voxel
    floor((i + ½)·s) = s·i + floor(s/2), as nnU-Net shrinks labels to their nearest-exact voxel; of
    the finest stage, the label of its own voxel.  What the gradient says of a trained decoder is no
    guide: in a lung expert its centroid lay (0.7, 2.2, 1.5) voxels off, and read there the expert's
    own segmentation head fell from Dice 0.97 to 0.80; at stride 2, s/2 gave 0.96, (s - 1)/2 0.93
    and the centroid 0.73.  The bottleneck is not supervised; its centroid is kept within its cell.

    Parameters
    ----------
    probed : sequence of (float, float, float)
        What `token_centres` measured, finest stage first.
    strides : sequence of (int, int, int)
        Total stride per stage.
    is_deeply_supervised : bool
        False if only the finest stage was taught; then a coarser token is about the middle of the
        voxels that the decoder's transposed convolutions make of it.
    """
    taught = [[s // 2 if is_deeply_supervised else (s - 1) / 2 for s in row] for row in strides]
    cell = zip(probed[-1], strides[-1], strict=True)
    centres = [*taught[:-1], [min(max(c, 0.0), s - 1.0) for c, s in cell]]
    return tuple((float(z), float(y), float(x)) for z, y, x in centres)


def _smooth_field(size: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Return a stationary Gaussian field of variance 1."""
    noise = torch.randn(size, generator=random).numpy()
    field = gaussian_filter(noise, _SMOOTHNESS, axes=(2, 3, 4))
    return torch.from_numpy(field / field.std())


@torch.no_grad()
def _moments(
    network: nn.Module, image: Tensor, change: Tensor, strides: Sequence[Sequence[int]]
) -> Tensor:
    """Return per stage the energy Σ J² and its first moments about the tokens' own voxels."""
    found = torch.zeros(len(strides), 4, dtype=torch.float64)
    with _fixed_statistics(network):
        base = decode(network, image)
        plain = _derivatives(network, image, change, base)
        weights = [1 / b.var(dim=(0, 2, 3, 4), keepdim=True).clamp_min(1e-12) for b in base]
        for stage, along in enumerate(plain):
            found[stage, 0] = (_inner(along) ** 2 * weights[stage]).double().sum()
        for axis in range(3):
            place = _positions(image, axis)
            middle = place.mean()
            moved = _derivatives(network, image, change * (place - middle) / middle, base)
            for stage, along in enumerate(plain):
                own = _positions(along, axis) * strides[stage][axis]
                away = moved[stage] * middle + (middle - own) * along
                about = _inner(along * away) * weights[stage]
                found[stage, 1 + axis] = about.double().sum()
    return found


def _derivatives(
    network: nn.Module, image: Tensor, direction: Tensor, base: list[Tensor]
) -> list[Tensor]:
    """Return the features' derivatives in a direction, by stage."""
    features = decode(network, image + _STEP * direction)
    return [(f - b) / _STEP for f, b in zip(features, base, strict=True)]


def _positions(like: Tensor, axis: int) -> Tensor:
    """Return each voxel's index along an axis, counted from 0, to broadcast."""
    shape = [1, 1, 1, 1, 1]
    shape[2 + axis] = like.shape[2 + axis]
    return torch.arange(like.shape[2 + axis], device=like.device).reshape(shape).float()


def _inner(features: Tensor) -> Tensor:
    """Leave out the outer quarter of tokens on each side, whose receptive fields are cut."""
    cuts = [n // 4 for n in features.shape[2:]]
    z, y, x = (slice(c, n - c) for c, n in zip(cuts, features.shape[2:], strict=True))
    return features[:, :, z, y, x]


@contextmanager
def _fixed_statistics(network: nn.Module) -> Iterator[None]:
    """Let instance normalisation keep the mean and deviation of the first image it sees.

    Otherwise every token would depend a little on every voxel of the window, which pulls centroids
    towards the window's middle.
    """
    known: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def normalise(layer: Any, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        x = inputs[0]
        if layer not in known:
            variance = x.var(dim=(2, 3, 4), keepdim=True, correction=0)
            known[layer] = x.mean(dim=(2, 3, 4), keepdim=True), (variance + layer.eps).sqrt()
        mean, deviation = known[layer]
        result: Tensor = (x - mean) / deviation
        if layer.affine:
            result = result * layer.weight[:, None, None, None] + layer.bias[:, None, None, None]
        return result

    layers = [module for module in network.modules() if isinstance(module, _InstanceNorm)]
    hooks = [layer.register_forward_hook(normalise) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
