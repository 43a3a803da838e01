"""Experts, experts' features and the student as jobs: many at once, here or on Slurm."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.executors import require_all, submit_all
from ka2er_training.experts import ExpertPlan, train_expert
from ka2er_training.job_work import Job, JobOutcome
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ka2er_training.students import AmalgamationPlan

    Progress = Callable[[float, str], None]

_PATHS = ("foundation", "parent")  # of a plan: text where it is kept as JSON


def jobs_folder(workspace: Workspace) -> Path:
    """Return where jobs keep their state and their output."""
    return workspace.folder / "runs" / "jobs"


def train_experts(
    workspace: Workspace, tasks: Sequence[str], plan: ExpertPlan, *, executor: str, **hooks: Any
) -> list[JobOutcome]:
    """Train experts as jobs of their own; `hooks` are those of `submit_all`.

    With ``plan.resume``, experts that were trained with the same plan on the same cases are not
    trained again, the others go on from their checkpoints.

    Raises
    ------
    UserError
        If there is no such task or executor.
    """
    jobs = [expert_job(workspace, task, plan) for task in dict.fromkeys(tasks)]
    settings, folder = workspace.settings.executor, jobs_folder(workspace)
    return submit_all(jobs, settings, folder, executor=executor, resume=plan.resume, **hooks)


def expert_job(workspace: Workspace, task: str, plan: ExpertPlan) -> Job:
    """Return the job that trains one expert."""
    dataset = workspace.dataset_folder(task)
    texts = [(dataset / name).read_bytes() for name in ("dataset.json", "cases.json")]
    preset = workspace.settings.presets[plan.preset or workspace.settings.expert.preset]
    inputs = hashlib.sha256(b"\n".join([*texts, str(asdict(preset)).encode()])).hexdigest()
    arguments = {
        "workspace": str(workspace.folder),
        "task": task,
        "preset": plan.preset,
        "loss": plan.loss,
        "device": plan.device,
        "seed": plan.seed,
        "epochs": plan.epochs,
    }
    return Job(f"expert-{task}", f"{__name__}:run_expert", arguments, inputs)


def run_expert(
    *,
    workspace: str,
    task: str,
    preset: str | None,
    loss: str | None,
    device: str,
    seed: int,
    epochs: int | None,
    resume: bool,
    progress: Progress,
) -> dict[str, Any]:
    """In a job: train one expert."""
    plan = ExpertPlan(preset, loss, resume, device, seed, epochs)
    return train_expert(Workspace.open(workspace), task, plan, progress=progress)


def extract_features(
    workspace: Workspace,
    tasks: Sequence[str] = (),
    *,
    executor: str,
    device: str = "cpu",
    **hooks: Any,
) -> int:
    """Let jobs put every expert's features of every training volume on disk, before amalgamation.

    What is there is not made again, so that this may be stopped and repeated.  `hooks` are those of
    `submit_all`.  Returns the number of volumes.

    Raises
    ------
    UserError
        If a job failed, or there are no experts.
    """
    from ka2er_training.students import ingredients_of

    settings, folder = workspace.settings.executor, jobs_folder(workspace)
    n_jobs = min(settings.parallel, len(ingredients_of(workspace, tasks).sources))
    shared = {
        "workspace": str(workspace.folder), "tasks": list(tasks), "step": n_jobs, "device": device
    }  # fmt: skip
    run = f"{__name__}:run_features"
    jobs = [Job(f"features-{n}", run, {**shared, "first": n}) for n in range(n_jobs)]
    outcomes = submit_all(jobs, settings, folder, executor=executor, **hooks)
    return sum(result["n_volumes"] for result in require_all(outcomes))


def run_features(
    *, workspace: str, tasks: list[str], first: int, step: int, device: str, progress: Progress
) -> dict[str, Any]:
    """In a job: prepare every `step`-th training volume of a workspace."""
    from ka2er_training.cases import prepare_case
    from ka2er_training.students import ingredients_of
    from napari_ka2er.model.config import TaskEntry
    from napari_ka2er.model.device import resolve_device
    from napari_ka2er.model.experts import Expert

    opened = Workspace.open(workspace)
    ingredients = ingredients_of(opened, tasks)
    where = str(resolve_device(device))
    experts = [Expert.load(expert.folder, where) for expert in ingredients.experts]
    mine = ingredients.sources[first::step]
    for number, source in enumerate(mine):
        task, spacing_mm = ingredients.tasks[source.task]
        # Features depend on the grid's spacing and the labels, not on the student's window.
        entry = TaskEntry(task, spacing_mm, (32, 32, 64))
        prepare_case(source, entry, experts, opened.folder / "runs" / "cache")
        progress((number + 1) / len(mine), source.name)
    return {"n_volumes": len(mine)}


def amalgamate_in_jobs(
    workspace: Workspace,
    plan: AmalgamationPlan,
    *,
    executor: str,
    processes: int = 1,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Extract features in jobs, then train the student in one job of several processes.

    Parameters
    ----------
    workspace, plan, progress, cancelled
        See `ka2er_training.students.amalgamate_workspace`.
    executor : str
        ``"local"`` or ``"slurm"``.
    processes : int
        Per node, each with a GPU if the job has any; the windows of a step are shared among them.

    Raises
    ------
    UserError
        If a job failed; what the features' jobs have made is kept, and so is the checkpoint.
    """
    _check_processes(workspace, processes)
    run: dict[str, Any] = {"executor": executor, "cancelled": cancelled}
    first = (lambda s, t: progress(0.3 * s, t)) if progress else None
    extract_features(workspace, plan.tasks, device=plan.device, progress=first, **run)
    rest = (lambda s, t: progress(0.3 + 0.7 * s, t)) if progress else None
    settings, folder = workspace.settings.executor, jobs_folder(workspace)
    jobs = [student_job(workspace, plan)]
    run = {**run, "resume": plan.resume, "tasks": processes, "progress": rest}
    return require_all(submit_all(jobs, settings, folder, **run))[0]


