"""How much every voxel is like those that were clicked.

A student that has learned three tasks has no names for anything else, but a click into a kidney
still shows what kidney looks like here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_ka2er.model.prompt_maps import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_ka2er.model.prompt_maps import PromptTensors

N_IMAGE_MAPS, N_DENSE_MAPS = 4, 2
# Deviations of a volume's normalised intensities: organ against organ, and bone against the rest.
_SCALES = (0.1, 0.3)
_SHARPNESS = 5.0
_TINY = 1e-12
_SIGNS = POSITIVE, NEGATIVE
_PART = 2**16  # voxels whose gaps to one point stay in a cache of a megabyte


@dataclass(frozen=True, slots=True, eq=False)
class Clicked:
    """What lies where a region was clicked.

    Parameters
    ----------
    half : Tensor, shape (B, 1, Z/2, Y/2, X/2)
        The image at stride 2.
    intensities : Tensor, shape (B, N, 1)
        Of the image at stride 2 at the points: a single voxel would be mostly noise.
    labels : Tensor of int64, shape (B, N)
        Of the points.
    dense : Tensor, shape (B, 2, Z/2, Y/2, X/2)
        Likeness of the dense embedding.
    """

    half: Tensor
    intensities: Tensor
    labels: Tensor
    dense: Tensor

    def image_likeness(self, image: Tensor) -> Tensor:
        """Return how like an image, or a part of it, is to what was clicked; see there."""
        return image_likeness(image, self.intensities, self.labels)


def what_was_clicked(image: Tensor, dense: Tensor, prompts: PromptTensors) -> Clicked:
    """Return what lies at prompts in a region; shapes as in `MaskDecoder.forward`."""
    half = F.avg_pool3d(image, 2)
    labels = prompts.point_labels
    alike = dense_likeness(dense, values_at(dense, prompts.points, 2), labels)
    return Clicked(half, values_at(half, prompts.points, 2), labels, alike)


def values_at(values: Tensor, points: Tensor, stride: int) -> Tensor:
    """Return what lies at points.

    Parameters
    ----------
    values : Tensor, shape (B, C, Z/stride, Y/stride, X/stride)
        Any map of a region.
    points : Tensor, shape (B, N, 3)
        Voxels of the region at full resolution; those beyond its end count as at it.
    stride : int
        Of the map.

    Returns
    -------
    Tensor, shape (B, N, C)
        The map's nearest value.
    """
    size = torch.tensor(values.shape[2:], device=points.device)
    index = torch.div(points, stride, rounding_mode="floor").long()
    z, y, x = index.clamp(min=0).minimum(size - 1).unbind(dim=-1)
    flat = (z * size[1] + y) * size[2] + x
    return values.flatten(2).gather(2, flat[:, None].expand(-1, values.shape[1], -1)).mT


def image_likeness(image: Tensor, seen: Tensor, labels: Tensor) -> Tensor:
    """Return how near each voxel's intensity is to those at positive and at negative points.

    Parameters
    ----------
    image : Tensor, shape (B, 1, Z, Y, X)
        Normalised image, at any resolution.
    seen : Tensor, shape (B, N, 1)
        Its intensities at the points.
    labels : Tensor of int64, shape (B, N)
        As in `PromptTensors.point_labels`; corners of boxes and padding say nothing.

    Returns
    -------
    Tensor, shape (B, 4, Z, Y, X)
        ``exp(-(difference / scale)² / 2)`` to the likest point: for the narrow scale positive and
        negative, then for the wide one; 0 without such points.
    """

    def alike(part: Tensor) -> Tensor:
        smallest = _smallest(lambda some: (part - some).square(), seen, labels)
        return torch.cat([torch.exp(-smallest / (2 * scale**2)) for scale in _SCALES], dim=1)

    return _in_parts(alike, image)


def dense_likeness(dense: Tensor, seen: Tensor, labels: Tensor) -> Tensor:
    """Return how near the direction of each dense embedding is to those at the points.

    Parameters
    ----------
    dense : Tensor, shape (B, F, Z, Y, X)
        Dense embedding.
    seen : Tensor, shape (B, N, F)
        Its values at the points.
    labels : Tensor of int64, shape (B, N)
        As in `image_likeness`.

    Returns
    -------
    Tensor, shape (B, 2, Z, Y, X)
        ``exp(5 (cosine - 1))`` to the likest point, positive and negative.
    """
    directions = F.normalize(seen, dim=-1)

    def alike(part: Tensor) -> Tensor:
        # F.normalize(dense, dim=1) alone would take a seventh of a click's time.  In single
        # precision under autocast, too: squares would leave float16's range, and `_TINY` be 0.
        inverse = part.float().square().sum(1, keepdim=True).clamp_min(_TINY).rsqrt()
        smallest = _smallest(lambda some: -(some @ part), directions, labels)
        known = smallest.isfinite()  # infinity times `inverse` would have no gradient
        gap = 1 + smallest.where(known, 0) * inverse
        return torch.exp(-_SHARPNESS * gap) * known

    return _in_parts(alike, dense)


def _in_parts(alike: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return a function of a map (B, C, Z, Y, X), some voxels (B, C, V) after the others.

    What it makes on the way then stays in the processor's cache, however large the map is.
    """
    flat = values.flatten(2)
    # A graph cannot count the voxels' parts.
    parts = (flat,) if torch.compiler.is_exporting() else flat.split(_PART, dim=2)
    found: Tensor = torch.cat([alike(part) for part in parts], dim=2)
    return found.reshape(*found.shape[:2], *values.shape[2:])


def _smallest(gaps_to: Callable[[Tensor], Tensor], seen: Tensor, labels: Tensor) -> Tensor:
    """Return the smallest gap to a positive and to a negative point, (B, 2, V); or infinity.

    The likest point is looked for before any exponential, of which there would be one per point,
    and one point after the other: a scribble is 32 of them, and all their gaps at once a gigabyte.

    Parameters
    ----------
    gaps_to : callable
        Returns the gaps (B, N, V) to what was seen (B, N, C) at N points.
    seen : Tensor, shape (B, N, C)
        What was seen at the points.
    labels : Tensor of int64, shape (B, N)
        Of the points.
    """
    if torch.compiler.is_exporting():  # a graph takes any number of points
        gaps = gaps_to(seen)
        return torch.stack([_where(labels == s, gaps).amin(dim=1) for s in _SIGNS], dim=1)
    found = [gaps_to(seen[:, :0]).sum(dim=1) + torch.inf] * 2
    for number, own in enumerate(labels.T.tolist()):
        one = slice(number, number + 1)
        gaps = gaps_to(seen[:, one])
        for place, sign in enumerate(_SIGNS):
            if sign in own:
                of_sign = gaps if set(own) == {sign} else _where(labels[:, one] == sign, gaps)
                found[place] = torch.minimum(found[place], of_sign[:, 0])
    return torch.stack(found, dim=1)


def _where(chosen: Tensor, gaps: Tensor) -> Tensor:
    return torch.where(chosen[..., None], gaps, torch.inf)
