"""Jobs through submitit's local executor: real processes, some of which are killed."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ka2er_training import executors
from ka2er_training.clusters import slurm_executor
from ka2er_training.executor_settings import ExecutorSettings
from ka2er_training.executors import require_all, submit_all
from ka2er_training.job_work import Job
from napari_ka2er.core.errors import CancelledError, UserError

SETTINGS = ExecutorSettings(parallel=2, minutes=5)
HERE = "tests.training.test_executors"


@pytest.fixture(autouse=True)
def tests_can_be_imported_by_jobs(monkeypatch):
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))


def note(folder, name):
    """In a job: leave a trace, a line per run."""
    with (Path(folder) / f"{name}.runs").open("a") as runs:
        runs.write("run\n")
    return {"name": name, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


def refuse(folder, name):
    note(folder, name)
    if not (Path(folder) / "allowed").exists():
        raise UserError("a better day", "this one")
    return {"name": name}


def crash(folder):
    raise ZeroDivisionError("of the job's own")


def wait_to_be_killed(folder, resume, progress):
    """In a job: tell the process number and wait; once it was begun before, finish."""
    if resume:
        return {"resumed": True}
    progress(0.5, "waiting")
    (Path(folder) / "pid.part").write_text(str(os.getpid()))
    (Path(folder) / "pid.part").rename(Path(folder) / "pid")
    time.sleep(300)
    return {"resumed": False}


def job(job_name, function, folder, **arguments):
    return Job(job_name, f"{HERE}:{function}", {"folder": str(folder), **arguments})


def n_runs(folder, name):
    return len((folder / f"{name}.runs").read_text("utf-8").splitlines())


def is_alive(pid):
    """Whether a process runs; one that has ended may still wait to be noticed by its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_failed_job_does_not_stop_the_others_and_resume_runs_only_it(tmp_path):
    jobs = [
        job("bad", "refuse", tmp_path, name="bad"),
        job("worse", "crash", tmp_path),
        job("good", "note", tmp_path, name="good"),
    ]
    bad, worse, good = submit_all(jobs, SETTINGS, tmp_path / "jobs")
    assert bad.result is None
    assert "a better day" in bad.reason
    assert "Traceback" not in bad.reason
    assert worse.result is None
    assert "ZeroDivisionError: of the job's own" in worse.reason
    assert good.result["name"] == "good"
    with pytest.raises(UserError, match=r"bad \(.*worse \("):
        require_all([bad, worse, good])

    (tmp_path / "allowed").touch()
    bad, good = submit_all([jobs[0], jobs[2]], SETTINGS, tmp_path / "jobs", resume=True)
    assert (bad.result, bad.kept) == ({"name": "bad"}, False)
    assert (good.result["name"], good.kept) == ("good", True)
    assert (n_runs(tmp_path, "bad"), n_runs(tmp_path, "good")) == (2, 1)


def test_other_data_or_no_resume_runs_a_finished_job_again(tmp_path):
    one = job("one", "note", tmp_path, name="one")
    submit_all([one], SETTINGS, tmp_path / "jobs")
    submit_all([replace(one, inputs="other cases")], SETTINGS, tmp_path / "jobs", resume=True)
    assert n_runs(tmp_path, "one") == 2
    submit_all([one], SETTINGS, tmp_path / "jobs")
    assert n_runs(tmp_path, "one") == 3


def test_kill_9_of_one_job_leaves_the_other_and_resume_completes(tmp_path):
    jobs = [
        job("waits", "wait_to_be_killed", tmp_path),
        job("works", "note", tmp_path, name="works"),
    ]
    told = []

    def kill_once(share, what):
        told.append((share, what))
        pid = tmp_path / "pid"
        if pid.exists():
            os.kill(int(pid.read_text("utf-8")), signal.SIGKILL)
            pid.unlink()

    waits, works = submit_all(jobs, SETTINGS, tmp_path / "jobs", progress=kill_once)
    assert waits.result is None
    assert "its process ended before it had finished" in waits.reason
    assert works.result["name"] == "works"
    assert any("waits: waiting" in what for _, what in told)
    assert max(share for share, _ in told) >= 0.25  # half of one of two jobs

    waits, works = submit_all(jobs, SETTINGS, tmp_path / "jobs", resume=True)
    assert waits.result == {"resumed": True}
    assert works.kept


