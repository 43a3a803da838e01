import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.model.folders import blob

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.prompts import Box, Point, Scribble
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.maps import uncertainty_map
from napari_ka2er.model.predictor import Predictor
from napari_ka2er.model.service import ModelError, PredictorService, ServiceDiedError
from napari_ka2er.model.shared import PREFIX

SHM = Path("/dev/shm")
TASKS = ("one", "two")
VOXEL = (15, 25, 14)


def named(pid: int = 0) -> set[str]:
    """Return the shared memory of a process, by default ours, that still has a name."""
    return {path.name for path in SHM.glob(f"{PREFIX}{pid or os.getpid()}-*")}


def position(voxel, volume=None):
    z, y, x = (volume or blob()).geometry.to_world(voxel)
    return float(z), float(y), float(x)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "model.log"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def running(student_folder, cache):
    service = PredictorService(student_folder, "full", "cpu", cache, log=cache / "model.log")
    yield service
    service.close()
    assert not named()


@pytest.fixture
def service(running):
    running.set_volume(blob())
    return running


@pytest.fixture(scope="module")
def predictor(student_folder, tmp_path_factory):
    """The same here, with a cache of its own."""
    made = Predictor(load_student(student_folder), "full", tmp_path_factory.mktemp("direct"))
    made.set_volume(blob())
    return made


def test_it_knows_what_was_loaded(running, predictor):
    steps = []
    running.wait_ready(lambda share, what: steps.append(what))
    assert steps in ([], ["starting PyTorch", "loading the student"])  # once
    assert running.is_alive
    assert (running.version, running.mode) == ("v0001", "full")
    assert running.digest == predictor.loaded.digest
    assert running.tasks == predictor.tasks
    assert running.expert_names == ("one", "two", "null")


@pytest.mark.parametrize("task", TASKS)
def test_the_automatic_result_is_that_of_the_predictor(service, predictor, task):
    shares = []
    answer = service.segment(task, progress=lambda share, _: shares.append(share))
    expected = predictor.segment(task)
    assert answer.labels.dtype == np.uint8
    assert len(np.unique(answer.labels)) > 1
    np.testing.assert_array_equal(answer.labels, expected.labels)
    assert answer.volumes_ml == expected.volumes_ml()
    assert answer.seconds > 0
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert service.segment(task).n_windows == 0
    other = service.segment(task, mode="distilled").labels
    np.testing.assert_array_equal(other, predictor.segment(task, mode="distilled").labels)
    assert not np.array_equal(other, answer.labels)


def test_every_prompt_is_answered_as_by_the_predictor(service, predictor):
    """One after the other, as masks of one call must not reach into the next."""
    large, far = np.zeros((2, *blob().shape), bool)
    large[8:22, 15:40, 6:20] = True
    far[2:6, 2:6, 2:6] = True
    clicks = [Point(position(VOXEL)), Point(position((4, 40, 20)), positive=False)]
    stroke = Scribble((position((5, 5, 5)), position((5, 30, 20))))
    questions = [
        ("one", 2, clicks[:1], None, False),
        ("one", 2, clicks[:1], large, False),
        ("one", 1, clicks, far, True),
        ("two", None, [Box(position((5, 5, 5)), position((20, 30, 20)))], far, False),
        ("two", 1, [*clicks, stroke], large & ~far, False),
        ("one", 1, [stroke], np.zeros_like(far), True),
        ("one", 2, clicks[:1], None, False),
    ]
    n_changed = 0
    for task, label, prompts, previous, is_free in questions:
        kept = None if previous is None else previous.copy()
        answer = service.prompt(task, label, prompts, previous, is_free=is_free)
        expected = predictor.prompt(task, label, prompts, previous, is_free=is_free)
        assert (answer.box, answer.roi) == (expected.box, expected.roi)
        np.testing.assert_array_equal(answer.mask, expected.mask)
        assert answer.predicted_dice == expected.predicted_dice
        assert previous is None or np.array_equal(previous, kept)
        n_changed += answer.mask.size
    assert n_changed > 1000
    assert not named()


def test_maps_are_those_of_the_predictor(service, predictor):
    result = predictor.segment("one")
    names, weights = service.expert_map("one")
    assert names == ("one", "two", "null")
    np.testing.assert_array_equal(weights, result.expert_map())
    values = service.uncertainty("one")
    np.testing.assert_array_equal(values, uncertainty_map(predictor, result))
    service.segment("one", mode="distilled")  # another result than the one that is asked for
    np.testing.assert_array_equal(service.expert_map("one")[1], weights)
    service.segment("two")
    np.testing.assert_array_equal(service.uncertainty("one"), values)
    assert values.dtype == weights.dtype == np.float32


def test_tasks_are_ranked_as_by_the_predictor(service, predictor):
    assert service.rank_tasks() == predictor.rank_tasks()


