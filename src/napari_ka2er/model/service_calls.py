"""A process that has loaded a student, and one call after the other to it."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_log_path

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.model.answers import ModelError
from napari_ka2er.model.service_process import ServiceProcess
from napari_ka2er.model.service_wire import Call, Cancel, Done, Facts, Failed, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from napari_ka2er.core.task import Task

    Progress = Callable[[float, str], None]
    Cancelled = Callable[[], bool]

WORKER = "napari_ka2er.model.service_worker"
_POLL_S = 0.05


class StudentProcess:
    """A process that loads a student, beginning now, and then does what it is asked to.

    See `PredictorService` for the parameters and the errors.
    """

    def __init__(
        self,
        student: Path,
        mode: str = "sparse",
        device: str = "auto",
        cache_dir: Path | None = None,
        *,
        log: Path | None = None,
    ) -> None:
        settings = {
            "student": str(Path(student).absolute()),
            "mode": mode,
            "device": device,
            "cache_dir": None if cache_dir is None else str(Path(cache_dir).absolute()),
            "parent": os.getpid(),
        }
        path = log or user_log_path("napari-ka2er") / "model.log"
        self._process = ServiceProcess(WORKER, settings, path)
        self._lock = threading.Lock()
        self._number = 0
        self._is_pending = False  # a call was left before it was answered
        self._facts: Facts | None = None
        self._failure: Exception | None = None  # why the student could not be loaded
        self.mode = mode
        self.busy_s = 0.0  # what the process spent on the last call; the rest of it was the way

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self._process.log

    @property
    def is_alive(self) -> bool:
        """Whether it makes sense to call: False after a crash, a refused student, or `close`."""
        return self._failure is None and self._process.is_alive

    @property
    def version(self) -> str:
        """The student's version; like the next three, there after `wait_ready`."""
        return self._known.version

    @property
    def digest(self) -> str:
        """The digest of the student's weights and configuration."""
        return self._known.digest

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The student's tasks."""
        return self._known.tasks

    @property
    def expert_names(self) -> tuple[str, ...]:
        """Whom the channels of an expert map belong to: the experts, and "null"."""
        return self._known.experts

    @property
    def _known(self) -> Facts:
        """What there is to know of the student.

        Raises
        ------
        UserError
            If it is not loaded yet.
        """
        if self._facts is None:
            raise UserError("a student that is loaded", "one that is not yet", "wait until it is")
        return self._facts

    def wait_ready(
        self, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> None:
        """Wait until the student is loaded.

        Raises
        ------
        UserError
            If it cannot be, or the mode or device is not one.
        CancelledError
            If `cancelled` said so; the student is loaded nevertheless.
        """
        with self._turn(progress, cancelled):
            pass

    def close(self) -> None:
        """End the process within a second, also in the middle of a call; that one is cancelled.

        Nothing half-written is left.  May be called from any thread, and again.
        """
        self._process.close()

    @contextmanager
    def _turn(
        self, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Iterator[None]:
        """Wait until the student is loaded and the process has nothing to do; keep it for a block.

        Raises
        ------
        UserError
            If the student cannot be loaded, or the process is gone (`ServiceDiedError`).
        CancelledError
            If `cancelled` said so; the student is loaded nevertheless.
        """
        while not self._lock.acquire(timeout=_POLL_S):
            _stop_if(cancelled)
        try:
            self._load(progress, cancelled)
            if self._is_pending:
                self._process.send(Cancel(self._number))
                with suppress(CancelledError, ModelError, UserError):
                    self._answer(None, None)
            yield
        finally:
            self._lock.release()

    def _load(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        if self._failure is not None:
            raise self._failure
        while self._facts is None:
            _stop_if(cancelled)
            match self._process.receive(_POLL_S):
                case Report(share, what) if progress is not None:
                    progress(share, what)
                case Done(value):
                    self._facts = value
                case Failed(error):
                    self._failure = error
                    raise error

    def _ask(
        self,
        name: str,
        arguments: Mapping[str, Any],
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Any:
        """Let the process do something and return what it returns; for who has the turn.

        Raises
        ------
        UserError, CancelledError, ModelError
            As the process did; `ServiceDiedError` if it is gone.
        """
        self._number += 1
        self._is_pending = True
        self._process.send(Call(self._number, name, dict(arguments)))
        return self._answer(progress, cancelled)

    def _answer(self, progress: Progress | None, cancelled: Cancelled | None) -> Any:
        """Wait for the answer to the call under way."""
        is_cancelled = False
        while True:
            message = self._process.receive(_POLL_S)
            if not is_cancelled and cancelled is not None and cancelled():
                is_cancelled = True
                self._process.send(Cancel(self._number))
            match message:
                case Report(share, what) if progress is not None and not is_cancelled:
                    progress(share, what)
                case Done(value, seconds):
                    self._is_pending = False
                    self.busy_s = seconds
                    if is_cancelled:
                        raise CancelledError("stopped when it was done")
                    return value
                case Failed(error):
                    self._is_pending = False
                    raise error


def _stop_if(cancelled: Cancelled | None) -> None:
    if cancelled is not None and cancelled():
        raise CancelledError("stopped while waiting for the model")
