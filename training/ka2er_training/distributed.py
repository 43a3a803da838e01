"""Several processes under `torchrun` or submitit: who am I, and who goes first."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator

# The others wait while the first process lets experts look at every volume, which takes hours.
_PATIENCE = timedelta(days=1)

# What both of them tell every process.
_MEETING = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE")


def rank() -> int:
    """Return this process's number; 0 without `torchrun`."""
    return distributed.get_rank() if _is_running() else 0


def world_size() -> int:
    """Return the number of processes; 1 without `torchrun`."""
    return distributed.get_world_size() if _is_running() else 1


def _is_running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` or submitit has started; do nothing without them.

    Parameters
    ----------
    device : str
        ``"cuda"`` becomes this process's own GPU and NCCL is used; otherwise gloo.

    Yields
    ------
    str
        The device for this process.
    """
    if not all(name in os.environ for name in _MEETING):
        yield device
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def shared_batch(batch: int) -> int:
    """Return a batch's windows: as many for each process, at least one, so rounded up."""
    return -(-batch // world_size()) * world_size()


def mean_of_processes(values: dict[str, float]) -> dict[str, float]:
    """Return each value's mean over all processes; one that a process does not know is 0 there."""
    if world_size() == 1:
        return values
    told: list[Any] = [None] * world_size()
    distributed.all_gather_object(told, values)
    names = dict.fromkeys(name for one in told for name in one)
    return {name: sum(one.get(name, 0.0) for one in told) / len(told) for name in names}


@contextmanager
def first_alone() -> Iterator[None]:
    """Let process 0 do the block before the others, which then find its results on disk."""
    if rank() and _is_running():
        distributed.barrier()
    yield
    if not rank() and _is_running():
        distributed.barrier()
