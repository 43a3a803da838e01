"""A Python module in a process of its own, which ends when we end, however that happens."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.model.service_wire import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

_GRACE_S = 0.5
# On Windows: no console window, and below the priority of the window that people work in.
_FLAGS = ("CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS")


class ServiceDiedError(UserError):
    """The model's process is gone: it crashed, or the system killed it."""


class ServiceProcess:
    """Runs ``python -m module SETTINGS`` and exchanges messages with it.

    Parameters
    ----------
    module : str
        It talks through `own_channel` and ends when that does.
    settings : mapping
        Plain data for the module, as JSON.
    log : Path
        Where everything it prints goes; what was there is kept as ``*.previous.log``.

    Raises
    ------
    UserError
        If the log cannot be written.
    """

    def __init__(self, module: str, settings: Mapping[str, Any], log: Path) -> None:
        self.log = log
        self._is_closed = False
        with _fresh(log) as output:
            self._process = subprocess.Popen(
                # -P: nothing in the folder that we happen to be in is imported
                [sys.executable, "-P", "-u", "-m", module, json.dumps(dict(settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,  # Ctrl-C in a terminal is not for it
                creationflags=sum(getattr(subprocess, name, 0) for name in _FLAGS),
            )
        incoming = cast("BinaryIO", self._process.stdout)
        self._outgoing = cast("BinaryIO", self._process.stdin)
        self._channel = Channel(incoming, self._outgoing)
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reader = threading.Thread(
            target=_forward, args=(self._channel, incoming, self._messages), daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs and was not closed."""
        return not self._is_closed and self._process.poll() is None

    def send(self, message: object) -> None:
        """Send a message.

        Raises
        ------
        ServiceDiedError, CancelledError
            As `receive`.
        """
        try:
            self._channel.send(message)
        except (OSError, ValueError) as error:
            raise self._end() from error

    def receive(self, timeout: float) -> Any:
        """Return the next message; None if none comes within `timeout` seconds.

        Raises
        ------
        ServiceDiedError
            If the process has ended.
        CancelledError
            If it was closed.
        """
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            if self._process.poll() is None:
                return None
            self._reader.join(_GRACE_S)  # what it forked may hold the pipe: its own end counts
            message = None if self._messages.empty() else self._messages.get()
        if message is None:
            self._messages.put(None)  # for the next who asks
            raise self._end()
        return message

    def _end(self) -> Exception:
        """Return why nothing can be sent or received any more."""
        if self._is_closed:
            return CancelledError("the model's process was closed")
        status = self._wait()
        if status is None:  # it hangs while it ends
            self._process.kill()
            status = self._wait()
        got = f"its end: {_reason(status)}; see {self.log}"
        return ServiceDiedError("an answer from the model's process", got, "press Start again")

    def close(self) -> None:
        """End the process, whatever it is doing: nothing half-written is left by that."""
        self._is_closed = True
        self._process.kill()
        self._wait()

    def _wait(self) -> int | None:
        """Return how the process ended; None if it does not within half a second."""
        with contextlib.suppress(OSError, ValueError):
            self._outgoing.close()  # it ends when it sees this
        try:
            return self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return None


def own_channel() -> Channel:
    """In the module: return the way to whoever started it; all that is printed goes to the log."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return Channel(incoming, outgoing)


def _forward(channel: Channel, incoming: BinaryIO, messages: queue.SimpleQueue[Any]) -> None:
    """Put messages into a queue, and None after the last."""
    with incoming:
        while (message := channel.receive()) is not None:
            messages.put(message)
    messages.put(None)


def _fresh(log: Path) -> BinaryIO:
    """Open a new log; one that is in use, which Windows does not rename, goes on."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.replace(log, log.with_suffix(f".previous{log.suffix}"))
        return log.open("ab")
    except OSError as error:
        raise UserError(f"a log at {log}", f"{error}", "make its folder writable") from error


def _reason(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    name = next((known.name for known in signal.Signals if known == -status), f"signal {-status}")
    what = "was killed, perhaps for lack of memory" if name == "SIGKILL" else "crashed"
    return f"it {what} ({name})"
