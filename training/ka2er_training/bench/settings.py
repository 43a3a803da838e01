"""What the benchmark does: tasks, splits and budgets, read from TOML; unknown keys are refused.

The files of the names in `BUILTIN`, beside this one, run the same code.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from napari_ka2er.core.errors import UserError

Record = TypeVar("Record")
BUILTIN = ("small", "two_cores", "four_tasks", "full")


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """One task of the benchmark.

    Parameters
    ----------
    name : str
        Its name, and that of its folder among the data unless `folder` says otherwise.
    spacing_mm : tuple of float
        Spacing (Z, Y, X) of the student's grid.
    folder : str
        An nnU-Net raw data set.
    series : str
        Regular expression: the cases to train and test on begin with it.
    shifted_series : str
        Cases of another series, tested but never trained on; empty if there is none.
    patients : str
        ``"case"`` or ``"pairs"``, see `splits.patient_of`.
    same_patient : tuple of tuple of str
        Cases known to be of one patient.
    dropped : tuple of str
        Cases left out (exact copies of others).
    test_share : float
        Share of patients that are tested.
    folds : tuple of str
        If given, seed s tests only the s-th of these cases' patients and trains on all others; for
        data sets too small for a split.
    max_train, max_test : int or None
        Limits, in the order of the patients' hashes.
    expert_epochs : int or None
        Of this task's expert, if not those of all; tasks converge at different speeds.
    twice : bool
        Whether an expert with twice the epochs is measured too: has the first one converged?
    """

    name: str
    spacing_mm: tuple[float, float, float]
    folder: str = ""
    series: str = ""
    shifted_series: str = ""
    patients: str = "case"
    same_patient: tuple[tuple[str, ...], ...] = ()
    dropped: tuple[str, ...] = ()
    test_share: float = 0.2
    folds: tuple[str, ...] = ()
    max_train: int | None = None
    max_test: int | None = None
    expert_epochs: int | None = None
    twice: bool = False

    def __post_init__(self) -> None:
        if self.patients not in ("case", "pairs"):
            raise UserError(f"patients of {self.name}: case or pairs", repr(self.patients))
        if not 0 < self.test_share < 1:
            raise UserError(f"test_share of {self.name} between 0 and 1", f"{self.test_share}")
        object.__setattr__(self, "spacing_mm", tuple(float(v) for v in self.spacing_mm))
        object.__setattr__(self, "same_patient", tuple(tuple(g) for g in self.same_patient))
        object.__setattr__(self, "dropped", tuple(self.dropped))
        object.__setattr__(self, "folds", tuple(self.folds))
        object.__setattr__(self, "folder", self.folder or self.name)


@dataclass(frozen=True, slots=True)
class ExpertBudget:
    """How long experts are trained, and with which preset and loss."""

    preset: str = "tiny"
    loss: str = "dice_ce"
    epochs: int = 40


@dataclass(frozen=True, slots=True)
class StudentBudget:
    """How long students are trained.

    Parameters
    ----------
    preset : str
        Of `ka2er amalgamate`.
    steps : int
        Per student, the same for every system.
    few_label_steps : int
        Per student of the few-label table.
    long_steps : tuple of int
        Per student of the table of longer training, one or several lengths; may be empty.
    polish_steps, click_steps : int
        Of the gate's and of the prompts' training on the finished trunk.
    seeds : tuple of int
        For KA²ER and the joint SwinUNETR; the others get the first.
    few_labels : tuple of int
        Labelled cases per task in the few-label table.
    """

    preset: str = "tiny"
    steps: int = 800
    few_label_steps: int = 400
    long_steps: tuple[int, ...] = ()
    polish_steps: int = 300
    click_steps: int = 500
    seeds: tuple[int, ...] = (0, 1, 2)
    few_labels: tuple[int, ...] = (2, 6)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "few_labels", tuple(self.few_labels))
        object.__setattr__(self, "long_steps", tuple(self.long_steps))


@dataclass(frozen=True, slots=True)
class MeasurementBudget:
    """How much is measured.

    Parameters
    ----------
    shift_cases : int
        Test cases per task and synthetic shift.
    click_cases : int
        Test cases per task with simulated clicks.
    clicks : tuple of int
        Numbers of clicks after which Dice is noted.
    cost_repeats : int
        Repetitions per timing; tables show medians and ranges.
    """

    shift_cases: int = 10
    click_cases: int = 10
    clicks: tuple[int, ...] = (0, 1, 3, 5)
    cost_repeats: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "clicks", tuple(self.clicks))


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """The whole benchmark.

    Parameters
    ----------
    tasks : tuple of TaskSettings
        In the order of the student's outputs.
    expert, student, measurement
        Budgets.
    recipe : int
        Raised by hand when code changes what a cell means; part of every digest.
    """

    tasks: tuple[TaskSettings, ...]
    expert: ExpertBudget
    student: StudentBudget
    measurement: MeasurementBudget
    recipe: int = 1

    def task(self, name: str) -> TaskSettings:
        """Return a task's settings; KeyError if there is none."""
        return {task.name: task for task in self.tasks}[name]

    def expert_epochs(self, task: TaskSettings) -> int:
        """Return how long a task's expert is trained."""
        return self.expert.epochs if task.expert_epochs is None else task.expert_epochs

    def to_json(self) -> dict[str, Any]:
        """Return plain data, for reports."""
        return asdict(self)


def read_bench_settings(path: Path | str) -> BenchSettings:
    """Read settings from a TOML file, or those of a name in `BUILTIN`.

    Raises
    ------
    UserError
        If there is no such file, it is no TOML, or keys are unknown or values unusable.
    """
    path = Path(__file__).with_name(f"{path}.toml") if path in BUILTIN else Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"benchmark settings in {path}", f"{error}") from error
    tables = ("expert", "student", "measurement")
    unknown = sorted(set(data) - {*tables, "tasks", "recipe"})
    if unknown or not data.get("tasks"):
        known = f"tasks, {', '.join(tables)}, recipe in {path}"
        raise UserError(known, ", ".join(unknown) or "no tasks")
    tasks = tuple(
        build_record(TaskSettings, {"name": n, **t}, path) for n, t in data["tasks"].items()
    )
    return BenchSettings(
        tasks,
        build_record(ExpertBudget, data.get("expert", {}), path),
        build_record(StudentBudget, data.get("student", {}), path),
        build_record(MeasurementBudget, data.get("measurement", {}), path),
        data.get("recipe", 1),
    )


def build_record(kind: type[Record], table: dict[str, Any], path: Path) -> Record:
    """Build a record from a TOML table; unknown keys and unusable values are a `UserError`."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - known):
        raise UserError(f"keys {', '.join(sorted(known))} in {path}", ", ".join(unknown))
    try:
        return kind(**table)
    except (TypeError, ValueError) as error:
        raise UserError(f"a {kind.__name__} in {path}", f"{error}") from error
