"""Users that click, scribble, lasso and box, simulated in batches on any device.

None is like the other, as training needs; reproducible users for measuring are in
`ka2er_training.simulated_users`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ka2er_training.corruption import uniform

if TYPE_CHECKING:
    from napari_ka2er.model.prompt_maps import PromptCanvas

_MAX_DEPTH = 5
_STROKE_STEPS = 12
_LASSO_RADIUS = 8


@dataclass(frozen=True, slots=True)
class Habits:
    """How often users do what, as probabilities; the rest are clicks.

    Parameters
    ----------
    stroke : float
        A scribble through the error instead of a click.
    lasso : float
        A lasso around the error in one plane.
    careless : float
        Anywhere in an error rather than deep inside a large one.
    box : float
        A box around the object before the first click, where there is no mask yet.
    """

    stroke: float = 0.12
    lasso: float = 0.05
    careless: float = 0.3
    box: float = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """What simulated users look at, bool tensors (B, 1, Z, Y, X).

    Parameters
    ----------
    shown : Tensor
        What is segmented.
    wanted : Tensor
        What should be.
    valid : Tensor
        Where that is known.
    """

    shown: Tensor
    wanted: Tensor
    valid: Tensor


def draw_prompts(
    canvas: PromptCanvas, masks: Masks, habits: Habits, generator: torch.Generator
) -> None:
    """Draw one more prompt for each item.

    Mostly deep inside large errors; where nothing is wrong a click confirms what is there already;
    where nothing is valid nothing is drawn.

    Parameters
    ----------
    canvas : PromptCanvas
        Drawn upon.
    masks : Masks
        One per item of the canvas.
    habits : Habits
        What users do.
    generator : torch.Generator
        On the CPU, so that the same seed means the same prompts on every device.
    """
    is_wrong = (masks.shown != masks.wanted) & masks.valid
    is_right = ~is_wrong.flatten(1).any(1)[:, None, None, None, None]
    missed, surplus = _clickable(masks, is_right)
    scores = _attraction(missed | surplus, is_right, habits, generator)
    for item, score in enumerate(scores[:, 0]):
        z, y, x = (int(i) for i in torch.unravel_index(score.argmax(), score.shape))
        voxel = torch.tensor([[z, y, x]])
        positive = bool(missed[item, 0, z, y, x])
        error = (missed if positive else surplus)[item, 0]
        kind = uniform(0, 1, generator)
        if score[z, y, x] <= 0:
            voxel = voxel[:0]
        elif kind < habits.stroke:
            voxel = _stroke(error, voxel, generator)
        elif kind < habits.stroke + habits.lasso:
            voxel = _lasso(error, voxel[0], generator)
        canvas.draw(item, voxel, positive)


def draw_box(canvas: PromptCanvas, item: int, wanted: Tensor, generator: torch.Generator) -> None:
    """Draw a loose box around an object (Z, Y, X); nothing if there is none."""
    voxels = torch.nonzero(wanted).cpu()
    if len(voxels) == 0:
        return
    ends = torch.stack([voxels.amin(0), voxels.amax(0)])
    slack = torch.randint(-1, 4, (2, 3), generator=generator) * torch.tensor([[-1], [1]])
    ends = (ends + slack).clamp_min(0).minimum(torch.tensor(wanted.shape) - 1)
    canvas.draw_box(item, ends)


def _clickable(masks: Masks, is_right: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a positive and where a negative click makes sense."""
    missed = masks.wanted & ~masks.shown & masks.valid
    surplus = masks.shown & ~masks.wanted & masks.valid
    near = _smooth(masks.wanted.float()) > 0
    confirmed = is_right & masks.wanted & masks.valid
    denied = is_right & near & ~masks.wanted & masks.valid
    return missed | confirmed, surplus | denied


def _attraction(
    error: Tensor, is_right: Tensor, habits: Habits, generator: torch.Generator
) -> Tensor:
    """Return how much each voxel invites a click; 0 where there is no reason to."""
    # Of two errors equally deep the one with more of it around is the larger.
    size = _smooth(error.float())
    is_careless = torch.rand(len(error), generator=generator) < habits.careless
    unsteadiness = torch.where(is_careless, 3.0, 0.3)[:, None, None, None, None]
    chance = torch.rand(error.shape, generator=generator).to(error.device)
    depth = _depth(error) + 2 * size + chance * unsteadiness.to(error.device)
    return torch.where(is_right, chance, depth) * error


def _smooth(values: Tensor) -> Tensor:
    """Mean over 9 x 9 x 9 voxels, axis by axis because that is fifty times cheaper."""
    for axis in range(3):
        size = [9 if a == axis else 1 for a in range(3)]
        values = F.avg_pool3d(values, size, 1, [n // 2 for n in size])
    return values


def _depth(mask: Tensor) -> Tensor:
    """How often a mask can be shrunk before a voxel goes, at most `_MAX_DEPTH`."""
    solid = mask.float()
    depth = solid
    for _ in range(_MAX_DEPTH - 1):
        solid = -F.max_pool3d(-solid, 3, 1, 1)
        depth = depth + solid
    return depth


def _stroke(error: Tensor, voxel: Tensor, generator: torch.Generator) -> Tensor:
    """Voxels (N, 3) on a straight line through `voxel` that stay in the error."""
    direction = F.normalize(torch.randn(3, generator=generator), dim=0)
    steps = torch.arange(1, _STROKE_STEPS + 1)[:, None]
    pieces = [voxel]
    for sign in (1, -1):
        path = (voxel + sign * steps * direction).round().long()
        path = path[((path >= 0) & (path < torch.tensor(error.shape))).all(1)]
        stays = error[tuple(path.T)].cpu().long().cumprod(0).bool()
        pieces.append(path[stays])
    voxels: Tensor = torch.unique(torch.cat(pieces), dim=0)
    return voxels


def _lasso(error: Tensor, voxel: Tensor, generator: torch.Generator) -> Tensor:
    """Voxels (N, 3) of the error near `voxel` in one plane of the lattice."""
    axis = int(torch.randint(3, (), generator=generator))
    low = (voxel - _LASSO_RADIUS).clamp_min(0)
    high = (voxel + _LASSO_RADIUS + 1).minimum(torch.tensor(error.shape))
    low[axis], high[axis] = voxel[axis], voxel[axis] + 1
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return torch.nonzero(error[window]).cpu() + low
