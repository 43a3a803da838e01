"""Committed actions as lines of text, each naming the bytes of its box, each with a checksum."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.actions import Action, Edit, action_from_json, action_to_json
from napari_ka2er.core.edits import Delta, Stored, unreadable
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACTIONS, BOXES = "actions.jsonl", "boxes.bin"


@dataclass(frozen=True, slots=True)
class Record:
    """One committed action and when it happened, in seconds since 1970 (UTC)."""

    time_s: float
    action: Action


def read_records(folder: Path) -> Iterator[Record]:
    """Yield the committed actions of a folder up to the first damage, oldest first; only reads.

    Raises
    ------
    UserError
        If a file cannot be read now, or holds actions of a later version: neither is damage.
    """
    return (record for record, _ in records_and_ends(folder))


def records_and_ends(folder: Path) -> Iterator[tuple[Record, int]]:
    """Yield each intact record and where its line ends, in bytes; see `read_records`."""
    end = 0
    for number, line in enumerate(_lines(folder)):
        record = _parse(line, number, folder)
        if record is None:
            return
        end += len(line)
        yield record, end


def _lines(folder: Path) -> Iterator[bytes]:
    path = folder / ACTIONS
    try:
        if not path.exists() and not (folder / BOXES).exists():
            return  # begun, but killed before anything could be done
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise unreadable(path, error) from error


def to_line(number: int, record: Record) -> bytes:
    """Return the line of the action with this number, counted from 0; its box must be stored."""
    data = {"n": number, "time_s": record.time_s, **action_to_json(record.action)}
    if isinstance(record.action, Edit):
        data["box"] = _delta_to_json(record.action.delta)
    text = json.dumps(data, separators=(",", ":"))
    return f"{text}\t{zlib.crc32(text.encode()):08x}\n".encode()


def _parse(line: bytes, number: int, folder: Path) -> Record | None:
    """Return the record of a line, or None if the line or its box is damaged.

    Only a wrong checksum, length or number is damage: what follows it is cut off.
    """
    text, _, checksum = line.rstrip(b"\n").partition(b"\t")
    if not line.endswith(b"\n") or checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    try:
        data = json.loads(text)
        n, time_s, box = data.pop("n"), data.pop("time_s"), data.pop("box", None)
        delta = _delta_from_json(box, folder) if box else None
        record = Record(float(time_s), action_from_json(data, delta))
    except (ValueError, KeyError, TypeError) as error:  # UserError is a ValueError
        got = f"another one in line {number + 1} of {folder / ACTIONS}"
        raise UserError("an action that this version knows", got, "update napari-ka2er") from error
    is_intact = delta is None or delta.packed.is_intact()
    return record if n == number and is_intact else None


def _delta_to_json(delta: Delta) -> dict[str, Any]:
    stored = delta.packed
    if not isinstance(stored, Stored):
        raise TypeError("only a stored box can be named in a line")
    return {
        "region": [[part.start, part.stop] for part in delta.region],
        "dtype": delta.dtype,
        "labels": delta.labels,
        "n_voxels": delta.n_voxels,
        "bytes": [stored.offset, stored.length, stored.checksum],
    }


def _delta_from_json(data: dict[str, Any], folder: Path) -> Delta:
    z, y, x = (slice(int(start), int(stop)) for start, stop in data["region"])
    offset, length, checksum = (int(value) for value in data["bytes"])
    stored = Stored(folder / BOXES, offset, length, checksum)
    labels = tuple(int(value) for value in data["labels"])
    return Delta((z, y, x), str(data["dtype"]), stored, labels, int(data["n_voxels"]))
