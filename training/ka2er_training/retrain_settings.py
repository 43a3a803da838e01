"""What ``[retrain]`` in ``ka2er.toml`` says: how corrections are mixed in, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ka2er_training.presets import check_number
from napari_ka2er.core.errors import UserError


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """How a round trains.

    Parameters
    ----------
    held_share : float
        Share of a round's new patients whose corrections are kept from training, for the gate.
    oversampling : float
        Share of the windows of a corrected task that come from the round's corrected cases.
    expert_share, expert_rate : float
        Length and learning rate of an expert's retraining, as shares of its preset's.
    student_share, student_rate : float
        The same for the student: trunk, polish and clicks.
    replay : bool
        Whether old cases and other tasks take part; without them a model forgets (an arm of
        ``ka2er bench loop``).
    """

    held_share: float = 0.25
    oversampling: float = 0.5
    expert_share: float = 0.15
    expert_rate: float = 0.3
    student_share: float = 0.2
    student_rate: float = 0.3
    replay: bool = True

    def __post_init__(self) -> None:
        if type(self.replay) is not bool:
            raise UserError("replay = true or false in [retrain]", repr(self.replay))
        for item in fields(self):
            if item.name == "replay":
                continue
            high = 0.9 if item.name == "held_share" else 1.0
            check_number(getattr(self, item.name), 0.0, high, f"{item.name} of [retrain]")