def fresh(seed: int) -> Volume:
    """Return a volume that nothing is cached of, with several windows on the finer grid."""
    noise = np.random.default_rng(seed).normal(size=(40, 60, 30)).astype(np.float32)
    return Volume(noise, blob().affine)


def test_filling_goes_in_steps(service):
    service.set_volume(fresh(1))
    assert service.filled_share("one") == 0
    assert service.fill("one", position((39, 0, 0)), max_windows=2) == 2
    share = service.filled_share("one")
    assert 0 < share < 1
    n_rest = service.fill("one")
    assert n_rest == round(2 / share) - 2
    assert service.filled_share("one") == 1
    assert service.filled_share("two") == 0
    assert service.prompt("one", 1, [Point(position((39, 0, 0)))]).n_windows == 0


def test_a_call_is_cancelled_between_windows_and_the_next_one_goes_on(service):
    service.set_volume(fresh(2))
    reports, stopped = [], []

    def cancelled():
        own = [what for _, what in reports if what.startswith("window")]  # others are the experts'
        if len(own) > 1 and not stopped:
            stopped.append(time.monotonic())
        return bool(stopped)

    with pytest.raises(CancelledError):
        service.segment("one", progress=lambda *report: reports.append(report), cancelled=cancelled)
    n_tiles = int(reports[0][1].split()[-1])
    share = service.filled_share("one")
    assert 0 < share < 1
    assert service.segment("one").n_windows == n_tiles - round(share * n_tiles)


def test_a_call_left_by_an_error_here_does_not_disturb_the_next(service, predictor):
    service.set_volume(fresh(3))

    def progress(share, what):
        raise KeyError("the listener's own")

    with pytest.raises(KeyError, match="own"):
        service.segment("one", progress=progress)
    service.set_volume(blob())
    np.testing.assert_array_equal(service.segment("one").labels, predictor.segment("one").labels)


def test_threads_wait_for_each_other(service, predictor):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(service.segment("one").labels))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for labels in found:
        np.testing.assert_array_equal(labels, predictor.segment("one").labels)


@pytest.mark.parametrize(
    ("task", "label", "prompts", "message"),
    [
        ("three", 1, [Point((0, 0, 0))], "one, two"),
        ("one", 9, [Point(position(VOXEL))], "1 a, 2 b"),
        ("one", 1, [], "at least one prompt"),
        ("one", 1, [Point((1e4, 0, 0))], "outside"),
    ],
)
def test_what_the_user_did_wrong_arrives_as_such(service, predictor, task, label, prompts, message):
    with pytest.raises(UserError, match=message) as got:
        service.prompt(task, label, prompts)
    with pytest.raises(UserError) as expected:
        predictor.prompt(task, label, prompts)
    for part in ("wanted", "got", "remedy"):
        assert getattr(got.value, part) == getattr(expected.value, part)
    assert str(got.value) == str(expected.value)
    assert service.is_alive


def test_wrong_volumes_and_masks_are_refused_and_the_volume_before_stays(service, predictor):
    two = Volume(np.zeros((2, 4, 5, 6), np.float32), np.eye(4), ("a", "b"))
    with pytest.raises(UserError, match="one channel"):
        service.set_volume(two)
    with pytest.raises(UserError, match="mask of shape"):
        service.prompt("one", 1, [Point(position(VOXEL))], np.zeros((2, 2, 2), bool))
    with pytest.raises(UserError, match="'three'"):
        service.segment("three")
    np.testing.assert_array_equal(service.segment("one").labels, predictor.segment("one").labels)
    assert not named()


def test_other_errors_bring_the_traceback_of_the_process_and_leave_it_at_work(service):
    with pytest.raises(ModelError) as error:
        service.prompt("one", 1, ["no prompt at all"])
    assert "prompting.py" in error.value.details
    assert error.value.details in error.value.__notes__
    assert "Traceback" not in str(error.value)
    assert str(error.value).startswith(error.value.details.strip().splitlines()[-1].split(":")[0])
    assert error.value.details in service.log.read_text("utf-8")
    assert service.segment("one").n_windows == 0


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no priorities here")
def test_it_is_less_urgent_than_we_are(running):
    running.wait_ready()
    own, its = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, running.pid))
    assert its == min(own + 5, 19)
    usage = running.usage()
    assert usage.cpu_s > 0
    assert usage.peak_mib > 100


def test_nothing_is_known_before_it_is_loaded(student_folder, cache, log):
    service = PredictorService(student_folder, "sparse", "cpu", cache, log=log)
    with pytest.raises(UserError, match="wait until"):
        _ = service.version
    with pytest.raises(CancelledError):
        service.wait_ready(cancelled=lambda: True)
    assert service.is_alive  # and loads on
    service.close()


@pytest.fixture(scope="module")
def second(student_folder, tmp_path_factory):
    """Another one, for two tests in this order: without a volume, and closed."""
    folder = tmp_path_factory.mktemp("second")
    service = PredictorService(student_folder, "full", "cpu", folder, log=folder / "model.log")
    yield service
    service.close()


