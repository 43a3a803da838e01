"""Names and label values as data sets write them, and as we do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import SUFFIXES
from napari_ka2er.core.task import Label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def labels_of(named: Mapping[str, Any]) -> tuple[tuple[Label, ...], int | None]:
    """Return the labels and the ignore value of nnU-Net's ``labels``, name to value."""
    values: dict[str, int] = {}
    for name, value in named.items():
        if isinstance(value, list | tuple):
            raise UserError(
                "labels that do not overlap",
                f"the region {name} = {value}",
                "add it as its own task",
            )
        values[name] = _whole(name, value)
    ignore = values.pop("ignore", None)
    foreground = sorted((value, name) for name, value in values.items() if value != 0)
    if [value for value, _ in foreground] != list(range(1, len(foreground) + 1)) or not foreground:
        raise UserError("label values 1, 2, 3 … without gaps", f"{values}", "renumber them")
    if ignore is not None and ignore != len(foreground) + 1:
        raise UserError(
            f"ignore = {len(foreground) + 1}, the value after the last label", f"{ignore}"
        )
    return tuple(Label(value, name) for value, name in foreground), ignore


def _whole(name: str, value: Any) -> int:
    """Return a label's value as a number; some data sets have it as text."""
    try:
        return int(str(value))
    except ValueError as error:
        wanted = 'a whole number for every label name, as in {"liver": 1}'
        raise UserError(wanted, f"{name!r}: {value!r}", "nnU-Net v2 has the names first") from error


def parse_names(names: Sequence[str]) -> tuple[Label, ...]:
    """Return the labels of ``VALUE=NAME`` texts."""
    table: dict[str, Any] = {}
    for text in names:
        value, _, name = text.partition("=")
        if not value.isdecimal() or not name:
            raise UserError("--label VALUE=NAME", repr(text))
        table[name] = value
    return labels_of(table)[0] if table else ()


def id_of(path: Path) -> str:
    """Return a file's name without its suffix."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def safe_id(name: str) -> str:
    """Return a case id without characters that file names and nnU-Net dislike."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)
