"""Sessions that were neither finished nor exported, to be offered again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
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
    from napari_ka2er.core.errors import UserError
    from napari_ka2er.core.session_exports import Export
    from napari_ka2er.widgets.layers import Source

FINISHED = "finished.json"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of earlier work on a volume.

    Parameters
    ----------
    sessions : list of SessionSummary
        Those with work that nobody has finished or exported, newest first.
    exported : SessionSummary or None
        The one that was exported last, whether or not there is more in it now.
    unreadable : dict
        Folder of a session that cannot be read, of this volume or another -> why.
    """

    sessions: list[SessionSummary] = field(default_factory=list)
    exported: SessionSummary | None = None
    unreadable: dict[Path, UserError] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return what to tell of the exported and of the unreadable, a line each."""
        told = []
        if self.exported is not None:
            told.append(_when_exported(self.exported.exports[-1]))
        if self.unreadable:
            folder, error = next(iter(self.unreadable.items()))
            others = len(self.unreadable) - 1
            more = f" ({others} more: see the tool tip)" if others else ""
            why = _reason(folder, error) + more
            told.append(f"Session {folder.name} cannot be read, so it is not offered: {why}.")
        return told


def of_source(parent: Path, source: Source, go_on: Callable[[], object] | None = None) -> Earlier:
    """Return what is known of earlier work on the volume in a layer.

    Its voxels are read only if a session lies where it lies.  A volume that is too large to be
    read unasked is taken to be the one of such a session: whoever continues it is told if not.
    Sessions that are open somewhere are left out.

    Parameters
    ----------
    parent : Path
        Where sessions are kept.
    source : Source
        The volume.
    go_on : callable, optional
        Called between reading the volume and its digest; what it raises ends this.
    """
    lattice = Geometry(source.data.shape, source.affine)
    unreadable: dict[Path, UserError] = {}
    if not session_folders(parent, lattice, unreadable=unreadable.__setitem__):
        return Earlier(unreadable=unreadable)
    digest = ""
    if prod(lattice.shape) <= MOST_VOXELS:
        volume = source.read()
        if go_on is not None:
            go_on()
        digest = volume.digest()
    found = find_sessions(parent, lattice, digest, unreadable.__setitem__)
    closed = [summary for summary in found if not summary.is_open]
    exported = [summary for summary in closed if summary.exports]
    last = max(exported, key=lambda summary: summary.exports[-1].time_s, default=None)
    return Earlier([summary for summary in closed if _has_news(summary)], last, unreadable)


def mark_finished(folder: Path, n_actions: int) -> None:
    """Note that a session's work up to now was finished or exported."""
    with replacing(folder / FINISHED) as temporary:
        temporary.write_text(json.dumps({"n_actions": n_actions}) + "\n", "utf-8")


def _when_exported(export: Export) -> str:
    when = datetime.fromtimestamp(export.time_s)
    return f"Exported before: {export.package.name}, {when:%d %b %H:%M}."


def _reason(folder: Path, error: UserError) -> str:
    """Return why a session cannot be read in a few words, without the long path of its folder."""
    got = error.got.replace(f"{folder}{os.sep}", "").replace(f"{folder}: ", "")
    return f"{got}; {error.remedy}" if error.remedy else got


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
