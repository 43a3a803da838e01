import threading

import pytest

from napari_ka2er.core.errors import CancelledError
from napari_ka2er.widgets.runner import LatestRunner


@pytest.fixture
def runner(qapp):
    runner = LatestRunner()
    yield runner
    runner.close()


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

    assert results == [3]
    assert not stopped, "overtaken jobs end silently"
    assert threads == [threading.main_thread()]


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
            pass
        raise CancelledError

    with qtbot.waitSignal(runner.progressed, timeout=5000) as progressed:
        runner.submit(job)
    assert progressed.args == [0.5, "half"]
    running.wait(5)
    with qtbot.waitSignal(runner.cancelled, timeout=5000):
        runner.cancel()
    assert not runner.is_busy


def test_closing_waits_for_the_job_and_drops_its_result(qapp, qtbot):
    runner, results = LatestRunner(), []
    runner.finished.connect(results.append)
    runner.submit(lambda report, is_cancelled: 5)
    runner.close()
    qtbot.wait(20)
    assert results == []
