"""How a student is taught, and what of it later rounds must keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Usual share of windows that no expert has seen.
ALONE = 0.25


@dataclass(frozen=True, slots=True)
class Teaching:
    """How the student is taught.

    Parameters
    ----------
    steps : int
        Length of the training that the shares below refer to.
    token_noise : float
        Deviation of noise on experts' standardised tokens.
    expert_dropout : float
        Probability that an expert is absent from a window.
    mixed_from : float
        Share of the steps after which hallucinated experts are mixed in.
    alone : float
        From then on, probability that no expert has run, as in distilled mode; of the others,
        about half have some experts hallucinated, as in sparse mode.
    positive_weight : float
        Foreground's weight in the cross-entropy at the start; falls to 1 at the end, as constant
        weights leave the probabilities biased.
    distillation, alignment, routing, collapse : float
        Weights of these losses; routing falls to a fifth of it at the end, collapse is used in the
        first fifth only.
    label_weight : float
        Weight of the labels' own loss; 0 leaves distillation alone (a baseline).
    augmentation : float
        Strength of pose and intensity changes.
    task_strength : tuple of (str, float)
        Factor on it for single tasks.
    """

    steps: int
    token_noise: float = 0.2
    expert_dropout: float = 0.1
    mixed_from: float = 0.5
    alone: float = ALONE
    positive_weight: float = 2.0
    distillation: float = 0.5
    alignment: float = 0.3
    routing: float = 0.3
    collapse: float = 0.1
    label_weight: float = 1.0
    augmentation: float = 0.7
    task_strength: tuple[tuple[str, float], ...] = ()


def lasting(teaching: Teaching) -> dict[str, Any]:
    """Return how a student was taught as far as later rounds must go on with it, as plain data.

    A round with fewer windows without experts would forget distilled mode, and one without a task's
    strength would learn its few volumes by heart.  What is as usual is left out.
    """
    often = {} if teaching.alone == ALONE else {"alone": teaching.alone}
    return {**often, "task_strength": dict(teaching.task_strength)}


def kept_habits(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `lasting` wrote into a student's notes, as fields of `Teaching`.

    Parameters
    ----------
    notes : mapping
        Of the student's card; what they do not say is as usual.
    """
    told = notes.get("teaching", {})
    habits: dict[str, Any] = {}
    if "alone" in told:
        habits["alone"] = float(told["alone"])
    if "task_strength" in told:
        habits["task_strength"] = tuple(
            (str(name), float(factor)) for name, factor in told["task_strength"].items()
        )
    return habits