def test_without_a_volume_nothing_can_be_asked(second):
    for call in (second.segment, second.uncertainty, second.fill, second.expert_map):
        with pytest.raises(UserError, match="set one first"):
            call("one")
    with pytest.raises(UserError, match="set one first"):
        second.prompt("one", 1, [Point((0, 0, 0))])
    assert second.is_alive


def test_closing_ends_it_at_once_also_in_the_middle_of_a_call(second):
    service = second
    service.set_volume(fresh(5))
    took = []

    def close():
        begun = time.monotonic()
        service.close()
        took.append(time.monotonic() - begun)

    threads = []

    def progress(share, what):
        if not threads:
            threads.append(threading.Thread(target=close))
            threads[0].start()

    with pytest.raises(CancelledError, match="closed"):
        service.segment("one", progress=progress)
    threads[0].join()
    service.close()
    assert took[0] < 1
    assert not service.is_alive
    assert wait_until(lambda: not is_running(service.pid), 3)
    assert not named()
    with pytest.raises(CancelledError):
        service.segment("one")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "nowhere"}, "student.json"),
        pytest.param({"device": "abacus"}, "auto, cpu, cuda", marks=pytest.mark.slow),
        pytest.param({"mode": "fast"}, "sparse, full, distilled", marks=pytest.mark.slow),
    ],
)
def test_a_student_that_cannot_be_loaded_is_told(student_folder, cache, log, change, message):
    settings = {"student": student_folder, "mode": "full", "device": "cpu", **change}
    service = PredictorService(Path(settings.pop("student")), **settings, cache_dir=cache, log=log)
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            service.wait_ready()
    assert not service.is_alive
    assert wait_until(lambda: not is_running(service.pid), 5)


def test_a_process_that_dies_at_work_is_told_at_once(student_folder, tmp_path, log):
    service = PredictorService(student_folder, "full", "cpu", tmp_path / "cache", log=log)
    service.set_volume(fresh(4))
    killed = []

    def kill(share, what):
        if not killed:
            killed.append(time.monotonic())
            os.kill(service.pid, signal.SIGKILL)

    with pytest.raises(ServiceDiedError, match=r"killed.*model\.log; press Start again") as error:
        service.segment("one", progress=kill)
    assert time.monotonic() - killed[0] < 5
    assert isinstance(error.value, UserError)
    assert not service.is_alive
    for call in (service.segment, service.filled_share, service.expert_map):
        with pytest.raises(ServiceDiedError):
            call("one")
    assert not named()
    service.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSEGV"), reason="no such signal here")
def test_a_crash_while_it_loads_is_told_and_leaves_a_traceback(student_folder, cache, log):
    service = PredictorService(student_folder, "full", "cpu", cache, log=log)
    with pytest.raises(ServiceDiedError, match=r"crashed \(SIGSEGV"):
        service.wait_ready(lambda share, what: os.kill(service.pid, signal.SIGSEGV))
    assert not service.is_alive
    assert "Segmentation fault" in log.read_text("utf-8")
    again = PredictorService(student_folder, "full", "cpu", cache, log=log)
    again.close()
    assert "Segmentation fault" in log.with_name("model.previous.log").read_text("utf-8")
    assert "Segmentation fault" not in log.read_text("utf-8")


PARENT = """
    import os, sys, time
    from pathlib import Path
    import numpy as np
    from napari_ka2er.core.prompts import Point
    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.service import PredictorService

    student, cache, is_forked = sys.argv[1:]
    service = PredictorService(Path(student), "full", "cpu", Path(cache), log=Path(cache, "log"))
    noise = np.random.default_rng(6).normal(size=(40, 60, 30)).astype(np.float32)
    service.set_volume(Volume(noise, np.diag([3.0, 2.0, 2.5, 1.0])))
    mask = service.prompt("two", 1, [Point((60.0, 60.0, 30.0))]).mask
    assert mask.any()
    service.uncertainty("two")
    service.expert_map("two")
    heavy = {m.partition(".")[0] for m in sys.modules} & {"torch", "monai", "nnunetv2"}

    def report(share, what):
        if is_forked == "True" and not share and not os.fork():
            time.sleep(20)  # holds the pipes for longer than we live
            os._exit(0)
        print(service.pid, ",".join(heavy) or "light", flush=True)

    service.segment("one", progress=report)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 and fork are POSIX")
@pytest.mark.parametrize("is_forked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_ends_with_its_parent_which_never_imports_torch(student_folder, tmp_path, is_forked):
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), student_folder, tmp_path, str(is_forked)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        pid, heavy = parent.stdout.readline().split()
        assert heavy == "light"
        assert is_running(int(pid))
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        assert wait_until(lambda: not is_running(int(pid)), 5)
        assert wait_until(lambda: not named(parent.pid), 5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()
