from __future__ import annotations

import threading
import time

import pytest

from napari_ka2er.core.errors import CancelledError
from napari_ka2er.widgets.runner import LatestRunner, Worker


@pytest.fixture
def runner(qapp):
    runner = LatestRunner()
    yield runner
    runner.close()


@pytest.fixture
def worker(qapp):
    worker = Worker("test")
    yield worker
    worker.close()


def test_only_the_newest_result_is_delivered_in_the_gui_thread(runner, qtbot):
    results, threads, stopped, gate = [], [], [], threading.Event()
    runner.cancelled.connect(lambda: stopped.append(1))
    runner.finished.connect(results.append)
    runner.finished.connect(lambda _: threads.append(threading.current_thread()))

    runner.submit(lambda report, is_cancelled: gate.wait(5) and 1)  # starts at once, is overtaken
    runner.submit(lambda report, is_cancelled: 2)  # never starts
    with qtbot.waitSignal(runner.finished, timeout=5000):
        runner.submit(lambda report, is_cancelled: 3)
        gate.set()
    qtbot.wait(50)

    assert results == [3]
    assert not stopped, "overtaken jobs end silently"
    assert threads == [threading.main_thread()]


def test_a_result_that_was_ready_before_a_newer_job_is_dropped_all_the_same(qapp, qtbot):
    """The stale answer waits in the event loop while the user clicks again."""
    discarded, results, done = [], [], threading.Event()
    runner = LatestRunner(discard=discarded.append)
    runner.finished.connect(results.append)
    runner.submit(lambda report, is_cancelled: done.set() or "stale")
    assert done.wait(5)
    time.sleep(0.05)  # the future has ended; no event was processed yet
    runner.submit(lambda report, is_cancelled: "new")
    qtbot.waitUntil(lambda: bool(results), timeout=5000)
    qtbot.wait(20)
    assert results == ["new"]
    assert discarded == ["stale"]
    runner.close()


def test_an_error_is_delivered_and_the_next_job_runs(runner, qtbot):
    with qtbot.waitSignal(runner.failed, timeout=5000) as failed:
        runner.submit(lambda report, is_cancelled: 1 / 0)
    assert isinstance(failed.args[0], ZeroDivisionError)
    with qtbot.waitSignal(runner.finished, timeout=5000) as finished:
        runner.submit(lambda report, is_cancelled: 4)
    assert finished.args == [4]


def test_a_job_that_is_cancelled_learns_it_and_says_so(runner, qtbot):
    running = threading.Event()

    def job(report, is_cancelled):
        report(0.5, "half")
        running.set()
        while not is_cancelled():
            time.sleep(0.001)
        raise CancelledError

    with qtbot.waitSignal(runner.progressed, timeout=5000) as progressed:
        runner.submit(job)
    assert progressed.args == [0.5, "half"]
    running.wait(5)
    with qtbot.waitSignal(runner.cancelled, timeout=5000):
        runner.cancel()
    assert not runner.is_busy


def test_closing_does_not_wait_and_what_ends_later_is_discarded(qapp, qtbot):
    discarded, results, gate = [], [], threading.Event()
    runner = LatestRunner(discard=discarded.append)
    for signal in (runner.finished, runner.failed, runner.progressed):
        signal.connect(lambda *args: results.append(args))
    running = threading.Event()
    runner.submit(lambda report, is_cancelled: running.set() or (gate.wait(5) and "late"))
    assert running.wait(5)
    start = time.perf_counter()
    runner.close()
    assert time.perf_counter() - start < 0.5
    gate.set()
    qtbot.waitUntil(lambda: discarded == ["late"], timeout=5000)
    runner.submit(lambda report, is_cancelled: "after the end")
    qtbot.wait(50)
    assert results == []


def test_a_result_that_waits_in_the_event_loop_is_not_delivered_after_closing(qapp, qtbot):
    runner, results, done = LatestRunner(), [], threading.Event()
    runner.finished.connect(results.append)
    runner.submit(lambda report, is_cancelled: done.set() or 5)
    assert done.wait(5)
    time.sleep(0.05)
    runner.close()
    qtbot.wait(20)
    assert results == []


def test_a_worker_does_everything_in_order_and_tells_in_the_gui_thread(worker, qtbot):
    done, told, threads = [], [], []

    def act(n):
        time.sleep(0.01 if n == 0 else 0)
        done.append(n)
        threads.append(threading.current_thread())
        return n * n

    for n in range(5):
        worker.do(lambda n=n: act(n), lambda square: told.append((square, threading.get_ident())))
    assert worker.is_busy
    qtbot.waitUntil(lambda: not worker.is_busy, timeout=5000)
    assert done == [0, 1, 2, 3, 4]
    assert told == [(n * n, threading.main_thread().ident) for n in range(5)]
    assert threading.main_thread() not in threads


def test_a_worker_tells_an_error_and_goes_on(worker, qtbot):
    errors, told = [], []
    worker.failed.connect(errors.append)
    worker.do(lambda: 1 / 0, told.append)
    worker.do(lambda: 7, told.append)
    qtbot.waitUntil(lambda: not worker.is_busy, timeout=5000)
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert told == [7]


def test_other_threads_may_ask_a_worker_and_get_its_errors(worker):
    assert worker.ask(lambda: threading.current_thread().name).startswith("ka2er-test")
    with pytest.raises(ZeroDivisionError):
        worker.ask(lambda: 1 / 0)
    worker.close()
    with pytest.raises(CancelledError):
        worker.ask(lambda: 1)


def test_a_closed_worker_has_done_what_waited_then_the_last_and_tells_nothing(qapp, qtbot):
    worker, done, told = Worker("test"), [], []
    for n in range(3):
        worker.do(lambda n=n: time.sleep(0.01) or done.append(n), told.append)
    worker.close(last=lambda: done.append("last"))
    assert done == [0, 1, 2, "last"]
    worker.do(lambda: done.append("too late"))
    qtbot.wait(30)
    assert done == [0, 1, 2, "last"]
    assert told == []


def test_an_abandoned_worker_is_not_waited_for_and_tells_nothing(qapp, qtbot):
    worker, done, told = Worker("test"), [], []
    running, gate = threading.Event(), threading.Event()
    worker.do(lambda: running.set() or gate.wait(20), told.append)
    worker.do(lambda: done.append("waited"), told.append)
    assert running.wait(5)
    start = time.perf_counter()
    worker.abandon()
    assert time.perf_counter() - start < 0.5
    worker.deleteLater()  # as when its window goes
    qtbot.wait(20)
    del worker
    gate.set()
    qtbot.wait(100)
    assert done == []
    assert told == []
