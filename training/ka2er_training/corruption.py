"""Masks with the errors that users meet, for training the answer to a click."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def corrupt(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Return masks with random errors.

    One of these is drawn for each mask: its surface moves in and out smoothly, it is warped, or a
    piece is cut off or added.  Very thin objects may vanish: that, too, happens.

    Parameters
    ----------
    masks : Tensor of bool, shape (B, 1, Z, Y, X)
        Masks; an empty one may stay empty.
    generator : torch.Generator
        On the CPU, so that the same seed means the same errors on every device.

    Returns
    -------
    Tensor of bool, shape (B, 1, Z, Y, X)
        On the masks' device.
    """
    kinds = (_move_surface, _warp, _cut_or_add)
    chosen = torch.randint(len(kinds), (len(masks),), generator=generator).tolist()
    return torch.stack(
        [kinds[kind](mask, generator) for kind, mask in zip(chosen, masks, strict=True)]
    )


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def smooth_field(shape: tuple[int, ...], generator: torch.Generator, n_channels: int = 1) -> Tensor:
    """Return random values of deviation about 1 that vary over 6 to 24 voxels, (C, Z, Y, X)."""
    cell = uniform(6, 24, generator)
    knots = [max(int(n / cell), 1) + 2 for n in shape]
    values = torch.randn(1, n_channels, *knots, generator=generator)
    return F.interpolate(values, size=shape, mode="trilinear", align_corners=True)[0] * 1.5


def _move_surface(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Add a smooth field to a blurred mask: grows here, shrinks there, holes and islands."""
    blurred = mask[None].float()
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        blurred = F.avg_pool3d(blurred, 3, 1, 1, count_include_pad=False)
    field = smooth_field(tuple(mask.shape[1:]), generator).to(mask.device)
    strength = uniform(0.1, 0.45, generator)
    bias = uniform(-0.25, 0.25, generator)
    return blurred[0] + strength * field + bias > 0.5


def _warp(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Displace by a smooth field, 1 to 3 voxels of deviation."""
    shape = tuple(mask.shape[1:])
    voxels = uniform(1.0, 3.0, generator) * smooth_field(shape, generator, 3)
    shift = (voxels / torch.tensor(shape)[:, None, None, None] * 2).flip(0).movedim(0, -1)
    identity = F.affine_grid(torch.eye(3, 4)[None], [1, 1, *shape], align_corners=False)
    grid = (identity + shift[None]).to(mask.device)
    return F.grid_sample(mask[None].float(), grid, align_corners=False)[0] > 0.5


def _cut_or_add(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Remove or add one to three blobs that reach over the surface."""
    result = mask.clone()
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        surface = torch.nonzero(_surface(result)[0])
        if len(surface) == 0:
            return result
        chosen = int(torch.randint(len(surface), (), generator=generator))
        centre = surface[chosen].cpu() + torch.randn(3, generator=generator)
        blob = _blob(tuple(mask.shape[1:]), centre, generator).to(mask.device)
        is_added = uniform(0, 1, generator) < 0.5
        result = (result | blob) if is_added else (result & ~blob)
    return result


def _surface(mask: Tensor) -> Tensor:
    """Voxels next to the mask's border, on either side."""
    solid = mask[None].float()
    grown = F.max_pool3d(solid, 3, 1, 1)
    shrunk = -F.max_pool3d(-solid, 3, 1, 1)
    return (grown - shrunk)[0] > 0


def _blob(shape: tuple[int, ...], centre: Tensor, generator: torch.Generator) -> Tensor:
    """Return an ellipsoid of random radii of 1.5 to 7 voxels, shape (1, Z, Y, X)."""
    size = uniform(1.5, 5.0, generator)
    radii = [size * uniform(0.6, 1.5, generator) for _ in range(3)]
    z, y, x = (
        ((torch.arange(n) - c) / r) ** 2 for n, c, r in zip(shape, centre, radii, strict=True)
    )
    inside: Tensor = z[:, None, None] + y[:, None] + x < 1
    return inside[None]
