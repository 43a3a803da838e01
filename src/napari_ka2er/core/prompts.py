"""What the user shows the student, in world coordinates.

World coordinates survive resampling, rolled axes and a new student; voxel indices do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_ka2er.core.errors import UserError

Position = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A click: `position_mm` (z, y, x, RAS+) belongs to the object, or not if not `positive`."""

    position_mm: Position
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Box:
    """The object lies between two opposite corners `low_mm` and `high_mm` (z, y, x, RAS+)."""

    low_mm: Position
    high_mm: Position
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Scribble:
    """A stroke through `path_mm`, (z, y, x) positions in RAS+, all in the object or out of it."""

    path_mm: tuple[Position, ...]
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Lasso:
    """A closed planar polygon through `path_mm`; what it encloses is in the object or not."""

    path_mm: tuple[Position, ...]
    positive: bool = True


Prompt = Point | Box | Scribble | Lasso
_KINDS: dict[str, type[Prompt]] = {"point": Point, "box": Box, "scribble": Scribble, "lasso": Lasso}


def positions_of(prompt: Prompt) -> tuple[Position, ...]:
    """Return the positions (z, y, x) in mm that a prompt is made of."""
    match prompt:
        case Point():
            return (prompt.position_mm,)
        case Box():
            return (prompt.low_mm, prompt.high_mm)
        case Scribble() | Lasso():
            return prompt.path_mm


def prompt_to_json(prompt: Prompt) -> dict[str, Any]:
    """Return plain data that `prompt_from_json` takes back."""
    kind = type(prompt).__name__.lower()
    return {
        "kind": kind,
        "positive": prompt.positive,
        "positions_mm": [list(p) for p in positions_of(prompt)],
    }


def prompt_from_json(data: dict[str, Any]) -> Prompt:
    """Build a prompt from what `prompt_to_json` returned.

    Raises
    ------
    UserError
        If the kind is unknown or the positions do not make one.
    """
    try:
        kind = _KINDS[data["kind"]]
        positions = tuple((float(z), float(y), float(x)) for z, y, x in data["positions_mm"])
        positive = bool(data["positive"])
        if kind is Point:
            (position,) = positions
            return Point(position, positive)
        if kind is Box:
            low, high = positions
            return Box(low, high, positive)
        return kind(positions, positive=positive)  # type: ignore[arg-type, call-arg]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"a prompt of kind {', '.join(_KINDS)}", f"{data}") from error
