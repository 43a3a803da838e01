"""What `ka2er info` prints for people: nested data as lines, a list's items one below the other."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WIDTH = 120  # longer texts, as notices of sources, are wrapped


def text_of(description: Mapping[str, Any]) -> str:
    """Return what `describe` returned as indented lines, with metrics as tables.

    Parameters
    ----------
    description : mapping
        Plain data; a student's card may hold anything that JSON can.
    """
    return "\n".join(_of_mapping(description))


def _of_mapping(items: Mapping[str, Any]) -> Iterator[str]:
    for key, value in items.items():
        if isinstance(value, dict) and value:
            yield str(key)
            yield from _indented(_of_mapping(value))
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            yield str(key)
            yield from _indented(_of_list(value))
        else:
            yield from _wrapped(f"{key}: {_short(value)}")


def _of_list(items: Sequence[Any]) -> Iterator[str]:
    """Yield the lines of a list of which some items are nested themselves."""
    if (table := _table(items)) is not None:
        yield from table.splitlines()
        return
    for item in items:
        lines = _of_mapping(item) if isinstance(item, dict) else _wrapped(_short(item))
        for number, line in enumerate(lines):
            yield ("  " if number else "- ") + line


def _table(rows: Sequence[Any]) -> str | None:
    """Return the table of an evaluation's summaries; None if the rows are something else."""
    from ka2er_training.bench.stats import Interval
    from ka2er_training.evaluate import Summary
    from ka2er_training.evaluation_text import text_table

    def interval(values: Mapping[str, Any]) -> Interval:
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in values.items()}
        return Interval(**known)

    metrics = ("dice", "nsd", "hd95_mm")
    try:
        found = [Summary(**{**row, **{m: interval(row[m]) for m in metrics}}) for row in rows]
        return text_table(found)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _short(value: Any) -> str:
    """Return a value in few words."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, float):
        return str(float(f"{value:.6g}"))
    words = {"None": "none", "True": "yes", "False": "no"}
    return str(value) if isinstance(value, str) else words.get(str(value), str(value))


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return ("  " + line for line in lines)


def _wrapped(line: str) -> list[str]:
    """Return a line, or the lines of a long one."""
    if len(line) <= _WIDTH:
        return [line]
    return textwrap.wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False)
