"""What `ka2er bench loop` does: tasks, budgets, rounds and controls, read from TOML.

``loop_small.toml``, ``loop_two_cores.toml`` and ``loop_full.toml`` beside this file run the same
code; unknown keys are refused.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.settings import TaskSettings, build_record
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

BUILTIN = ("small", "two_cores", "full")
DAMAGES = ("shuffled", "shifted", "emptied")


@dataclass(frozen=True, slots=True)
class StartTask:
    """How many labelled cases a task begins with, and how long its expert is trained on them."""

    cases: int
    epochs: int = 40

    def __post_init__(self) -> None:
        if self.cases < 1 or self.epochs < 1:
            raise UserError("cases and epochs of at least 1 in [start]", f"{self}")


@dataclass(frozen=True, slots=True)
class ExpertKind:
    """With which preset and loss experts are trained."""

    preset: str = "tiny"
    loss: str = "dice_ce"


@dataclass(frozen=True, slots=True)
class StartBudget:
    """How long the first student is trained; a student from scratch gets the same."""

    preset: str = "tiny"
    steps: int = 800
    polish_steps: int = 200
    click_steps: int = 300
    sparse_threshold: float = 0.1


@dataclass(frozen=True, slots=True)
class AnnotationBudget:
    """What the simulated annotator is given.

    Parameters
    ----------
    rounds, cases_per_round : int
        Rounds, and new cases that are corrected in each.
    n_clicks, n_strokes : int
        At most so many of each on a case.
    slices : int
        Slices per case in the arm with partial review.
    candidates : int
        New cases among which the order by disagreement may choose.
    """

    rounds: int = 3
    cases_per_round: int = 8
    n_clicks: int = 10
    n_strokes: int = 150
    slices: int = 3
    candidates: int = 40


@dataclass(frozen=True, slots=True)
class RetrainBudget:
    """How long a round trains, and at which rates.

    Parameters
    ----------
    expert_epochs, steps, polish_steps, click_steps : int
        As in `RoundOptions`.
    expert_rate, student_rate : float
        As in `RetrainSettings`.
    """

    expert_epochs: int = 10
    steps: int = 120
    polish_steps: int = 30
    click_steps: int = 60
    expert_rate: float = 0.3
    student_rate: float = 0.3

    def lengths(self) -> dict[str, Any]:
        """Return the fields that `RoundOptions` has."""
        return {k: v for k, v in asdict(self).items() if not k.endswith("_rate")}

    def rates(self) -> dict[str, float]:
        """Return the fields that `RetrainSettings` has."""
        return {k: v for k, v in asdict(self).items() if k.endswith("_rate")}


@dataclass(frozen=True, slots=True)
class ControlBudget:
    """How many damaged packages are tried, in turn shuffled, shifted and emptied.

    Parameters
    ----------
    packages : int
        How many through a round as it is.
    accepted : int
        How many more with their labels accepted, to see what the gates say to them.
    """

    packages: int = 20
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class LoopMeasurement:
    """How much is measured on the hold-out beside Dice.

    Parameters
    ----------
    click_cases : int
        Hold-out cases of the corrected task on which clicks are counted.
    n_clicks : int
        Clicks per label at most; a label that is not good by then counts as one more.
    good_dice : float
        What is good.
    """

    click_cases: int = 10
    n_clicks: int = 10
    good_dice: float = 0.9


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """The whole benchmark.

    Parameters
    ----------
    tasks : tuple of TaskSettings
        In the order of the student's outputs.
    corrected : str
        The task whose masks are corrected.
    start : mapping of str to StartTask
        What the first experts and the first student are trained on.
    expert, student, annotation, retrain, controls, measurement
        Budgets.
    seeds : tuple of int
        The whole loop is run once for each.
    recipe : int
        Raised by hand when code changes what a cell means; part of every digest.
    """

    tasks: tuple[TaskSettings, ...]
    corrected: str
    start: Mapping[str, StartTask]
    expert: ExpertKind = field(default_factory=ExpertKind)
    student: StartBudget = field(default_factory=StartBudget)
    annotation: AnnotationBudget = field(default_factory=AnnotationBudget)
    retrain: RetrainBudget = field(default_factory=RetrainBudget)
    controls: ControlBudget = field(default_factory=ControlBudget)
    measurement: LoopMeasurement = field(default_factory=LoopMeasurement)
    seeds: tuple[int, ...] = (0,)
    recipe: int = 1

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if self.corrected not in names:
            raise UserError(f"corrected: one of {', '.join(names)}", repr(self.corrected))
        if set(self.start) != set(names):
            raise UserError(f"[start.TASK] for {', '.join(names)}", ", ".join(self.start) or "none")
        object.__setattr__(self, "seeds", tuple(self.seeds))

    def task(self, name: str) -> TaskSettings:
        """Return a task's settings; KeyError if there is none."""
        return {task.name: task for task in self.tasks}[name]


_TABLES: Mapping[str, Any] = {
    "expert": ExpertKind,
    "student": StartBudget,
    "annotation": AnnotationBudget,
    "retrain": RetrainBudget,
    "controls": ControlBudget,
    "measurement": LoopMeasurement,
}


def read_loop_settings(path: Path | str) -> LoopSettings:
    """Read settings from a TOML file, or ``"small"``, ``"two_cores"`` or ``"full"``.

    Raises
    ------
    UserError
        If there is no such file, it is no TOML, or keys are unknown or values unusable.
    """
    path = Path(__file__).with_name(f"loop_{path}.toml") if path in BUILTIN else Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"benchmark settings in {path}", f"{error}") from error
    tables = {name: data.pop(name, {}) for name in ("tasks", *_TABLES)}
    tasks = tuple(
        build_record(TaskSettings, {"name": n, **t}, path) for n, t in tables.pop("tasks").items()
    )
    start = {n: build_record(StartTask, t, path) for n, t in data.pop("start", {}).items()}
    budgets = {name: build_record(_TABLES[name], table, path) for name, table in tables.items()}
    return build_record(LoopSettings, {"tasks": tasks, "start": start, **budgets, **data}, path)
