"""How long a training is and what it does at each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    batch : int
        Windows per step, over all processes.
    learning_rate : float
        Peak of AdamW's rate; warmed up linearly, then cosine to a hundredth.
    warm_up : int
        Steps of warm-up.
    weight_decay, clip, ema : float
        AdamW's decay, the gradient norm's limit, and the decay of the averaged weights.
    seed : int
        Decides initial weights, windows, augmentation and modes.
    checkpoint_every : int
        Steps between checkpoints.
    """

    steps: int
    batch: int = 2
    learning_rate: float = 1e-3
    warm_up: int = 20
    weight_decay: float = 1e-4
    clip: float = 5.0
    ema: float = 0.99
    seed: int = 0
    checkpoint_every: int = 25

    def rate(self, step: int) -> float:
        """Return the learning rate's factor at a step."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return 0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * min(done, 1.0))))


@dataclass(frozen=True, slots=True)
class Work:
    """What a training does at each step.

    Parameters
    ----------
    draw : callable
        ``draw(step, generator)`` returns one training sample; called from another thread.
    loss : callable
        ``loss(network, sample, step)`` returns named terms; ``"loss"`` is minimised.
    frozen : tuple of str
        Prefixes of parameters that are not trained.
    trained : tuple of str
        If given, only parameters with one of these in their names are trained.
    rates : dict of str to float
        Factors on the learning rate for parameters with these prefixes.
    late : dict of str to float
        Share of the steps before which parameters with these prefixes stay as they are.
    """

    draw: Callable[[int, np.random.Generator], Any]
    loss: Callable[[nn.Module, Any, int], dict[str, Tensor]]
    frozen: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
