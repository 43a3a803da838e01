"""Run a job in a process of its own, which ends when we end, however that happens."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

from napari_ka2er.core.errors import CancelledError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

POLL_S = 0.2


def run_child(
    module: str,
    job: Mapping[str, Any],
    log: Path,
    *,
    environment: Mapping[str, str],
    on_report: Callable[[dict[str, Any]], None],
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Run ``python -m module JOB`` and hand on what it reports, line by line.

    Parameters
    ----------
    module, job : str, mapping
        The module's main function calls `reporting` first; the job is plain data.
    log : Path
        Everything the job prints is added to this file.
    environment : mapping
        Variables for the job alone.
    on_report, cancelled : callable
        Called in this thread: with each report, and several times a second.

    Raises
    ------
    CancelledError
        If `cancelled` said so; nothing of the job runs then.
    UserError
        If the job failed, with the last line of its log.
    """
    with (
        log.open("a", encoding="utf-8") as output,
        _process(module, job, output, environment) as process,
    ):
        for report in _reports(process, cancelled):
            on_report(report)
    if process.returncode:
        lines = ["nothing", *log.read_text(encoding="utf-8", errors="replace").split("\n")]
        last = next(line for line in reversed(lines) if line.strip())
        got = f"exit status {process.returncode}: {last}"
        raise UserError("nnU-Net to finish", got, f"see {log}")


@contextlib.contextmanager
def _process(
    module: str, job: Mapping[str, Any], log: IO[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Start the job in a process group of its own; at the end, nothing of the group is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(dict(job))],
        stdin=subprocess.PIPE,  # never written: its end tells the job that we are gone
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **environment},
        start_new_session=True,
        text=True,
    )
    try:
        yield process
        process.wait()
    finally:
        kill_group(process.pid)
        process.wait()
        if process.stdin:
            process.stdin.close()


def _reports(
    process: subprocess.Popen[str], cancelled: Callable[[], bool] | None
) -> Iterator[dict[str, Any]]:
    """Yield the job's reports until it ends.

    Its own end counts, not that of the pipe: forked workers would keep that open after a kill.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    line: str | None = ""
    while line is not None:
        if cancelled and cancelled():
            raise CancelledError
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            line = "" if process.poll() is None else None
        if line:
            yield json.loads(line)


def _read(lines: IO[str] | None, reports: queue.Queue[str | None]) -> None:
    """Put the job's lines into a queue, and None after the last."""
    if lines:
        with lines:
            for line in lines:
                reports.put(line)
    reports.put(None)


def kill_group(group: int) -> None:
    """End every process of a group at once; checkpoints are renamed into place, so that is safe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(group, signal.SIGKILL)
        else:
            os.kill(group, signal.SIGTERM)


def reporting() -> Callable[[dict[str, Any]], None]:
    """In the job: return where to report to, send all other output to the log, watch the parent."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(message: dict[str, Any]) -> None:
        reports.write(json.dumps(message) + "\n")
        reports.flush()

    return report


def _end_with_parent() -> None:
    """End the group once the pipe from the parent closes, which even ``kill -9`` makes it do."""
    # The descriptor, not sys.stdin: its lock would be held for ever, and forked workers close it.
    while os.read(0, 1024):
        pass
    kill_group(os.getpid())
