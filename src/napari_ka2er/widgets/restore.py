"""Sessions that were neither finished nor exported, to be offered again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ka2er.core.actions import StudentChange
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.records import read_records
from napari_ka2er.core.sessions import SessionSummary, find_sessions

if TYPE_CHECKING:
    from napari_ka2er.widgets.layers import Source

FINISHED = "finished.json"


def unfinished(parent: Path, digest: str) -> list[SessionSummary]:
    """Return the sessions of a volume with work that nobody has finished or exported, newest first.

    Those that are open somewhere are left out.  Reads all logs: this takes a moment.
    """
    return [
        summary
        for summary in find_sessions(parent)
        if summary.volume_digest == digest and not summary.is_open and _has_news(summary)
    ]


def of_source(parent: Path, source: Source) -> list[SessionSummary]:
    """Return the unfinished sessions of the volume in a layer; reads its voxels."""
    if not parent.is_dir() or not any(parent.iterdir()):
        return []
    return unfinished(parent, source.read().digest())


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
