"""What happened to the students of a workspace: ``students/history.jsonl``, only ever appended to.

Which student is in use is what ``students/current`` says, one word that is replaced at once.  A
promotion is noted before that file changes and counts only if it did: after a crash in between,
the next event finds another student current than the last one said, and notes that too.  So the
file tells all that was meant and all that was, and folders of versions never change.
"""

from __future__ import annotations

import getpass
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Kind = Literal["added", "promoted", "rolled back", "found"]
State = Literal["current", "candidate", "refused", "was current"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a version.

    Parameters
    ----------
    event : str
        ``"added"``, ``"promoted"``, ``"rolled back"`` (to it), or ``"found"`` to be current though
        no event said so.
    version : str
        Which.
    time, user : str
        ISO 8601 in UTC, and who did it, as far as the system knows.
    reason : str
        Why.
    previous : str or None
        The version that was current before.
    gate : bool or None
        Whether the gate let it pass; None if it was not asked.
    force : bool
        Whether it was promoted although the gate had refused it.
    """

    event: Kind
    version: str
    time: str
    user: str = ""
    reason: str = ""
    previous: str | None = None
    gate: bool | None = None
    force: bool = False


@dataclass(slots=True)
class Past:
    """What follows from the events.

    Parameters
    ----------
    stack : list of str
        Versions that were current, each on top of the one that was current before it.
    once : list of str
        All that ever were, in the order of events.
    gates : dict of str to bool or None
        Whether the gate let a version pass.
    """

    stack: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)
    gates: dict[str, bool | None] = field(default_factory=dict)


def new_event(kind: Kind, version: str, **more: Any) -> Event:
    """Return an event that happens now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Event(kind, version, now, _user(), **more)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return ""


def read_events(path: Path) -> list[Event]:
    """Return the events, oldest first; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(Event(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return events


def append(path: Path, event: Event) -> None:
    """Append an event in one write and wait until it is on the disk."""
    data = {slot: getattr(event, slot) for slot in Event.__slots__}
    line = json.dumps(data, ensure_ascii=False) + "\n"
    with path.open("ab+") as file:
        if file.tell() and _last_byte(file) != b"\n":
            line = "\n" + line  # what a crash cut short must not swallow this one
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    last: bytes = file.read(1)
    return last


def past_of(events: Iterable[Event]) -> Past:
    """Return what follows from events."""
    past = Past()
    stack = past.stack
    for event in events:
        if event.event == "added":
            past.gates[event.version] = event.gate
            continue
        if event.event == "rolled back":
            _pop_to(stack, event.version)
        elif event.event == "found" and stack[-2:-1] == [event.version]:
            stack.pop()  # the promotion before it was cut short
            past.once.pop()
        elif stack[-1:] != [event.version]:
            stack.append(event.version)
        past.once.append(event.version)
    return past


def _pop_to(stack: list[str], version: str) -> None:
    while stack and stack[-1] != version:
        stack.pop()
    if not stack:
        stack.append(version)
