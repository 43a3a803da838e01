"""Where a round of `ka2er retrain` is: which stages are done, and what came of them.

``runs/round-NNNN/state.json`` is written after every stage, under a temporary name first; a stage
that is not in it is done again, from its own checkpoints.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import psutil

from ka2er_training.energy import EnergyMeter
from ka2er_training.plan import preset
from ka2er_training.presets import check_choice
from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.package import read_package
from napari_ka2er.model.config import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.package import Package

STAGES = (
    "ingest",
    "plan",
    "labels",
    "experts",
    "expert_gate",
    "student",
    "gate",
    "decide",
    "report",
)
RUNNING, PROMOTED, REFUSED, NOTHING = "running", "promoted", "refused", "nothing to train"
ABANDONED = "abandoned"
LOCK = "retrain"  # one round at a time in a workspace
_ROUND = re.compile(r"round-(\d{4})")
_LEAST = {
    "steps": 1,
    "polish_steps": 0,
    "click_steps": 0,
    "expert_epochs": 1,
    "checkpoint_every": 1,
    "seed": 0,
}


@dataclass(frozen=True, slots=True)
class RoundOptions:
    """What `ka2er retrain` was asked for.

    Parameters
    ----------
    preset : str or None
        The student's, ``"tiny"`` or ``"base"``; None: that of the student to go on from.
    from_scratch : bool
        Train everything anew, with full schedules, on the same data.
    steps, polish_steps, click_steps, expert_epochs : int or None
        Instead of the preset's share.
    checkpoint_every : int or None
        Steps; instead of the preset's.
    to_holdout : bool
        Whether cases of held-out patients may update the hold-out, and new patients found one.
    mode : str
        The student's mode in the gate.
    seed : int or None
        Of everything random; None: the number of the round.
    keep_going : bool
        Whether the student is trained even if an expert lost by the corrections.
    accept_labels : bool
        Whether all is trained even if the labels seem to belong to other images.
    """

    preset: str | None = None
    from_scratch: bool = False
    steps: int | None = None
    polish_steps: int | None = None
    click_steps: int | None = None
    expert_epochs: int | None = None
    checkpoint_every: int | None = None
    to_holdout: bool = False
    mode: Mode = "sparse"
    seed: int | None = None
    keep_going: bool = False
    accept_labels: bool = False

    def check(self) -> None:
        """Refuse what no round could be trained with; when it is read it need not be right.

        Raises
        ------
        UserError
            If a preset or mode is unknown, or a number out of its bounds.
        """
        if self.preset is not None:
            preset(self.preset)
        check_choice(self.mode, get_args(Mode), "mode")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < 2**32:
                raise UserError(f"{name} of at least {least}", f"{value}")


@dataclass(slots=True)
class RoundState:
    """One round.

    Parameters
    ----------
    number : int
        1 for the first.
    options : RoundOptions
        What was asked for.
    packages : list of dict
        ``path`` and ``digest`` of each.
    before : str
        The student that was current.
    started, finished : str
        ISO 8601; not finished: empty.
    status : str
        ``"running"``, ``"promoted"``, ``"refused"``, ``"nothing to train"`` or ``"abandoned"``.
    stages : dict
        Per finished stage: ``seconds``, ``cpu_s``, ``joules``, ``peak_mib``, ``result``; of a stage
        that was broken off, since it went on.
    """

    number: int
    options: RoundOptions
    packages: list[dict[str, str]]
    before: str
    started: str
    finished: str = ""
    status: str = RUNNING
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def save(self, workspace: Workspace) -> None:
        """Write it; the round exists from the first time on."""
        folder = round_folder(workspace, self.number)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "state.json", {"format": 1, **asdict(self)})

    def result(self, stage: str) -> dict[str, Any]:
        """Return what came of a finished stage."""
        found: dict[str, Any] = self.stages[stage]["result"]
        return found

    def outcome(self, stage: str) -> dict[str, Any]:
        """Return what came of a stage; nothing of one that was not done."""
        found: dict[str, Any] = self.stages.get(stage, {}).get("result", {})
        return found

    def run(self, workspace: Workspace, stage: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do a stage, unless it is done, and note what it cost."""
        if stage in self.stages:
            return
        started, cpu, energy = time.monotonic(), cpu_seconds(), EnergyMeter()
        result = work()
        self.stages[stage] = {
            "seconds": round(time.monotonic() - started, 2),
            "cpu_s": round(cpu_seconds() - cpu, 2),
            "joules": energy.joules(),
            "peak_mib": peak_mib(),
            "result": result,
        }
        self.save(workspace)


def round_folder(workspace: Workspace, number: int) -> Path:
    """Return the folder of a round."""
    return workspace.folder / "runs" / f"round-{number:04d}"


def options_of(workspace: Workspace, number: int) -> RoundOptions:
    """Return what a round was asked for; the defaults if it was not begun by `ka2er retrain`."""
    path = round_folder(workspace, number) / "state.json"
    return _read(path).options if path.is_file() else RoundOptions()


def new_round(
    workspace: Workspace, options: RoundOptions, packages: list[dict[str, str]], before: str
) -> RoundState:
    """Return the next round, written."""
    number = 1 + max((state.number for state in rounds(workspace)), default=0)
    state = RoundState(number, options, packages, before, now())
    state.save(workspace)
    return state


def rounds(workspace: Workspace) -> list[RoundState]:
    """Return all rounds, oldest first."""
    folders = sorted((workspace.folder / "runs").glob("round-*"))
    found = [folder / "state.json" for folder in folders if _ROUND.fullmatch(folder.name)]
    return [_read(path) for path in found if path.is_file()]


def unfinished(workspace: Workspace) -> RoundState | None:
    """Return the round that was broken off, if the last one was."""
    states = rounds(workspace)
    return states[-1] if states and states[-1].status == RUNNING else None


def refused_packages(workspace: Workspace) -> list[Path]:
    """Return the kept packages of refused and abandoned rounds of which a case still waits."""
    from ka2er_training.ledger import packages_folder

    states = [state for state in rounds(workspace) if state.status in (REFUSED, ABANDONED)]
    lost = {package["digest"]: state.number for state in states for package in state.packages}
    kept = {packages_folder(workspace, digest): number for digest, number in lost.items()}
    return [
        folder
        for folder, number in kept.items()
        if folder.is_dir() and _waits(workspace, read_package(folder), number)
    ]


def _waits(workspace: Workspace, package: Package, number: int) -> bool:
    """Return whether a round has withdrawn a case of a package that no later round has corrected.

    What it has corrected of the hold-out is not withdrawn.
    """
    known = {case["image"]: case for case in workspace.manifest(package.task.name)}
    entries = [known.get(case.content, {"split": "queued"}) for case in package.cases]
    return any(
        entry["split"] == "queued" or (entry.get("round") or 0) < number for entry in entries
    )


def _read(path: Path) -> RoundState:
    data = {key: value for key, value in read_json(path).items() if key != "format"}
    return RoundState(**{**data, "options": RoundOptions(**data["options"])})


def now() -> str:
    """Return the time as text."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cpu_seconds() -> float:
    """Return the processor time of this process and those it has started and seen end."""
    used = os.times()  # on Windows without other processes
    return used.user + used.system + used.children_user + used.children_system


def peak_mib() -> int:
    """Return the largest resident size so far of this process or one it has started.

    Where the system does not tell, on Windows, the present size of this one.
    """
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().rss / 2**20)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return round(max(one.ru_maxrss for one in used) / per_mib)
