"""Committed actions as lines of text, each naming the bytes of its box, each with a checksum."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.actions import Action, Edit, action_from_json, action_to_json
from napari_ka2er.core.edits import Delta, Stored

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
    """Yield the committed actions of a folder up to the first damage, oldest first; only reads."""
    return (record for record, _ in records_and_ends(folder))


def records_and_ends(folder: Path) -> Iterator[tuple[Record, int]]:
    """Yield each intact record and where its line ends, in bytes."""
    path = folder / ACTIONS
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            record = _parse(line, number, folder)
            if record is None:
                return
            end += len(line)
            yield record, end


def to_line(number: int, record: Record) -> bytes:
    """Return the line of the action with this number, counted from 0; its box must be stored."""
    data = {"n": number, "time_s": record.time_s, **action_to_json(record.action)}
    if isinstance(record.action, Edit):
        data["box"] = _delta_to_json(record.action.delta)
    text = json.dumps(data, separators=(",", ":"))
    return f"{text}\t{zlib.crc32(text.encode()):08x}\n".encode()


def _parse(line: bytes, number: int, folder: Path) -> Record | None:
    """Return the record of a line, or None if the line or its box is damaged."""
    text, _, checksum = line.rstrip(b"\n").partition(b"\t")
    if not line.endswith(b"\n") or checksum != f"{zlib.crc32(text):08x}".encode():
        return None
    try:
        data = json.loads(text)
        if data.pop("n") != number:
            return None
        time_s, box = data.pop("time_s"), data.pop("box", None)
        delta = _delta_from_json(box, folder) if box else None
        return Record(float(time_s), action_from_json(data, delta))
    except (ValueError, KeyError, TypeError):  # UserError is a ValueError
        return None


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
    stored.read()
    labels = tuple(int(value) for value in data["labels"])
    return Delta((z, y, x), str(data["dtype"]), stored, labels, int(data["n_voxels"]))
