"""Where an expert's tokens look.

A strided convolution of a plain U-Net centres token i of stride s at voxel s·i, an average pooling
at s·i + (s - 1)/2, and a decoder mixes both: taken for granted, either is up to half a token wrong.
So it is measured once, when an expert is converted.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad
from torch.nn.modules.instancenorm import _InstanceNorm

from napari_ka2er.model.expert_features import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

_MIN_TOKENS = 4


def token_centres(
    network: nn.Module,
    patch: Sequence[int],
    strides: Sequence[Sequence[int]],
    *,
    n_draws: int = 4,
    seed: int = 0,
) -> tuple[tuple[float, float, float], ...]:
    """Return the voxel at which token 0 of each decoder stage looks.

    The centre of a token is the centroid of its squared gradient with respect to the image,
    averaged over channels (each divided by its variance) and over the tokens in the middle of the
    patch.  With white noise v and position a, E[(J v)(J a v)] = Σ J² a, so that forward-mode
    derivatives along v and a·v give all tokens at once (Hutchinson's estimator).

    Parameters
    ----------
    network : nn.Module
        A U-Net of dynamic-network-architectures, frozen.
    patch : sequence of int
        Its patch size (z, y, x) in its own axes.
    strides : sequence of (int, int, int)
        Total stride per stage, finest first.
    n_draws : int
        Noise images to average over.
    seed : int
        Of the noise.

    Returns
    -------
    tuple of (float, float, float)
        Voxels along the expert's axes, per stage; token i looks at ``centre + stride · i``.
    """
    device = next(network.parameters()).device
    shape = [max(p, _MIN_TOKENS * s) for p, s in zip(patch, strides[-1], strict=True)]
    n_channels = int(next(network.parameters()).shape[1])
    random = torch.Generator().manual_seed(seed)
    moments = [torch.zeros(4, dtype=torch.float64) for _ in strides]
    with torch.no_grad(), _fixed_statistics(network):
        for _ in range(n_draws):
            image = torch.randn(1, n_channels, *shape, generator=random).to(device)
            noise = torch.randn(image.shape, generator=random).to(device)
            for stage, found in enumerate(_moments(network, image, noise, strides)):
                moments[stage] += found
    centres = (found[1:] / found[0] for found in moments)
    return tuple((float(z), float(y), float(x)) for z, y, x in centres)


def _moments(
    network: nn.Module, image: Tensor, noise: Tensor, strides: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Return per stage the energy Σ J² and its first moments about the tokens' origins."""
    values, plain = _derivative(network, image, noise)
    found = [torch.zeros(4, dtype=torch.float64) for _ in strides]
    weights = [1 / v.var(dim=(0, 2, 3, 4), keepdim=True).clamp_min(1e-12) for v in values]
    for stage in range(len(strides)):
        found[stage][0] = (_inner(plain[stage]) ** 2 * weights[stage]).double().sum().cpu()
    for axis in range(3):
        _, moved = _derivative(network, image, noise * _positions(image, axis))
        for stage, stride in enumerate(strides):
            origin = _positions(plain[stage], axis) * stride[axis]
            about = _inner(plain[stage] * (moved[stage] - origin * plain[stage]))
            found[stage][1 + axis] = (about * weights[stage]).double().sum().cpu()
    return found


def _derivative(
    network: nn.Module, image: Tensor, direction: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    with forward_ad.dual_level():
        features = decode(network, forward_ad.make_dual(image, direction))
        pairs = [forward_ad.unpack_dual(feature) for feature in features]
        return [p.primal for p in pairs], [p.tangent for p in pairs]


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
    """Let instance normalisation treat its mean and deviation as constants.

    Otherwise every token would depend a little on every voxel of the window, which pulls centroids
    towards the window's middle.
    """

    def normalise(layer: Any, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        x = inputs[0]
        fixed = forward_ad.unpack_dual(x).primal
        mean = fixed.mean(dim=(2, 3, 4), keepdim=True)
        deviation = (fixed.var(dim=(2, 3, 4), keepdim=True, correction=0) + layer.eps).sqrt()
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