@pytest.fixture
def interrupts(request):
    """Interrupts handled as given, and as before afterwards; processes begun now inherit it."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize(
    "interrupts",
    [signal.default_int_handler, pytest.param(signal.SIG_IGN, id="begun with nohup and &")],
    indirect=True,
)
def test_cancelling_ends_the_jobs(tmp_path, interrupts, monkeypatch):
    monkeypatch.setattr(executors, "_END_S", 3.0 if interrupts == signal.SIG_IGN else 60.0)
    pid = tmp_path / "pid"
    with pytest.raises(CancelledError):
        submit_all(
            [job("waits", "wait_to_be_killed", tmp_path)],
            SETTINGS,
            tmp_path / "jobs",
            cancelled=pid.exists,
        )
    assert not is_alive(int(pid.read_text("utf-8")))


@pytest.mark.parametrize(
    ("visible", "shared"),
    [
        (None, ["0,1", "2,3"]),
        ("4,5,7,6", ["4,5", "7,6"]),  # of a scheduler or a careful user
        ("", ["", ""]),
    ],
)
def test_local_jobs_at_once_have_gpus_of_their_own(tmp_path, monkeypatch, visible, shared):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    jobs = [job(name, "note", tmp_path, name=name) for name in ("a", "b")]
    outcomes = submit_all(jobs, replace(SETTINGS, gpus=2), tmp_path / "jobs")
    assert [outcome.result["gpus"] for outcome in outcomes] == shared


def test_more_gpus_than_are_visible_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    one = job("one", "note", tmp_path, name="one")
    with pytest.raises(UserError, match=r"at least 3 GPUs.*\[executor\]"):
        submit_all([one], replace(SETTINGS, gpus=3), tmp_path / "jobs")


def test_what_finished_is_a_readable_file_with_its_result(tmp_path):
    submit_all([job("one", "note", tmp_path, name="one")], SETTINGS, tmp_path / "jobs")
    done = json.loads((tmp_path / "jobs" / "one" / "done.json").read_text("utf-8"))
    assert done["result"]["name"] == "one"


def test_wrong_wishes_are_refused(tmp_path):
    one = job("one", "note", tmp_path, name="one")
    with pytest.raises(UserError, match="local, slurm"):
        submit_all([one], SETTINGS, tmp_path, executor="cloud")
    with pytest.raises(UserError, match="different names"):
        submit_all([one, one], SETTINGS, tmp_path)
    with pytest.raises(UserError, match="parallel of at least 1"):
        ExecutorSettings(parallel=0)


def test_slurm_is_refused_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="submits to Slurm"):
        submit_all([job("one", "note", tmp_path, name="one")], SETTINGS, tmp_path, executor="slurm")


def test_slurm_is_asked_for_what_the_settings_say(tmp_path, monkeypatch):
    """With an `sbatch` that keeps what it is given: an array of two jobs, at most three at once."""
    for name in ("srun", "sbatch"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/asked\necho Submitted batch job 77\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    settings = ExecutorSettings(
        parallel=3, gpus=1, cpus=6, minutes=90, memory_gb=32, partition="gpu"
    )
    jobs = slurm_executor(tmp_path / "jobs", settings, 1).map_array(
        note, [str(tmp_path)] * 2, ["a", "b"]
    )
    asked = (tmp_path / "asked").read_text("utf-8")
    assert [one.job_id for one in jobs] == ["77_0", "77_1"]
    for line in (
        "--array=0-1%2",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--cpus-per-task=6",
        "--time=90",
        "--mem=32GB",
        "--ntasks-per-node=1",
    ):
        assert f"#SBATCH {line}\n" in asked
