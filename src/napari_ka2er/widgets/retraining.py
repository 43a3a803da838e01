"""A round of `ka2er retrain` in a process of its own, which goes on when the window closes.

The window only reads what the process writes: how far it is, what it said, and what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing

# Below the workspace's `runs`.
FOLDER = "window"
_LOG, _PROGRESS, _RESULT, _JOB = "log.txt", "progress.json", "result.json", "job.json"
_TAIL_BYTES = 4096
PROMOTED = "promoted"
_ELSEWHERE = "stop it where it was started"


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """How far a workspace's round is.

    Parameters
    ----------
    is_running, is_broken : bool
        Whether a process is at work; whether a round was broken off and can go on.
    share, what : float, str
        How much is done, and what is being done.
    lines : tuple of str
        The last lines of the log.
    result : dict or None
        What the last finished round came to: ``status``, ``reason``, ``version``, ``report``.
    error : str
        Why the last round that was started here ended without a result and unasked, or nothing.
    """

    is_running: bool = False
    is_broken: bool = False
    share: float = 0.0
    what: str = ""
    lines: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    error: str = ""


class Retraining:
    """Starts, watches and stops rounds in one workspace.

    Parameters
    ----------
    workspace : Path
        Its folder.

    Raises
    ------
    UserError
        If it is no workspace.
    """

    def __init__(self, workspace: Path) -> None:
        if not (workspace / "ka2er.toml").is_file():
            raise UserError("a workspace, a folder with ka2er.toml", f"{workspace}")
        self.workspace = workspace
        self._folder = workspace / "runs" / FOLDER
        self._process: subprocess.Popen[bytes] | None = None
        self._n_stops = 0

    def start(self, packages: Sequence[Path], *, resume: bool = False, device: str = "") -> None:
        """Begin a round with packages, or go on with the one that was broken off.

        Raises
        ------
        UserError
            If there are no packages, a round is at work, or the training package is missing.
        """
        if find_spec("ka2er_training") is None or find_spec("nnunetv2") is None:
            remedy = 'pip install ".[train]" in the clone'
            raise UserError("the training extra", "none", remedy)
        if not packages and not resume:
            raise UserError("at least one package", "none", "export one, or add its folder")
        if self.is_running:
            raise UserError("one round at a time", "another one at work", "wait, or stop it")
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (_PROGRESS, _RESULT):
            (self._folder / name).unlink(missing_ok=True)
        self._n_stops = 0
        command = self._command(packages, resume, device)
        self._process = self._launch(command)
        with replacing(self._folder / _JOB) as partial:
            job = {"pid": self._process.pid, "command": command}
            partial.write_text(json.dumps(job), "utf-8")

    def stop(self) -> None:
        """Ask the round to stop where it can go on later; a second time, end it at once.

        Raises
        ------
        UserError
            If it was not begun in a window on this computer, or cannot be reached.
        """
        if not self.is_running:
            return
        pid = self._pid()
        if pid is None:
            raise UserError("a round that a window here began", "another one", _ELSEWHERE)
        try:
            os.kill(pid, signal.SIGTERM if self._n_stops else _INTERRUPT)
        except OSError as error:
            got = f"process {pid}: {error.strerror}"
            raise UserError("a round that can be stopped", got, _ELSEWHERE) from error
        self._n_stops += 1

    @property
    def is_running(self) -> bool:
        """Whether a round is at work in the workspace, also one that another program began."""
        if self._process is not None and self._process.poll() is None:
            return True
        lock = self.workspace / "runs" / "retrain.lock"
        if not lock.is_file():
            return False
        try:
            with FileLock(lock, timeout=0):
                return False
        except Timeout:
            return True

    def has_taken(self, digest: str) -> bool:
        """Return whether a package, by its manifest's SHA-256, went into a round already."""
        return (self.workspace / "packages" / digest[:16]).is_dir()

    def status(self) -> RoundStatus:
        """Return how far the round is; takes a millisecond."""
        is_running, lines = self.is_running, self._lines()
        if self._process is not None and self._process.poll() is not None:
            (self._folder / _JOB).unlink(missing_ok=True)  # its number may become another's
        progress = _read(self._folder / _PROGRESS) or {}
        result = None if is_running else _read(self._folder / _RESULT)
        # Another window, or a terminal, may have asked it to stop; then it says so by its status.
        unasked = self._process is not None and self._process.returncode != _INTERRUPTED
        is_wrong = not is_running and result is None and unasked and not self._n_stops
        return RoundStatus(
            is_running=is_running,
            is_broken=not is_running and self._is_broken(),
            share=float(progress.get("share", 0.0)) if is_running else float(result is not None),
            what=str(progress.get("what", "starting")) if is_running else "",
            lines=lines,
            result=result,
            error=_reason(lines) if is_wrong else "",
        )

    def student(self, version: str) -> Path:
        """Return the folder of a version of the student."""
        return self.workspace / "students" / version

    # ------------------------------------------------------------ pieces

    def _command(self, packages: Sequence[Path], resume: bool, device: str) -> list[str]:
        given = ["--resume"] if resume else [str(package) for package in packages]
        command = [sys.executable, "-m", "ka2er_training", "retrain", str(self.workspace), *given]
        command += ["--json", "--progress", str(self._folder / _PROGRESS)]
        return [*command, "--device", device] if device else command

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process that belongs to no window, with its output in files."""
        with (self._folder / _LOG).open("wb") as log, (self._folder / _RESULT).open("wb") as out:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, **_APART
            )

    def _pid(self) -> int | None:
        """Return the process of a round that a window began and that is still at work."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        job = _read(self._folder / _JOB) or {}
        pid, command = job.get("pid"), job.get("command")
        if not isinstance(pid, int) or not isinstance(command, list):
            return None
        return pid if _arguments(pid) == command[1:] else None

    def _lines(self) -> tuple[str, ...]:
        """Return the end of the log."""
        path = self._folder / _LOG
        if not path.is_file():
            return ()
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        return tuple(line for line in text.splitlines() if line.strip())

    def _is_broken(self) -> bool:
        """Return whether the newest round has not ended."""
        states = sorted((self.workspace / "runs").glob("round-*/state.json"))
        state = _read(states[-1]) if states else None
        return state is not None and state.get("status") == "running"


# A round must neither end with the window nor hear the Ctrl-C that is meant for napari.
_APART: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if os.name == "nt"
    else {"start_new_session": True}
)
_INTERRUPTED = 130  # exit status of a command that was asked to stop
_INTERRUPT: int = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT)


def _arguments(pid: int) -> list[str] | None:
    """Return what a process was started with, but for the program; None if there is none."""
    try:
        return [str(word) for word in psutil.Process(pid).cmdline()[1:]]
    except (psutil.Error, ValueError):  # a number that no process can have
        return None


def _reason(lines: Sequence[str]) -> str:
    """Return what a log's last lines say: an error in our words, or a traceback's last line."""
    is_traceback = any(line.startswith("Traceback") for line in lines)
    return " ".join(lines[-1:] if is_traceback else lines[-3:]) or "it ended without a word"


def _read(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None if there is none, or not yet."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
