"""A job: a function of this package and plain data, run in some process, its result kept.

Only the name of the function and JSON travel; a job that has finished is known by its
``done.json``, whoever started it and whatever became of them.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit

from ka2er_training.gpus import VARIABLE
from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.errors import CancelledError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

DONE, PROGRESS = "done.json", "progress.json"
_PROGRESS_S = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Parameters
    ----------
    name : str
        For people and as a folder's name; no two jobs have the same.
    function : str
        ``"ka2er_training.module:function"``; it returns plain data.  It is told its progress and
        whether to resume if it has parameters ``progress`` and ``resume``.
    arguments : mapping
        Plain data, handed over by keyword.
    inputs : str
        Digest of whatever else decides the result, such as the training cases.
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the result."""
        text = json.dumps([self.function, self.arguments, self.inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job: its result, or why there is none.

    Parameters
    ----------
    name : str
        The job's.
    result : mapping or None
        What the function returned.
    reason : str
        Why it failed; empty if it did not.
    kept : bool
        Whether the result is that of an earlier run.
    """

    name: str
    result: dict[str, Any] | None = None
    reason: str = ""
    kept: bool = False


def kept_result(folder: Path, job: Job) -> dict[str, Any] | None:
    """Return the result of an earlier run of the same job with the same data, or None."""
    path = folder / job.name / DONE
    if not path.is_file():
        return None
    done = read_json(path)
    if done.get("digest") != job.digest:
        return None
    result: dict[str, Any] = done["result"]
    return result


class Call(submitit.helpers.Checkpointable):
    """What the job's process runs.

    Parameters
    ----------
    folder : str
        Folder of all jobs.
    job : mapping
        Name, function, arguments and digest of the job.
    resume : bool
        Whether to go on where a broken run stopped.
    gpus : str, optional
        The GPUs that it may use, as `ka2er_training.gpus.visible_gpus` names them; None: those that
        it finds.  submitit's local executor would give every job the same ones.
    """

    def __init__(
        self,
        folder: str,
        job: Mapping[str, Any],
        resume: bool,
        gpus: str | None = None,
    ) -> None:
        self.folder, self.job, self.resume, self.gpus = folder, dict(job), resume, gpus

    def __call__(self) -> dict[str, Any]:
        """Run the job; return its result, or a ``reason`` that a user can read."""
        home = Path(self.folder, self.job["name"])
        if self.gpus is not None:
            os.environ[VARIABLE] = self.gpus
        function = _function(self.job["function"])
        parameters = inspect.signature(function).parameters
        extra: dict[str, Any] = {}
        if "progress" in parameters:
            extra["progress"] = _Progress(home / PROGRESS)
        if "resume" in parameters:
            extra["resume"] = self.resume
        try:
            result = function(**self.job["arguments"], **extra)
        except (UserError, CancelledError) as error:
            return {"reason": str(error) or "stopped"}
        if result is not None:  # of several processes only the first has one
            write_json(home / DONE, {"digest": self.job["digest"], "result": result})
        return {"result": result}

    def checkpoint(self, *args: Any, **kwargs: Any) -> submitit.helpers.DelayedSubmission:
        """Return what is queued again when time is up: the same, which then resumes."""
        return submitit.helpers.DelayedSubmission(Call(self.folder, self.job, True, self.gpus))


class _Progress:
    """Write how far a job is and where it runs, about once a second; of several processes one."""

    def __init__(self, path: Path) -> None:
        self._path, self._last_s = path, 0.0
        self._place = {"host": platform.node(), "pid": os.getpid()}
        self._is_first = submitit.JobEnvironment().global_rank == 0

    def __call__(self, share: float, what: str) -> None:
        """Take a share and a line of text."""
        if self._is_first and (time.monotonic() - self._last_s >= _PROGRESS_S or share >= 1):
            self._last_s = time.monotonic()
            write_json(self._path, {"share": share, "what": what, **self._place})


def _function(name: str) -> Any:
    """Return a function of this package by ``module:name``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
