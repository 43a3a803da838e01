"""Tasks and their labels: what there is to segment."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from napari_ka2er.core.errors import UserError

# Okabe & Ito 2008, "Color Universal Design": told apart with all common kinds of colour blindness.
_OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# The same darker, then lighter: colour blindness leaves lightness.  Factors of 0.45 and 0.5 keep
# the closest two of all 21 furthest apart (7 CIELAB units with any of the three kinds).
_DARKER = ("#684800", "#275169", "#004734", "#6C671E", "#003350", "#602A00", "#5C364B")
_LIGHTER = ("#F2CF80", "#ABDAF4", "#80CEB9", "#F8F2A0", "#80B8D8", "#EAAE80", "#E6BCD3")
COLORS = (*_OKABE_ITO, *_DARKER, *_LIGHTER)


@dataclass(frozen=True, slots=True)
class Label:
    """One structure of a task.

    Parameters
    ----------
    value : int
        Its value in label maps, at least 1.
    name : str
        Its name, unique in the task.
    color : str
        ``#RRGGBB``; ``#RGB`` is written out.  By default the next of `COLORS`, which colour-blind
        people tell apart.

    Raises
    ------
    UserError
        If the value is below 1, the name empty or the colour of another form.
    """

    value: int
    name: str
    color: str = ""

    def __post_init__(self) -> None:
        if self.value < 1 or not self.name:
            raise UserError(
                "a label with a value of at least 1 and a name", f"{self.value} {self.name!r}"
            )
        if not self.color:
            object.__setattr__(self, "color", COLORS[(self.value - 1) % len(COLORS)])
        object.__setattr__(self, "color", _written_out(self.color))


def _written_out(color: str) -> str:
    """Return a colour as ``#RRGGBB``, as the formats of label maps take it apart."""
    if re.fullmatch("#[0-9a-fA-F]{3}", color):
        return "#" + "".join(2 * digit for digit in color[1:])
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise UserError("a label's colour as #RRGGBB", repr(color))
    return color


@dataclass(frozen=True, slots=True)
class Task:
    """A set of labels that are segmented together on one kind of image.

    Parameters
    ----------
    name : str
        Unique name, used in folders and on the command line: letters, digits, ``_`` and ``-``.
    labels : tuple of Label
        The structures, at least one, with different values and names.
    modality : str
        The channel name as nnU-Net knows it (``"CT"``, ``"MR"`` …); decides the normalisation.
    description : str, optional
        One line for people.
    """

    name: str
    labels: tuple[Label, ...]
    modality: str = "MR"
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "_-" for c in self.name):
            raise UserError("a task name of letters, digits, _ and -", repr(self.name))
        values = [label.value for label in self.labels]
        names = [label.name for label in self.labels]
        if not values or len(set(values)) < len(values) or len(set(names)) < len(names):
            raise UserError(
                f"different label values and names in task {self.name}", f"{values} and {names}"
            )

    @property
    def values(self) -> tuple[int, ...]:
        """The labels' values."""
        return tuple(label.value for label in self.labels)

    def label(self, key: int | str) -> Label:
        """Return the label with this value or name.

        Raises
        ------
        UserError
            If there is none.
        """
        for label in self.labels:
            if key in (label.value, label.name):
                return label
        known = ", ".join(f"{label.value} {label.name}" for label in self.labels)
        raise UserError(f"a label of task {self.name} ({known})", repr(key))

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """Build a task from what `to_json` returned; unknown keys are refused."""
        try:
            labels = tuple(Label(**label) for label in data["labels"])
            return cls(**{**data, "labels": labels})
        except (TypeError, KeyError) as error:
            raise UserError(
                "a task with name, labels, modality, description", f"{error}"
            ) from error
