"""What ``[executor]`` in ``ka2er.toml`` says: how jobs run beside each other, here or on Slurm."""

from __future__ import annotations

from dataclasses import dataclass

from ka2er_training.presets import check_number
from napari_ka2er.core.errors import UserError


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """What one job gets.

    Parameters
    ----------
    parallel : int
        Jobs at once.
    gpus, cpus : int
        Per job and node; 0 GPUs: the job sees none.
    minutes : int
        After this time a job is stopped; one that can resume is queued again, three times at most.
    memory_gb : float
        Per node; Slurm only.
    partition : str
        Slurm's; empty: the cluster's default.
    account : str
        Slurm's; empty: the user's default.
    nodes : int
        For the student, which may be trained on several; experts take one each.
    """

    parallel: int = 2
    gpus: int = 0
    cpus: int = 2
    minutes: int = 1440
    memory_gb: float = 16.0
    partition: str = ""
    account: str = ""
    nodes: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("parallel", 1),
            ("gpus", 0),
            ("cpus", 1),
            ("minutes", 1),
            ("nodes", 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UserError(f"{name} of at least {least} in [executor]", repr(value))
        check_number(self.memory_gb, 0.1, 1e5, "memory_gb of [executor]")
        if not isinstance(self.partition, str) or not isinstance(self.account, str):
            raise UserError("texts as partition and account of [executor]", f"{self}")
