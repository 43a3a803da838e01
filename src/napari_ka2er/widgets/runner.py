"""Run work off the window's thread: the newest job only, or one act after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]

from napari_ka2er.core.errors import CancelledError

# A job is told how to report progress and how to ask whether it was cancelled.
Report = Callable[[float, str], None]
IsCancelled = Callable[[], bool]
Job = Callable[[Report, IsCancelled], object]
T = TypeVar("T")


class LatestRunner(QObject):
    """Runs the newest job; the results of older ones are dropped.

    A user who clicks faster than the model answers wants the answer to the last click.  One worker
    thread is enough, as the model holds the device anyway.

    Parameters
    ----------
    discard : callable, optional
        Given each result that nobody gets, in whatever thread; it may hold something open.

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
    _reported = Signal(int, float, str)

    def __init__(
        self, parent: QObject | None = None, discard: Callable[[object], None] | None = None
    ) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ka2er-model")
        self._discard = discard or (lambda result: None)
        self._newest = 0
        self._future: Future[Any] | None = None
        self._stop = threading.Event()
        self._is_closed = False
        # Queued: a quick job ends before `submit` returns, and its end must not be told inside it.
        self._ended.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        self._reported.connect(self._report, Qt.ConnectionType.QueuedConnection)

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or runs."""
        return self._future is not None and not self._future.done()

    def submit(self, job: Job) -> None:
        """Run `job` soon; it replaces the one before, which is asked to stop."""
        if self._is_closed:
            return
        self._newest += 1  # first, so that nothing of the one before is delivered any more
        self.cancel()
        number, stop = self._newest, threading.Event()
        self._stop = stop

        def report(share: float, what: str) -> None:
            if not stop.is_set():
                self._reported.emit(number, share, what)

        self._future = self._pool.submit(job, report, stop.is_set)
        self._future.add_done_callback(lambda future: self._end(number, future))

    def cancel(self) -> None:
        """Ask the job that waits or runs to stop."""
        self._stop.set()
        if self._future is not None:
            self._future.cancel()

    def close(self) -> None:
        """Ask what runs to stop and deliver nothing any more; does not wait for it."""
        self._newest += 1
        self._is_closed = True
        self.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _end(self, number: int, future: Future[Any]) -> None:
        """Hand a job's end to the owner's thread; called in the worker's."""
        if self._is_closed:  # the Qt object may be gone
            self._throw_away(future)
        else:
            self._ended.emit(number, future)

    def _deliver(self, number: int, future: Future[Any]) -> None:
        if number != self._newest:
            self._throw_away(future)
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

    def _report(self, number: int, share: float, what: str) -> None:
        if number == self._newest:
            self.progressed.emit(share, what)

    def _throw_away(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._discard(future.result())


class Worker(QObject):
    """Runs acts one after the other, in the order in which they were given, and drops none.

    Signals
    -------
    failed(Exception)
        Why an act ended early; emitted in the thread that owns this object.
    emptied()
        Nothing is left to do; likewise.
    """

    failed = Signal(object)
    emptied = Signal()
    _done = Signal(object, object)

    def __init__(self, name: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"ka2er-{name}")
        self._n_waiting = 0
        self._is_closed = False
        self._telling = threading.Lock()  # nothing is emitted once `_is_closed` is set
        self._done.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    @property
    def is_busy(self) -> bool:
        """Whether anything waits, runs, or has not been told of yet."""
        return self._n_waiting > 0

    def do(self, act: Callable[[], T], then: Callable[[T], None] | None = None) -> None:
        """Let the worker do something; `then` gets what it returned, in the owner's thread.

        Call this in the owner's thread.  After `close` nothing is done.
        """
        if self._is_closed:
            return
        self._n_waiting += 1
        future = self._pool.submit(act)
        future.add_done_callback(lambda future: self._end(then, future))

    def ask(self, act: Callable[[], T]) -> T:
        """Return what an act returns; for other workers, which can wait.

        Raises
        ------
        CancelledError
            If the worker was closed.
        """
        try:
            return self._pool.submit(act).result()
        except RuntimeError as error:  # no new act after a shutdown
            raise CancelledError(str(error)) from error

    def close(self, last: Callable[[], object] | None = None) -> None:
        """Take no more acts, do those that wait, then the `last`; wait for all of it."""
        if self._is_closed:
            return
        self._end_telling()
        if last is not None:
            self._pool.submit(last)
        self._pool.shutdown(wait=True)

    def abandon(self) -> None:
        """Take no more acts, drop those that wait, and leave the one that runs behind.

        It is waited for by Python's end only.  Its result is told nobody, so that this object may
        be gone by then.  For acts that write nothing.
        """
        self._end_telling()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _end_telling(self) -> None:
        with self._telling:
            self._is_closed = True

    def _end(self, then: Callable[[Any], None] | None, future: Future[Any]) -> None:
        with self._telling:
            if not self._is_closed:
                self._done.emit(then, future)

    def _deliver(self, then: Callable[[Any], None] | None, future: Future[Any]) -> None:
        self._n_waiting -= 1
        if self._is_closed:
            return
        error = future.exception()
        if error is not None:
            self.failed.emit(error)
        elif then is not None:
            then(future.result())
        if not self.is_busy:
            self.emptied.emit()
