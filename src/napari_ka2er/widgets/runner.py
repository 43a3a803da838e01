"""Run work off the window's thread, one job at a time, and deliver only the newest result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import CancelledError

# A job is told how to report progress and how to ask whether it was cancelled.
Job = Callable[[Callable[[float, str], None], Callable[[], bool]], object]


class LatestRunner(QObject):
    """Runs the newest job; the results of older ones are dropped.

    A user who clicks faster than the model answers wants the answer to the last click.  One worker
    thread is enough, as the model holds the device anyway.

    Signals
    -------
    finished(object), failed(Exception), cancelled()
        Emitted in the thread that owns this object, for the newest job only.
    progressed(float, str)
        Share done and what is being done, of the newest job.
    """

    finished = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    progressed = Signal(float, str)
    _ended = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ka2er")
        self._newest = 0
        self._future: Future[Any] | None = None
        self._stop = threading.Event()
        self._ended.connect(self._deliver)

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        return self._future is not None and not self._future.done()

    def submit(self, job: Job) -> None:
        """Run `job` soon; it replaces the one before, which is asked to stop."""
        self._newest += 1  # first, so that nothing of the one before is delivered any more
        self.cancel()
        number, stop = self._newest, threading.Event()
        self._stop = stop

        def report(share: float, what: str) -> None:
            if number == self._newest:
                self.progressed.emit(share, what)

        self._future = self._pool.submit(job, report, stop.is_set)
        self._future.add_done_callback(lambda future: self._ended.emit(number, future))

    def cancel(self) -> None:
        """Ask the job that waits or runs to stop."""
        self._stop.set()
        if self._future is not None:
            self._future.cancel()

    def close(self) -> None:
        """Stop what runs and wait for it; its result is dropped."""
        self._newest += 1
        self.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _deliver(self, number: int, future: Future[Any]) -> None:
        if number != self._newest:
            return
        if future.cancelled():
            self.cancelled.emit()
            return
        error = future.exception()
        if error is None:
            self.finished.emit(future.result())
        elif isinstance(error, CancelledError):
            self.cancelled.emit()
        else:
            self.failed.emit(error)
