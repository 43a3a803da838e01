"""submitit's executors with the workspace's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import submitit

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from ka2er_training.executor_settings import ExecutorSettings


def local_executor(folder: Path, settings: ExecutorSettings, tasks: int) -> Any:
    """Return what runs jobs as processes of this machine."""
    local = submitit.AutoExecutor(folder / "submitit" / "%j", cluster="local")
    local.update_parameters(
        name="ka2er",
        timeout_min=settings.minutes,
        gpus_per_node=settings.gpus,
        tasks_per_node=tasks,
    )
    return local


def slurm_executor(folder: Path, settings: ExecutorSettings, tasks: int) -> Any:
    """Return what submits jobs to Slurm.

    Raises
    ------
    UserError
        If this machine has no Slurm.
    """
    try:
        slurm = submitit.AutoExecutor(folder / "submitit" / "%j", cluster="slurm")
    except RuntimeError as error:  # no srun
        raise UserError(
            "a machine that submits to Slurm", f"{error}", "--executor local"
        ) from error
    slurm.update_parameters(
        name="ka2er",
        timeout_min=settings.minutes,
        nodes=settings.nodes if tasks > 1 else 1,
        tasks_per_node=tasks,
        gpus_per_node=settings.gpus,
        cpus_per_task=settings.cpus,
        mem_gb=settings.memory_gb,
        slurm_array_parallelism=settings.parallel,
        slurm_partition=settings.partition or None,
        slurm_account=settings.account or None,
    )
    return slurm
