"""What simulated users want of one window: its labels, and structures that have no name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ka2er_training.structures import some_structure

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ka2er_training.cases import Sample


@dataclass(frozen=True, slots=True, eq=False)
class ClickSample:
    """A window and what is to be clicked in it.

    Parameters
    ----------
    window : Sample
        Image and features.
    target : Tensor, shape (B, 1, Z, Y, X)
        The objects, between 0 and 1.
    valid : Tensor of bool, shape (B, 1, Z, Y, X)
        Where each is known.
    labels : tuple of int or None
        Which of the task's labels each is; None for a structure without a name.
    """

    window: Sample
    target: Tensor
    valid: Tensor
    labels: tuple[int | None, ...]


def draw_objects(
    window: Sample, n_objects: int, foreign: float, generator: np.random.Generator
) -> ClickSample:
    """Draw what to ask about a window.

    Parameters
    ----------
    window : Sample
        With at least one label.
    n_objects : int
        How many objects, at least 1; the first is one of the labels.
    foreign : float
        Probability of each of the others to be a structure found in the image.  Where none is
        found, it is a label.
    generator : numpy Generator
        What is drawn from.
    """
    targets, valids = [], []
    labels: list[int | None] = []
    for i in range(n_objects):
        is_foreign = i > 0 and generator.random() < foreign
        mask = some_structure(window.image[0, 0].numpy(), generator) if is_foreign else None
        if mask is None:
            label = _some_label(window.target, generator)
            labels.append(label)
            targets.append(window.target[0, label : label + 1])
            valids.append(window.valid[0] > 0)
        else:
            labels.append(None)
            targets.append(torch.from_numpy(mask)[None].float())
            valids.append(torch.ones_like(targets[-1], dtype=torch.bool))
    return ClickSample(window, torch.stack(targets), torch.stack(valids), tuple(labels))


def _some_label(target: Tensor, generator: np.random.Generator) -> int:
    """Return a label that is in the window, if any is."""
    present = (target[0] > 0.5).flatten(1).any(dim=1).nonzero().flatten()
    if not len(present):
        return int(generator.integers(target.shape[1]))
    return int(present[int(generator.integers(len(present)))])