def _check_processes(workspace: Workspace, processes: int) -> None:
    gpus = workspace.settings.executor.gpus
    if processes < 1 or (gpus and processes > gpus):
        most = f", at most {gpus} as [executor] gives so many GPUs" if gpus else ""
        raise UserError(f"at least one process{most}", f"{processes}")


def student_job(workspace: Workspace, plan: AmalgamationPlan) -> Job:
    """Return the job that amalgamates a workspace's experts as they are now."""
    from ka2er_training.students import ingredients_of

    paths = {name: getattr(plan, name) for name in _PATHS}
    told = {**asdict(plan), **{name: str(path) if path else None for name, path in paths.items()}}
    del told["resume"]
    experts = [expert.digest for expert in ingredients_of(workspace, plan.tasks).experts]
    cases = [(workspace.dataset_folder(t) / "cases.json").read_text() for t in workspace.tasks]
    inputs = hashlib.sha256("\n".join([*experts, *cases]).encode()).hexdigest()
    arguments = {"workspace": str(workspace.folder), "plan": told}
    return Job("student", f"{__name__}:run_student", arguments, inputs)


def run_student(
    *, workspace: str, plan: dict[str, Any], resume: bool, progress: Progress
) -> dict[str, Any] | None:
    """In each process of a job: amalgamate; the first returns the result, the others None."""
    from submitit.helpers import TorchDistributedEnvironment

    from ka2er_training.distributed import processes, rank
    from ka2er_training.students import AmalgamationPlan, amalgamate_workspace
    from napari_ka2er.model.device import resolve_device

    # All GPUs stay visible: `processes` takes the one of its local rank.
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    paths = {name: Path(plan[name]) if plan[name] else None for name in _PATHS}
    strengths = tuple((name, factor) for name, factor in plan["task_strength"])
    wanted = AmalgamationPlan(
        **{
            **plan,
            "tasks": tuple(plan["tasks"]),
            **paths,
            "task_strength": strengths,
            "resume": resume,
        }
    )
    with processes(str(resolve_device(wanted.device))) as device:
        result = amalgamate_workspace(
            Workspace.open(workspace), replace(wanted, device=device), progress=progress
        )
        return None if rank() else result
