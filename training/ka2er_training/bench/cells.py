"""A long benchmark as small pieces of work, each kept under a digest of its settings.

A cell is one piece: training an expert, a student, or measuring one system on one task.  Its digest
covers its settings and the digests of the cells it needs, so that a changed setting makes new cells
and leaves the others finished.  A cell is finished when its ``result.json`` exists, which is
written last; until then its folder may hold checkpoints from which the work resumes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from napari_ka2er.core.errors import CancelledError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    Progress = Callable[[float, str], None]
    # Does a cell's work in the cell's folder and returns its result, plain data.
    Runner = Callable[["Cell", "Store"], dict[str, Any]]

logger = logging.getLogger(__name__)

_RESULT = "result.json"

# What others read of a finished cell beside its result, by kind.  Results are kept, and carried to
# another machine, without it; then a cell that needs it has to run the one that makes it again.
_WEIGHTS = {"expert": "expert", "untrained": "expert", "student": "student", "prompts": "student"}


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One piece of work.

    Parameters
    ----------
    kind : str
        Which runner does it.
    name : str
        For people, like ``student/attention seed 0``; not part of the digest.
    settings : mapping
        Plain data that decides the result.
    needs : tuple of Cell
        Cells whose results or files it reads.
    digest : str
        SHA-256 of kind, settings and the digests of `needs`; computed.
    """

    kind: str
    name: str
    settings: Mapping[str, Any]
    needs: tuple[Cell, ...] = ()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        identity = [self.kind, self.settings, [cell.digest for cell in self.needs]]
        text = json.dumps(identity, sort_keys=True, allow_nan=False)
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    def needed(self, kind: str) -> list[Cell]:
        """Return the needed cells of one kind, in order."""
        return [cell for cell in self.needs if cell.kind == kind]


@dataclass(frozen=True, slots=True)
class Store:
    """Where cells are kept.

    Parameters
    ----------
    folder : Path
        ``<kind>/<digest>/`` per cell; deleting one makes it run again.
    """

    folder: Path

    def folder_of(self, cell: Cell) -> Path:
        """Return a cell's folder, made if missing."""
        folder = self.folder / cell.kind / cell.digest[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def is_finished(self, cell: Cell) -> bool:
        """Return whether a cell's result is there."""
        return (self.folder / cell.kind / cell.digest[:16] / _RESULT).is_file()

    def is_usable(self, cell: Cell) -> bool:
        """Return whether a cell is finished and what others need of it is there."""
        folder = self.folder / cell.kind / cell.digest[:16]
        return self.is_finished(cell) and (folder / _WEIGHTS.get(cell.kind, "")).is_dir()

    def record(self, cell: Cell) -> dict[str, Any]:
        """Return all that was kept of a finished cell: settings, time, machine and ``result``.

        Raises
        ------
        UserError
            If it is not finished, or its file is damaged.
        """
        path = self.folder / cell.kind / cell.digest[:16] / _RESULT
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            remedy = "delete the cell's folder and run it again"
            raise UserError(f"the result of {cell.name}", f"{error}", remedy) from error
        return record

    def result(self, cell: Cell) -> dict[str, Any]:
        """Return a finished cell's result."""
        result: dict[str, Any] = self.record(cell)["result"]
        return result

    def keep(self, cell: Cell, result: Mapping[str, Any], seconds: float, cpu_s: float) -> None:
        """Write a cell's result; from then on it is finished."""
        record = {
            "kind": cell.kind,
            "name": cell.name,
            "digest": cell.digest,
            "settings": cell.settings,
            "needs": {need.name: need.digest for need in cell.needs},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "cpu_s": round(cpu_s, 2),
            "machine": machine(),
            "result": result,
        }
        path = self.folder_of(cell) / _RESULT
        half_done = path.with_suffix(".part")
        half_done.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(half_done, path)


def machine() -> dict[str, Any]:
    """Return what tells how fast this machine is, without naming it."""
    return {"cpus": os.cpu_count(), "arch": platform.machine(), "python": platform.python_version()}


def in_order(targets: Iterable[Cell]) -> list[Cell]:
    """Return the cells and all they need, each once, needed ones first, else as given."""
    return _with_needs(targets, lambda cell: False, lambda cell: False)


def missing(targets: Iterable[Cell], store: Store) -> list[Cell]:
    """Return the cells that still have to run, in the order in which they would.

    A target must be finished; what an unfinished one needs must also have left its weights.
    """
    return _with_needs(targets, store.is_finished, store.is_usable)


def _with_needs(
    targets: Iterable[Cell], is_done: Callable[[Cell], bool], is_there: Callable[[Cell], bool]
) -> list[Cell]:
    """Return the targets that are not done, behind what they need and is not there."""
    ordered: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        if cell.digest not in ordered:
            for need in cell.needs:
                if not is_there(need):
                    add(need)
            ordered[cell.digest] = cell

    for target in targets:
        if not is_done(target):
            add(target)
    return list(ordered.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the benchmark did: cells done now, cells that failed and why, cells missing."""

    done: tuple[Cell, ...]
    failed: Mapping[str, str]
    missing: tuple[Cell, ...]


def run_cells(
    targets: Iterable[Cell],
    store: Store,
    runners: Mapping[str, Runner],
    *,
    max_minutes: float | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Outcome:
    """Run what is missing; a cell that fails stops only those that need it.

    Several processes may work on one store: a cell on which another one is at work is left to it,
    and so are those that need it.

    Parameters
    ----------
    targets : iterable of Cell
        Most wanted first; what they need is run before them.
    store : Store
        Where results are kept.
    runners : mapping of str to callable
        Per kind of cell, what does its work.
    max_minutes : float, optional
        No cell is begun after this time; the running one is finished.
    cancelled : callable, optional
        Asked before every cell; `CancelledError` is raised if it says so.
    """
    ordered = missing(targets, store)
    begun, done, failed = time.monotonic(), list[Cell](), dict[str, str]()
    for cell in ordered:
        # A need that is not there has failed, or is another process's work.
        if not all(map(store.is_usable, cell.needs)):
            continue
        if cancelled is not None and cancelled():
            raise CancelledError
        if max_minutes is not None and time.monotonic() - begun > max_minutes * 60:
            break
        try:
            with FileLock(store.folder_of(cell) / "at_work.lock", blocking=False):
                if store.is_usable(cell):  # meanwhile, by another process
                    continue
                reason = _run(cell, store, runners)
        except Timeout:
            logger.info("%s (%s): another process is at work on it", cell.name, cell.digest[:12])
            continue
        if reason is None:
            done.append(cell)
        else:
            failed[cell.digest] = f"{cell.name}: {reason}"
    return Outcome(tuple(done), failed, tuple(missing(ordered, store)))


def _run(cell: Cell, store: Store, runners: Mapping[str, Runner]) -> str | None:
    """Run one cell; return why it failed, or None."""
    logger.info("%s (%s)", cell.name, cell.digest[:12])
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        result = runners[cell.kind](cell, store)
    except CancelledError:
        raise
    except (UserError, ValueError, RuntimeError, OSError) as error:
        # Hours of other cells need not wait for a person to look at this one.
        logger.exception("%s failed", cell.name)
        return f"{type(error).__name__}: {error}"
    store.keep(cell, result, time.perf_counter() - wall, cpu_seconds() - cpu)
    return None


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its finished children, all threads."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
