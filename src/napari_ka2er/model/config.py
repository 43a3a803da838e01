"""What a student is made of, as plain numbers: enough to build it, safe to read from a stranger."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Task

# Strides of the student's levels at which experts are amalgamated, coarse ones as tokens
# (hierarchical attention) and fine ones as voxels (merging).
COARSE_STRIDES = (16, 8)
FINE_STRIDES = (4, 2, 1)
STRIDES = COARSE_STRIDES + FINE_STRIDES

Mode = Literal["full", "sparse", "distilled"]
# How experts enter: the hierarchical attention, or one of the benchmark's simpler systems.
Amalgamation = Literal["attention", "uniform", "bottleneck", "none"]


def has_shortcut(amalgamation: str) -> bool:
    """Return whether a new student of this kind has a shortcut: if it sees experts at stride 1."""
    return amalgamation in ("attention", "uniform")


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """A task as the student knows it.

    Parameters
    ----------
    task : Task
        Names and labels.
    spacing_mm : tuple of float
        Spacing (Z, Y, X) of the grid on which the student sees volumes of this task.
    window : tuple of int
        Window (Z, Y, X) in grid voxels, multiples of 32.
    extent_mm : tuple of float
        Median size (Z, Y, X) of the training volumes; tells whether a volume's field of view fits.
    intensity : dict
        Fingerprint of the training volumes' raw intensities, for ranking tasks; see
        `napari_ka2er.model.fingerprints`.
    """

    task: Task
    spacing_mm: tuple[float, float, float]
    window: tuple[int, int, int]
    extent_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    intensity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(n % 32 or n <= 0 for n in self.window):
            raise UserError("a window of multiples of 32", f"{self.window}")
        if any(not s > 0 for s in self.spacing_mm):
            raise UserError("a positive spacing in mm", f"{self.spacing_mm}")


@dataclass(frozen=True, slots=True)
class ExpertEntry:
    """An expert as the student knows it.

    Parameters
    ----------
    name : str
        The expert's task.
    digest : str
        Digest of the expert that the student was amalgamated with.
    stages : dict of int to int
        For each of the student's strides, the expert's decoder stage (0 is the finest) whose
        features are taken there.
    channels : dict of int to int
        For each of the student's strides, the number of channels of that stage.
    """

    name: str
    digest: str
    stages: dict[int, int]
    channels: dict[int, int]


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """The numbers that a student is built from.

    Parameters
    ----------
    tasks : tuple of TaskEntry
        All tasks; the student's outputs are their labels in this order.
    experts : tuple of ExpertEntry
        All experts; the null expert comes after the last and is not listed.
    feature_size : int
        SwinUNETR's feature size, a multiple of 12.
    attention_window : int
        Edge of Swin's attention window in tokens.
    use_v2 : bool
        Whether Swin stages begin with a residual convolution (SwinUNETR-V2).
    width : int
        Width d of tokens in the amalgamation and of gold features.
    heads : int
        Attention heads, a divisor of `width`.
    dense_width : int
        Channels of the dense embedding F.
    merge_width : int
        Channels into which each expert's features are projected at the fine levels.
    amalgamation : str
        ``"attention"``; ``"uniform"``, ``"bottleneck"`` and ``"none"`` are the benchmark's simpler
        systems.
    sparse_threshold : float
        In sparse mode an expert runs in a tile if its mean weight there is at least this.
    shortcut : bool
        Whether the experts' own logits are added to the student's; see
        `napari_ka2er.model.shortcut`.  Students made before there was one have none.
    """

    tasks: tuple[TaskEntry, ...]
    experts: tuple[ExpertEntry, ...]
    feature_size: int = 12
    attention_window: int = 4
    use_v2: bool = False
    width: int = 48
    heads: int = 4
    dense_width: int = 32
    merge_width: int = 12
    amalgamation: Amalgamation = "attention"
    sparse_threshold: float = 0.1
    shortcut: bool = False

    @property
    def n_outputs(self) -> int:
        """Number of labels of all tasks."""
        return sum(len(entry.task.labels) for entry in self.tasks)

    def entry(self, task: str) -> TaskEntry:
        """Return the entry of a task.

        Raises
        ------
        UserError
            If the student does not know it.
        """
        for entry in self.tasks:
            if entry.task.name == task:
                return entry
        known = ", ".join(entry.task.name for entry in self.tasks)
        raise UserError(f"one of the student's tasks ({known})", repr(task))

    def outputs(self, task: str) -> range:
        """Return the indices of a task's labels among the outputs."""
        self.entry(task)
        first = 0
        for entry in self.tasks:
            if entry.task.name == task:
                break
            first += len(entry.task.labels)
        return range(first, first + len(entry.task.labels))

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StudentConfig:
        """Build a configuration from what `to_json` returned, also after a trip through JSON.

        Raises
        ------
        UserError
            If keys are missing or unknown.
        """
        try:
            tasks = tuple(_task_entry(entry) for entry in data["tasks"])
            experts = tuple(_expert_entry(entry) for entry in data["experts"])
            return cls(**{**data, "tasks": tasks, "experts": experts})
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError("a student's configuration", f"{error}") from error


def _task_entry(data: dict[str, Any]) -> TaskEntry:
    triples = {key: tuple(data[key]) for key in ("spacing_mm", "window", "extent_mm")}
    return TaskEntry(**{**data, **triples, "task": Task.from_json(data["task"])})


def _expert_entry(data: dict[str, Any]) -> ExpertEntry:
    tables = {key: {int(k): v for k, v in data[key].items()} for key in ("stages", "channels")}
    return ExpertEntry(**{**data, **tables})
