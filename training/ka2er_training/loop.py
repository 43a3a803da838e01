"""The training loop, once: every window is a pure function of (seed, step, number).

That makes resuming exact (nothing but the step is needed to draw the next windows) and makes two
processes with half the windows each compute what one process computes with all of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from ka2er_training.distributed import mean_of_processes, rank, shared_batch, world_size
from ka2er_training.loop_checkpoint import no_checkpoint, read_checkpoint, write_checkpoint
from napari_ka2er.core.errors import CancelledError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from ka2er_training.schedule import Schedule, Work

logger = logging.getLogger(__name__)

# In half precision a step's gradient overflows now and then; a broken volume does so always.
MOST_SKIPPED = 5


def train(
    network: nn.Module,
    work: Work,
    schedule: Schedule,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> nn.Module:
    """Train `network` and return a copy with averaged weights.

    Parameters
    ----------
    network : Module
        Changed in place.
    work : Work
        What to draw and what to minimise.
    schedule : Schedule
        How long and how fast.  Of several processes each takes as many windows as the others, at
        least one: the batch is rounded up to a multiple of their number.
    out : Path
        Folder for ``checkpoint.pt``, ``scalars.jsonl`` and TensorBoard's files.
    resume : bool
        Go on from the checkpoint in `out`, if there is one; same numbers as an unbroken run.
    device : str or torch.device
        Where to train; in a distributed run each process has its own.
    progress : callable, optional
        Told the share done and a line of text.
    cancelled : callable, optional
        Asked before every step; a checkpoint is written before `CancelledError` is raised.

    Raises
    ------
    CancelledError
        If `cancelled` said so.
    UserError
        If the checkpoint is no checkpoint of this training or cannot be written, or gradients stay
        infinite for more than `MOST_SKIPPED` steps.
    """
    run = _Run(network, work, schedule, out, torch.device(device))
    step = run.load() if resume else 0
    run.open_log(step)
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(run.samples, step) if step < schedule.steps else None
        while waiting is not None:
            samples = waiting.result()
            more = step + 1 < schedule.steps
            waiting = ahead.submit(run.samples, step + 1) if more else None
            scalars = run.step(samples, step)
            step += 1
            run.log(step, scalars)
            if step % schedule.checkpoint_every == 0 or step == schedule.steps:
                run.save(step)
            if progress is not None:
                progress(step / schedule.steps, f"loss {scalars['loss']:.3f}")
            if cancelled is not None and cancelled():
                run.save(step)
                raise CancelledError(f"stopped at step {step}; --resume goes on")
    averaged: nn.Module = run.averaged.module
    return averaged


class _Run:
    """Everything that a checkpoint holds, and one step of it."""

    def __init__(
        self, network: nn.Module, work: Work, schedule: Schedule, out: Path, device: torch.device
    ) -> None:
        self.work, self.schedule, self.out, self.device = work, schedule, out, device
        self.network = network.to(device).train()
        self.rank, self.world = rank(), world_size()
        self.skipped = 0
        # Each process averages over its own windows, and all wait for each other at every one.
        self.windows = shared_batch(schedule.batch)
        for name, parameter in network.named_parameters():
            chosen = not work.trained or any(part in name for part in work.trained)
            parameter.requires_grad_(chosen and not name.startswith(work.frozen or ("\0",)))
        self.optimiser = torch.optim.AdamW(self._groups(), weight_decay=schedule.weight_decay)
        self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(schedule.ema))
        self.wrapped = (
            DistributedDataParallel(network, find_unused_parameters=True)
            if self.world > 1
            else network
        )
        out.mkdir(parents=True, exist_ok=True)

    def _groups(self) -> list[dict[str, Any]]:
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                factor = _of_prefix(self.work.rates, name, 1.0)
                late = _of_prefix(self.work.late, name, 0.0)
                groups.setdefault((factor, late), []).append(parameter)
        rate = self.schedule.learning_rate
        return [
            {"params": ps, "lr": rate * factor, "peak": rate * factor, "late": late}
            for (factor, late), ps in groups.items()
        ]

    def samples(self, step: int) -> list[tuple[int, Any]]:
        """Draw this process's windows of a step."""
        mine = range(self.rank, self.windows, self.world)
        seed = self.schedule.seed
        return [(n, self.work.draw(step, np.random.default_rng((seed, step, n)))) for n in mine]

    def step(self, samples: list[tuple[int, Any]], step: int) -> dict[str, float]:
        """Make one optimiser step; return each term's mean over all processes' windows."""
        for group in self.optimiser.param_groups:
            waits = step < group["late"] * self.schedule.steps
            group["lr"] = 0.0 if waits else group["peak"] * self.schedule.rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for i, (number, sample) in enumerate(samples):
            torch.manual_seed((self.schedule.seed * 1_000_003 + step) * 1009 + number)
            last = i == len(samples) - 1
            gather = contextlib.nullcontext() if last or self.world == 1 else self.wrapped.no_sync()  # type: ignore[operator]
            with gather, self._autocast():
                terms = self.work.loss(self.wrapped, sample, step)
                (terms["loss"] / len(samples)).backward()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(samples)
        sums = mean_of_processes(sums)
        trained = [p for g in self.optimiser.param_groups for p in g["params"]]
        sums["gradient"] = float(torch.nn.utils.clip_grad_norm_(trained, self.schedule.clip))
        if self._may_step(sums["gradient"], step):
            self.optimiser.step()
            self.averaged.update_parameters(self.network)
        return sums

    def _may_step(self, gradient: float, step: int) -> bool:
        """Return whether a gradient may be followed; of several in a row that may not, stop.

        It is the same in all processes, so that all skip or stop together.
        """
        self.skipped = 0 if np.isfinite(gradient) else self.skipped + 1
        if self.skipped > MOST_SKIPPED:
            raise UserError(
                "finite gradients",
                f"{self.skipped} steps in a row without, up to step {step}",
                "look for broken volumes; the last checkpoint is from before them",
            )
        if self.skipped:
            logger.warning("step %d is left out: its gradient is not finite", step)
        return not self.skipped

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=torch.bfloat16)  # bfloat16 needs no loss scaling

    def save(self, step: int) -> None:
        """Write the checkpoint, by the first process only, under a temporary name first."""
        if self.rank:
            return
        state = {
            "step": step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "skipped": self.skipped,
        }
        write_checkpoint(self.out, state)

    def load(self) -> int:
        """Load the checkpoint, if there is one; return its step."""
        state = read_checkpoint(self.out, self.device)
        if state is None:
            return 0
        try:
            self.network.load_state_dict(state["network"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise no_checkpoint(self.out, error) from error
        self.skipped = int(state.get("skipped", 0))  # checkpoints of before do not say
        return int(state["step"])

    def open_log(self, step: int) -> None:
        """Keep the log up to `step`; what a broken run wrote after its last checkpoint goes."""
        self.scalars = self.out / "scalars.jsonl"
        old = self.scalars.read_text("utf-8").splitlines() if self.scalars.exists() and step else []
        if not self.rank:
            self.scalars.write_text("".join(line + "\n" for line in old[:step]), "utf-8")
            self.board = SummaryWriter(str(self.out), purge_step=step)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Append one line."""
        if not self.rank:
            with self.scalars.open("a", encoding="utf-8") as stream:
                known = {n: v if np.isfinite(v) else None for n, v in scalars.items()}
                stream.write(json.dumps({"step": step, **known}) + "\n")
            for name, value in scalars.items():
                self.board.add_scalar(name, value, step)


def _of_prefix(values: dict[str, float], name: str, usual: float) -> float:
    """Return the value of the first prefix that a parameter's name begins with."""
    return next((value for prefix, value in values.items() if name.startswith(prefix)), usual)
