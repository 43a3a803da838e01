"""Sessions that were neither finished nor exported, to be offered again."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ka2er.core.actions import StudentChange
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.records import read_records
from napari_ka2er.core.sessions import SessionSummary, find_sessions, session_folders
from napari_ka2er.core.volume import Geometry
from napari_ka2er.widgets.layers import MOST_VOXELS

if TYPE_CHECKING:
    from napari_ka2er.widgets.layers import Source

FINISHED = "finished.json"


def unfinished(parent: Path, geometry: Geometry, digest: str = "") -> list[SessionSummary]:
    """Return the sessions of a volume with work that nobody has finished or exported, newest first.

    Those that are open somewhere are left out.  Reads their logs: this takes a moment.
    """
    found = find_sessions(parent, geometry, digest)
    return [summary for summary in found if not summary.is_open and _has_news(summary)]


def of_source(parent: Path, source: Source) -> list[SessionSummary]:
    """Return the unfinished sessions of the volume in a layer.

    Its voxels are read only if a session lies where it lies.  A volume that is too large to be
    read unasked is taken to be the one of such a session: whoever continues it is told if not.
    """
    lattice = Geometry(source.data.shape, source.affine)
    if not session_folders(parent, lattice):
        return []
    is_quick = prod(lattice.shape) <= MOST_VOXELS
    return unfinished(parent, lattice, source.read().digest() if is_quick else "")


def mark_finished(folder: Path, n_actions: int) -> None:
    """Note that a session's work up to now was finished or exported."""
    with replacing(folder / FINISHED) as temporary:
        temporary.write_text(json.dumps({"n_actions": n_actions}) + "\n", "utf-8")


def _has_news(summary: SessionSummary) -> bool:
    """Return whether anything but the choice of a student was done since the session was marked."""
    done = _finished_actions(summary.folder)
    records = list(read_records(summary.folder))[done:]
    return any(not isinstance(record.action, StudentChange) for record in records)


def _finished_actions(folder: Path) -> int:
    try:
        return int(json.loads((folder / FINISHED).read_text("utf-8"))["n_actions"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
