"""Sessions on disk: begin, continue, replay and find them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from napari_ka2er.core.actions import StudentChange
from napari_ka2er.core.edits import warm_up
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.log import HEADER, SessionLog, read_header
from napari_ka2er.core.records import read_records
from napari_ka2er.core.session import Session
from napari_ka2er.core.session_exports import Export, is_exported, read_exports
from napari_ka2er.core.task import Task
from napari_ka2er.core.volume import Geometry, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    Unreadable = Callable[[Path, UserError], object]


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What to tell about a session that could be continued.

    Parameters
    ----------
    folder : Path
        Where it is.
    volume_name, volume_digest : str
        What it is about.
    task : str
        Name of its task.
    n_actions : int
        Number of committed actions.
    time_s : float
        When the last of them happened, in seconds since 1970; 0 if there is none.
    is_open : bool
        Whether some process has it open now.
    n_worked : int
        Number of actions, choices of a student left out.
    exports : tuple of Export
        The packages that it went into, oldest first.
    """

    folder: Path
    volume_name: str
    volume_digest: str
    task: str
    n_actions: int
    time_s: float
    is_open: bool
    n_worked: int = 0
    exports: tuple[Export, ...] = ()

    @property
    def is_exported(self) -> bool:
        """Whether a package has all that was done in it."""
        return is_exported(self.exports, self.n_worked)


def create_session(
    folder: Path,
    volume: Volume,
    task: Task,
    *,
    source: Path | None = None,
    digest: str = "",
    clock: Callable[[], float] = time.time,
) -> Session:
    """Begin a session whose every action is committed to a new folder.

    This takes a moment, in which another thread can keep the window alive.

    Parameters
    ----------
    folder : Path
        A new or empty folder.
    volume : Volume
        What is segmented.
    task : Task
        The labels to begin with.
    source : Path, optional
        The file the volume was read from; `ka2er replay` copies its header.
    digest : str, optional
        ``volume.digest()``, if it is known already: computing it takes a moment.
    clock : callable, optional
        Returns the time in seconds since 1970.
    """
    warm_up()
    about = {
        "name": volume.name,
        "digest": digest or volume.digest(),
        "shape": volume.shape,
        "affine": volume.affine.tolist(),
        "source": str(source.resolve()) if source else None,
    }
    log = SessionLog.create(folder, {"volume": about, "task": task.to_json()})
    return Session(volume, task, log, clock)


def restore_session(folder: Path, volume: Volume) -> Session:
    """Continue a session with all its committed actions, on the volume it is about.

    This takes a moment, as `create_session` does.

    Raises
    ------
    UserError
        If it is about another volume, is open elsewhere, or its header is damaged.
    """
    geometry, task, about = _read_about(folder)
    if not geometry.is_close(volume.geometry) or about["digest"] != volume.digest():
        raise UserError(
            f"volume {about['name']}, which session {folder.name} is about",
            f"{volume.name} of shape {volume.shape}",
            "open that volume first",
        )
    warm_up()
    return Session(volume, task, SessionLog(folder))


def replay(folder: Path) -> Session:
    """Return a session as its log tells it, without the volume's voxels and without writing.

    The volume of the returned session has the geometry of the original and zeros for voxels.
    """
    geometry, task, about = _read_about(folder)
    empty = np.broadcast_to(np.zeros((), np.uint8), geometry.shape)
    session = Session(Volume(empty, geometry.affine, name=about["name"]), task)
    for record in read_records(folder):
        session.state.apply(record)
    return session


def source_of(folder: Path) -> Path | None:
    """Return the file that a session's volume was read from, if it was told and still exists."""
    source = _read_about(folder)[2]["source"]
    return Path(source) if source and Path(source).exists() else None


def session_folders(
    parent: Path,
    geometry: Geometry | None = None,
    digest: str = "",
    unreadable: Unreadable | None = None,
) -> list[Path]:
    """Return the folders of `parent` that hold a session, by their headers alone; logs stay unread.

    Parameters
    ----------
    parent : Path
        Where sessions are kept; it may be missing.
    geometry : Geometry, optional
        Only sessions about a volume of this shape in this place.
    digest : str, optional
        Only sessions about the volume with this digest.
    unreadable : callable, optional
        Told each folder whose header cannot be read, and why; whose volume it was is unknown.
    """
    found = []
    for header in sorted(parent.glob(f"*/{HEADER}")) if parent.is_dir() else ():
        try:
            place, _, about = _read_about(header.parent)
        except UserError as error:
            _tell(unreadable, header.parent, error)
            continue
        is_here = geometry is None or place.is_close(geometry)
        if is_here and digest in ("", about["digest"]):
            found.append(header.parent)
    return found


def find_sessions(
    parent: Path,
    geometry: Geometry | None = None,
    digest: str = "",
    unreadable: Unreadable | None = None,
) -> list[SessionSummary]:
    """Return the sessions in the folders of `parent`, newest first.

    Parameters
    ----------
    parent, geometry, digest
        See `session_folders`; the logs of other sessions are not read.
    unreadable : callable, optional
        Told each folder whose session cannot be read, and why; the others are returned.
    """
    found = []
    for folder in session_folders(parent, geometry, digest, unreadable):
        try:
            found.append(summarise_session(folder))
        except UserError as error:
            _tell(unreadable, folder, error)
    return sorted(found, key=lambda summary: -summary.time_s)


def summarise_session(folder: Path) -> SessionSummary:
    """Return what to tell about one session; raises `UserError` if there is none."""
    _, task, about = _read_about(folder)
    n_actions, n_worked, time_s = 0, 0, 0.0
    for record in read_records(folder):
        n_actions, time_s = n_actions + 1, record.time_s
        n_worked += not isinstance(record.action, StudentChange)
    return SessionSummary(
        folder=folder,
        volume_name=about["name"],
        volume_digest=about["digest"],
        task=task.name,
        n_actions=n_actions,
        time_s=time_s,
        is_open=_is_open(folder),
        n_worked=n_worked,
        exports=read_exports(folder),
    )


def _tell(unreadable: Unreadable | None, folder: Path, error: UserError) -> None:
    if unreadable is not None:
        unreadable(folder, error)


def _is_open(folder: Path) -> bool:
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except Timeout:
        return True


def _read_about(folder: Path) -> tuple[Geometry, Task, dict[str, Any]]:
    """Return the geometry, the task and what else the header tells about the volume."""
    header = read_header(folder)
    try:
        about = dict(header["volume"])
        z, y, x = (int(n) for n in about["shape"])
        about = {"name": "volume", "digest": "", "source": None, **about}
        return Geometry((z, y, x), np.array(about["affine"])), Task.from_json(header["task"]), about
    except (KeyError, TypeError, ValueError) as error:
        got = f"{folder / HEADER}: {error}"
        raise UserError("a session's header with volume and task", got) from error
