"""How experts are planned and trained: named sets of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOSSES = ("dice_ce", "ce")
OPTIMIZERS = ("sgd", "adamw")


def check_choice(value: object, choices: tuple[str, ...], what: str) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        raise UserError(f"a {what}: {', '.join(choices)}", repr(value))


def is_number(value: object) -> bool:
    """Return whether a value from a settings file is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(value: object, low: float, high: float, what: str) -> None:
    """Refuse what is no number between two bounds."""
    if not is_number(value) or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise UserError(f"{what} between {low:g} and {high:g}", repr(value))


@dataclass(frozen=True, slots=True)
class Preset:
    """How an expert is planned and trained.

    Parameters
    ----------
    plans : str
        Name of nnU-Net's plans; decides the planner, see `ka2er_training.planners`.
    epochs, iterations, val_iterations : int
        Length of the training; an epoch is `iterations` batches.
    save_every : int
        Epochs between checkpoints: what a killed training loses at most.
    optimizer : str
        ``"sgd"`` (nnU-Net's) or ``"adamw"``.
    learning_rate : float
        The highest one; it falls polynomially, as in nnU-Net.
    warm_up : int
        Epochs over which it rises first.
    foreground_weight : float
        Weight of every label against background in the cross-entropy at the start, falling to 1;
        1 is nnU-Net's loss.
    mirror : bool
        Whether volumes are mirrored along every axis, in training and (if asked for) prediction.
    """

    plans: str
    epochs: int
    iterations: int
    val_iterations: int
    save_every: int
    optimizer: str = "sgd"
    learning_rate: float = 1e-2
    warm_up: int = 0
    foreground_weight: float = 1.0
    mirror: bool = True

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("iterations", 1),
            ("val_iterations", 1),
            ("save_every", 1),
            ("warm_up", 0),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UserError(f"{name} of at least {least} in a preset", repr(value))
        for name in ("learning_rate", "foreground_weight"):
            check_number(getattr(self, name), 0.0, 1e6, f"{name} in a preset")
        if self.optimizer not in OPTIMIZERS:
            raise UserError(
                f"an optimizer of a preset: {' or '.join(OPTIMIZERS)}", repr(self.optimizer)
            )
        if type(self.mirror) is not bool:
            raise UserError("mirror = true or false in a preset", repr(self.mirror))


# tiny: what two CPU cores train in minutes.  The others are nnU-Net's own plans and schedule; only
# checkpoints are written more often.
PRESETS: Mapping[str, Preset] = {
    "tiny": Preset("ka2erTinyPlans", 40, 20, 2, 1, "adamw", 1e-3, 2, 4.0),
    "standard": Preset("nnUNetPlans", 1000, 250, 50, 5),
    "resenc-m": Preset("nnUNetResEncUNetMPlans", 1000, 250, 50, 5),
    "resenc-l": Preset("nnUNetResEncUNetLPlans", 1000, 250, 50, 5),
}
