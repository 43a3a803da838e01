"""Run independent jobs beside each other through submitit: processes here, or jobs on Slurm."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError

from ka2er_training.clusters import local_executor, slurm_executor
from ka2er_training.gpus import visible_gpus
from ka2er_training.job_work import DONE, PROGRESS, Call, Job, JobOutcome, kept_result
from ka2er_training.presets import check_choice
from ka2er_training.workspace import read_json
from napari_ka2er.core.errors import CancelledError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ka2er_training.executor_settings import ExecutorSettings

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

EXECUTORS = ("local", "slurm")
POLL_S = 0.5
# How long cancelled jobs may take to end.
_END_S = 20.0


def submit_all(
    jobs: Sequence[Job],
    settings: ExecutorSettings,
    folder: Path,
    *,
    executor: str = "local",
    resume: bool = False,
    tasks: int = 1,
    **hooks: Any,
) -> list[JobOutcome]:
    """Run jobs; one that fails does not stop the others; return an outcome per job, in order.

    Parameters
    ----------
    jobs : sequence of Job
        Independent of each other.
    settings : ExecutorSettings
        What each of them gets.
    folder : Path
        Seen by all machines; a folder per job, and submitit's own with their output.
    executor : str
        ``"local"`` or ``"slurm"``.
    resume : bool
        Take results of jobs that finished before, and tell the others to go on where they stopped.
    tasks : int
        Processes per node of each job; more than one for distributed training.
    **hooks
        `progress`, told the mean share done; `cancelled`, asked several times a second: jobs are
        stopped before `CancelledError` is raised.

    Raises `UserError` if there is no such executor here, or two jobs have one name.
    """
    check_choice(executor, EXECUTORS, "executor")
    if len({job.name for job in jobs}) < len(jobs):
        raise UserError("jobs of different names", ", ".join(job.name for job in jobs))
    found = {job.name: _kept(folder, job) for job in jobs} if resume else {}
    kept = {name: outcome for name, outcome in found.items() if outcome is not None}
    round_ = _Round(folder, settings, executor, tasks, resume)
    outcomes = kept | _run(round_, [j for j in jobs if j.name not in kept], len(kept), **hooks)
    return [outcomes[job.name] for job in jobs]


def _run(
    round_: _Round,
    jobs: Sequence[Job],
    n_kept: int,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, JobOutcome]:
    """Run the jobs that are missing, watch them, and leave none behind."""
    for job in jobs:
        _make_room(round_.folder / job.name)
    try:
        round_.begin(jobs)
        while round_.is_busy():
            if cancelled is not None and cancelled():
                raise CancelledError("stopped; --resume runs what is missing")
            if progress is not None:
                progress(*round_.share(n_kept, n_kept + len(jobs)))
            time.sleep(POLL_S)
    finally:
        round_.cancel()
    return round_.outcomes


def require_all(outcomes: Sequence[JobOutcome]) -> list[dict[str, Any]]:
    """Return the results of all jobs.

    Raises
    ------
    UserError
        If one failed, with the names and reasons of all that did.
    """
    if failed := [f"{one.name} ({one.reason})" for one in outcomes if one.result is None]:
        remedy = "--resume runs only what is missing; output is in runs/jobs/submitit"
        raise UserError(f"{len(outcomes)} jobs to finish", f"failed: {', '.join(failed)}", remedy)
    return [one.result for one in outcomes if one.result is not None]


def _kept(folder: Path, job: Job) -> JobOutcome | None:
    result = kept_result(folder, job)
    if result is None:
        return None
    logger.info("%s: finished before", job.name)
    return JobOutcome(job.name, result, kept=True)


def _make_room(home: Path) -> None:
    """Forget what an earlier run of a job has left."""
    home.mkdir(parents=True, exist_ok=True)
    for name in (DONE, PROGRESS):
        (home / name).unlink(missing_ok=True)


def _processes(job: submitit.Job[Any]) -> list[psutil.Process]:
    """Return a local job's process, whose number is the job's, and all that it has started."""
    try:
        process = psutil.Process(int(job.job_id))
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass(slots=True)
class _Round:
    """The jobs of one call, waiting, running and ended."""

    folder: Path
    settings: ExecutorSettings
    executor: str
    tasks: int
    resume: bool
    waiting: list[Job] = field(default_factory=list)
    running: dict[int, tuple[Job, submitit.Job[Any]]] = field(default_factory=dict)
    outcomes: dict[str, JobOutcome] = field(default_factory=dict)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Submit: all at once to Slurm, which queues them; here as many as may run at once."""
        if self.executor == "local":
            self.waiting = list(jobs)
            self._fill()
        elif jobs:
            calls = [self._call(job) for job in jobs]
            with submitit.helpers.clean_env():
                submitted = slurm_executor(self.folder, self.settings, self.tasks).submit_array(
                    calls
                )
            self.running = dict(enumerate(zip(jobs, submitted, strict=True)))

    def is_busy(self) -> bool:
        """Take what has ended, begin what may begin; return whether anything is left."""
        for slot, (job, submitted) in list(self.running.items()):
            if submitted.done():
                del self.running[slot]
                self.outcomes[job.name] = outcome = self._outcome(job, submitted)
                logger.info("%s: %s", job.name, outcome.reason or "finished")
        self._fill()
        return bool(self.running)

    def share(self, n_kept: int, n_jobs: int) -> tuple[float, str]:
        """Return the mean share done, and what the running jobs do."""
        told = list[tuple[float, str]]()
        for job, _ in self.running.values():
            path = self.folder / job.name / PROGRESS
            report: Any = read_json(path) if path.exists() else {"share": 0, "what": "waiting"}
            told.append((float(report["share"]), f"{job.name}: {report['what']}"))
        ended = n_kept + len(self.outcomes)
        total = ended + sum(share for share, _ in told)
        return total / max(n_jobs, 1), "; ".join(what for _, what in told)

    def cancel(self) -> None:
        """Stop what still runs, and wait until it has ended."""
        jobs = [submitted for _, submitted in self.running.values()]
        trees = [tree for job in jobs if self.executor == "local" for tree in _processes(job)]
        for job in jobs:
            job.cancel(check=False)
        # submitit's interrupt is ignored by all that was started with it ignored: `nohup ... &`.
        _, left = psutil.wait_procs(trees, timeout=_END_S)
        for process in left:
            logger.warning("process %d did not end and is killed", process.pid)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_END_S)

    def _fill(self) -> None:
        """Begin local jobs in free slots; each slot has GPUs of its own."""
        free = [n for n in range(self.settings.parallel) if n not in self.running]
        for slot in free[: len(self.waiting)]:
            job = self.waiting.pop(0)
            n_gpus = self.settings.gpus
            # Told here: in the job, submitit has overwritten what this process may see.
            gpus = visible_gpus(range(slot * n_gpus, (slot + 1) * n_gpus))
            with submitit.helpers.clean_env():
                local = local_executor(self.folder, self.settings, self.tasks)
                self.running[slot] = (job, local.submit(self._call(job, gpus)))

    def _call(self, job: Job, gpus: str | None = None) -> Call:
        described = {
            "name": job.name,
            "function": job.function,
            "arguments": dict(job.arguments),
            "digest": job.digest,
        }
        return Call(str(self.folder), described, self.resume, gpus)

    def _outcome(self, job: Job, submitted: submitit.Job[Any]) -> JobOutcome:
        """Return what became of an ended job; its own word in done.json counts most."""
        result = kept_result(self.folder, job)
        if result is not None:
            return JobOutcome(job.name, result)
        try:
            told = submitted.results()[0]
        except UncompletedJobError as error:
            reason = "its process ended before it had finished"
            if isinstance(error, FailedJobError):
                reason = _last_of_trace(str(error))
            return JobOutcome(job.name, reason=f"{reason}; see {submitted.paths.stderr}")
        return JobOutcome(job.name, reason=str(told.get("reason") or "no result"))


def _last_of_trace(text: str) -> str:
    """Return the last line of the trace that submitit's message holds between two rules."""
    trace = text.split("-" * 22)[1]
    return trace.strip().splitlines()[-1]
