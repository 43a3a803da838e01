"""What a predictor's service and its process say to each other, and the pipe it goes through.

Messages are pickled: both ends are ours, and the pipe is theirs alone.
"""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from napari_ka2er.core.task import Task

LOADING = 0  # the number of the call that nobody makes: to load the student


@dataclass(frozen=True, slots=True)
class Call:
    """Do something; `arguments` are plain data, large arrays as `Place`."""

    number: int
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the call with this number; it still ends with `Done` or `Failed`."""

    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """Share done of the call under way, and what is being done."""

    share: float
    what: str


@dataclass(frozen=True, slots=True)
class Done:
    """What a call returned, and the seconds it took."""

    value: Any
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a call ended early: a UserError, CancelledError or ModelError."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of a student that was loaded; see `PredictorService`."""

    version: str
    digest: str
    tasks: tuple[Task, ...]
    experts: tuple[str, ...]


class Channel:
    """One end of the pipe.  Any thread may send, one receives.

    Parameters
    ----------
    incoming, outgoing : binary file
        Buffered.
    """

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message; raises `OSError` or `ValueError` if nobody can receive it any more."""
        data = pickle.dumps(message)
        with self._sending:
            self._outgoing.write(data)
            self._outgoing.flush()

    def receive(self) -> Any:
        """Wait for the next message; None if the other end is gone."""
        try:
            return pickle.load(self._incoming)  # noqa: S301  from our own process
        except (EOFError, pickle.UnpicklingError):  # the latter where it ended within a message
            return None
