"""A round's trainings as jobs of their own, here or on Slurm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ka2er_training.executors import require_all, submit_all
from ka2er_training.job_work import Job
from ka2er_training.scale import jobs_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ka2er_training.retrain_stages import RoundWork

_RETRAIN = "ka2er_training.expert_retraining:retrain_expert"
_ANEW = "ka2er_training.scratch_experts:expert_from_scratch"
_STUDENT = "ka2er_training.round_student:make_student"


def experts_in_jobs(work: RoundWork, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Train a round's experts, a job each; one that fails does not stop the others.

    Returns
    -------
    dict
        Per task, what `ka2er_training.expert_retraining.retrain_expert` returns.

    Raises
    ------
    UserError
        If a job failed, after the others have ended; resuming the round runs only what is missing.
    """
    function = _ANEW if work.state.options.from_scratch else _RETRAIN
    jobs = [
        Job(f"round-{work.state.number:04d}-{task}", function, {**_where(work), "task": task})
        for task in tasks
    ]
    return dict(zip(tasks, _run(work, jobs), strict=True))


def student_in_job(work: RoundWork, experts: Mapping[str, str]) -> dict[str, Any]:
    """Re-amalgamate a round's student in one job; see `ka2er_training.round_student`."""
    arguments = {**_where(work), "before": work.state.before, "experts": dict(experts)}
    return _run(work, [Job(f"round-{work.state.number:04d}-student", _STUDENT, arguments)])[0]


def _where(work: RoundWork) -> dict[str, Any]:
    return {
        "folder": str(work.workspace.folder),
        "number": work.state.number,
        "device": work.device,
    }


def _run(work: RoundWork, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    outcomes = submit_all(
        jobs, work.workspace.settings.executor, jobs_folder(work.workspace),
        executor=work.executor, resume=True, **work.hooks,
    )  # fmt: skip
    return require_all(outcomes)
