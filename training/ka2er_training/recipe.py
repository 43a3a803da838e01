"""What an amalgamation starts from and how it is done."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ka2er_training.teaching import Teaching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ka2er_training.cases import Source
    from ka2er_training.plan import StudentPreset
    from napari_ka2er.core.task import Task
    from napari_ka2er.model.experts import Expert


@dataclass(frozen=True, slots=True)
class Ingredients:
    """All that an amalgamation starts from.

    Parameters
    ----------
    tasks : dict of str to tuple
        Per task its `Task` and grid spacing (Z, Y, X) in mm.
    sources : sequence of Source
        Training volumes, labelled or not.
    experts : sequence of Expert
        In the order of the expert map.
    """

    tasks: Mapping[str, tuple[Task, tuple[float, float, float]]]
    sources: Sequence[Source]
    experts: Sequence[Expert]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to amalgamate.

    Parameters
    ----------
    sizes : StudentPreset
        Sizes and schedules.
    teaching : Teaching
        Losses and augmentation.
    amalgamation : str
        See `StudentConfig`.
    foundation : Path or None
        ``model_swinvit.pt``, or None for random weights.
    parent : Path or None
        Folder of a student to begin with, see `ka2er_training.transfer`; instead of a foundation.
    saves_memory : bool
        Whether the foundation's features are computed again in the backward pass, not kept: less
        memory for more time, same numbers.
    """

    sizes: StudentPreset
    teaching: Teaching
    amalgamation: str = "attention"
    foundation: Path | None = None
    parent: Path | None = None
    saves_memory: bool = False

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        return self.sizes.schedule.seed

    @property
    def steps(self) -> dict[str, int]:
        """The steps of each part, for cards and records."""
        parts = {"trunk": "schedule", "polish": "polish", "clicks": "clicks"}
        return {name: getattr(self.sizes, part).steps for name, part in parts.items()}


def recipe_for(sizes: StudentPreset, seed: int = 0, **teaching: Any) -> Recipe:
    """Return the recipe of a preset; `teaching` overrides fields of `Teaching`."""
    sizes = dataclasses.replace(
        sizes,
        schedule=dataclasses.replace(sizes.schedule, seed=seed),
        polish=dataclasses.replace(sizes.polish, seed=seed),
        clicks=dataclasses.replace(sizes.clicks, seed=seed),
    )
    return Recipe(sizes, Teaching(steps=sizes.schedule.steps, **teaching))
