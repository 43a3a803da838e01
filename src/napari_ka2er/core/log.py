"""The append-only record of a session: JSON lines beside the compressed boxes they name.

An action is committed once its line is on disk.  A line names the bytes of its box by offset,
length and checksum and carries a checksum of its own, so whatever a crash leaves, reading finds the
committed actions up to the first damage and nothing else.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_ka2er.core.actions import Action, Edit
from napari_ka2er.core.edits import Stored
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.records import (
    ACTIONS,
    BOXES,
    Record,
    read_records,
    records_and_ends,
    to_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT, VERSION = "ka2er-session", 1
HEADER = "session.json"


class SessionLog:
    """An open log that actions are added to; one process at a time.

    Parameters
    ----------
    folder : Path
        The session's folder, made by `SessionLog.create`.

    Raises
    ------
    UserError
        If the folder holds no session, another process has it open, or a file cannot be read now;
        the log is then as it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = read_header(folder)
        # Not per thread: a session is begun in one thread and closed in another.
        self._lock = FileLock(folder / "lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                "a session that no other window has open", f"{folder}", "close the other window"
            ) from error
        with ExitStack() as undo:
            undo.callback(self._lock.release)
            self._n_actions, end = _intact(folder)
            self._n_set_aside = _set_aside(folder, end)
            self._lines, self._boxes = _open(folder / ACTIONS), _open(folder / BOXES)
            undo.pop_all()

    @classmethod
    def create(cls, folder: Path, header: dict[str, Any]) -> SessionLog:
        """Start a log in a new folder; `header` says what the session is about.

        Raises
        ------
        UserError
            If the folder exists and is not empty, or cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UserError("an empty or new folder for the session", f"{folder}")
            text = json.dumps({"format": FORMAT, "version": VERSION, **header}, indent=2)
            temporary = folder / f"{HEADER}.part"
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / HEADER)
        except OSError as error:
            raise UserError(
                "a folder that can be written", f"{folder}: {error.strerror}"
            ) from error
        return cls(folder)

    @property
    def n_actions(self) -> int:
        """Number of committed actions."""
        return self._n_actions

    @property
    def n_set_aside(self) -> int:
        """Number of damaged lines, and those after them, that opening it has moved to a file."""
        return self._n_set_aside

    def records(self) -> Iterator[Record]:
        """Yield the committed actions, oldest first."""
        return read_records(self.folder)

    def append(self, record: Record) -> Record:
        """Commit one action; return it as it can be read back, its box no longer in memory.

        Raises
        ------
        UserError
            If the disk does not take it; the log is then as it was before.
        """
        lines_end, boxes_end = self._end(self._lines), self._end(self._boxes)
        try:
            action = self._store(record.action)
            self._write(self._lines, to_line(self._n_actions, Record(record.time_s, action)))
        except OSError as error:
            os.ftruncate(self._lines, lines_end)
            os.ftruncate(self._boxes, boxes_end)
            raise UserError(
                f"room for one more action in {self.folder}", f"{error.strerror}", "free disk space"
            ) from error
        self._n_actions += 1
        return Record(record.time_s, action)

    def close(self) -> None:
        """Close the files and let others open the session."""
        if self._lock.is_locked:
            os.close(self._lines)
            os.close(self._boxes)
            self._lock.release()

    def _store(self, action: Action) -> Action:
        if not isinstance(action, Edit):
            return action
        data = action.delta.packed.read()
        offset = self._end(self._boxes)
        self._write(self._boxes, data)
        stored = Stored(self.folder / BOXES, offset, len(data), zlib.crc32(data))
        return replace(action, delta=replace(action.delta, packed=stored))

    @staticmethod
    def _end(descriptor: int) -> int:
        return os.lseek(descriptor, 0, os.SEEK_END)

    @staticmethod
    def _write(descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)


def read_header(folder: Path) -> dict[str, Any]:
    """Return what a session is about.

    Raises
    ------
    UserError
        If there is no session in the folder, or one of a newer format.
    """
    try:
        header: dict[str, Any] = json.loads((folder / HEADER).read_text("utf-8"))
        known = header["format"] == FORMAT and header["version"] <= VERSION
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"a session's folder with {HEADER}", f"{folder}: {error}") from error
    if not known:
        got = f"{header['format']} version {header['version']}"
        raise UserError(f"{FORMAT} of at most version {VERSION}", got, "update napari-ka2er")
    return header


def _intact(folder: Path) -> tuple[int, int]:
    """Return the number of intact records and where the last one's line ends."""
    ends = [0, *(end for _, end in records_and_ends(folder))]
    return len(ends) - 1, ends[-1]


def _set_aside(folder: Path, end: int) -> int:
    """Cut the log after its intact part and keep the rest in a new file; return its lines."""
    path = folder / ACTIONS
    if not path.exists() or path.stat().st_size == end:
        return 0
    try:
        with path.open("r+b") as file:
            file.seek(end)
            rest = file.read()
            _keep(folder, end, rest)
            file.truncate(end)
    except OSError as error:
        got = f"{folder}: {error.strerror}"
        raise UserError("to set aside a damaged part of the log", got) from error
    return len(rest.rstrip(b"\n").split(b"\n"))


def _keep(folder: Path, end: int, rest: bytes) -> None:
    """Write what is cut off into a file that is not there yet, and wait for the disk."""
    names = chain([f"damaged-{end}"], (f"damaged-{end}-{n}" for n in count(2)))
    path = next(p for name in names if not (p := folder / f"{name}.jsonl").exists())
    with path.open("xb") as file:
        file.write(rest)
        file.flush()
        os.fsync(file.fileno())


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
