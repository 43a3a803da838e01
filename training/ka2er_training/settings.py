"""What `ka2er.toml` says: frozen records, every key known, every value checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import tomli_w

from ka2er_training.executor_settings import ExecutorSettings
from ka2er_training.presets import LOSSES, PRESETS, Preset, check_choice, check_number, is_number
from ka2er_training.retrain_settings import RetrainSettings
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
# To a loss in distilled mode, see `GateSettings`.
DISTILLED_ANSWERS = ("warn", "refuse", "skip")

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class ExpertDefaults:
    """What `ka2er expert train` takes when nothing is said."""

    preset: str = "tiny"
    loss: str = "dice_ce"

    def __post_init__(self) -> None:
        check_choice(self.preset, tuple(PRESETS), "preset")
        check_choice(self.loss, LOSSES, "loss")


@dataclass(frozen=True, slots=True)
class HoldoutSettings:
    """Which share of a task's patients is held out, and the salt of the hash that picks them."""

    share: float = 0.2
    salt: str = "ka2er"

    def __post_init__(self) -> None:
        check_number(self.share, 0.0, 0.9, "share of [holdout]")
        if not isinstance(self.salt, str):
            raise UserError("a text as salt of [holdout]", repr(self.salt))


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How much Dice a task may lose before a new student is refused, and how sure that must be.

    Parameters
    ----------
    margin : float
        The lower bound of a task's change may not fall further than this.
    confidence : float
        Of the two-sided interval whose lower end that is.
    resamples : int
        Of the bootstrap.
    distilled : str
        What a loss in distilled mode leads to, where no expert runs and the gate does not look
        otherwise: ``"warn"``, ``"refuse"``, or ``"skip"`` not to look.
    """

    margin: float = 0.01
    confidence: float = 0.95
    resamples: int = 10_000
    distilled: str = "warn"

    def __post_init__(self) -> None:
        check_number(self.margin, 0.0, 1.0, "margin of [gate]")
        check_number(self.confidence, 0.5, 0.9999, "confidence of [gate]")
        check_number(self.resamples, 100, 1_000_000, "resamples of [gate]")
        check_choice(self.distilled, DISTILLED_ANSWERS, "distilled of [gate]")
        if type(self.resamples) is not int:
            raise UserError("a whole number as resamples of [gate]", repr(self.resamples))


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task of a workspace.

    Parameters
    ----------
    task : Task
        Name, labels, modality.
    spacing_mm : tuple of float
        Spacing of the student's grid, (Z, Y, X), axes as the image files store them.
    dataset : str
        Name of its folder in ``datasets/``.
    kind : str
        What it was added from: ``"nnunet"``, ``"msd"`` or ``"folders"``.
    licence, source : str
        Of the data, as far as known; they end up in the student's card.
    patient : str
        Regular expression whose first group (or whole match) in a case id is the patient; empty:
        every case is a patient.
    """

    task: Task
    spacing_mm: tuple[float, float, float]
    dataset: str
    kind: str = "nnunet"
    licence: str = ""
    source: str = ""
    patient: str = ""

    def __post_init__(self) -> None:
        if len(self.spacing_mm) != 3 or any(
            not is_number(s) or not 0 < s < 1e4 for s in self.spacing_mm
        ):
            raise UserError(
                f"spacing_mm of task {self.task.name}: three lengths above 0", f"{self.spacing_mm}"
            )
        texts = (self.dataset, self.kind, self.licence, self.source, self.patient)
        if not all(isinstance(text, str) for text in texts) or not self.dataset:
            raise UserError(f"texts in task {self.task.name}", f"{texts}")

    def to_table(self) -> dict[str, Any]:
        """Return what stands in ``[tasks.NAME]``."""
        table = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name != "task"
        }
        task = {key: value for key, value in self.task.to_json().items() if key != "name"}
        return {
            **table,
            "spacing_mm": list(self.spacing_mm),
            **task,
            "labels": list(task["labels"]),
        }

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> TaskRecord:
        """Build a record from what `to_table` returned; unknown keys are refused."""
        own = {item.name for item in fields(cls)} - {"task"}
        rest = {key: value for key, value in table.items() if key not in own}
        known = {key: value for key, value in table.items() if key in own}
        try:
            task = Task.from_json({"name": name, **rest})
            return cls(task=task, **{**known, "spacing_mm": tuple(known["spacing_mm"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"a complete table [tasks.{name}]", f"{error}") from error


@dataclass(frozen=True, slots=True)
class Settings:
    """All of ``ka2er.toml``."""

    expert: ExpertDefaults = field(default_factory=ExpertDefaults)
    holdout: HoldoutSettings = field(default_factory=HoldoutSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    executor: ExecutorSettings = field(default_factory=ExecutorSettings)
    presets: Mapping[str, Preset] = field(default_factory=lambda: dict(PRESETS))
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)


def read_settings(path: Path) -> Settings:
    """Return what a ``ka2er.toml`` says.

    Raises
    ------
    UserError
        If the file is missing, is no UTF-8 or no TOML, has an unknown key or an unusable value.
    """
    try:
        return parse_settings(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            "a workspace (a folder with ka2er.toml)", f"{path.parent}", "ka2er init makes one"
        ) from error
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"a usable {path}", f"this: {error}") from error


def parse_settings(text: str) -> Settings:
    """Return what the text of a ``ka2er.toml`` says."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError("TOML", f"{error}") from error
    _refuse_unknown(table, {"format", *(item.name for item in fields(Settings))}, "ka2er.toml")
    if table.pop("format", None) != FORMAT:
        raise UserError(
            f"format = {FORMAT}", "another one or none", "use the version of ka2er that wrote it"
        )
    _refuse_unknown(table.get("presets", {}), set(PRESETS), "[presets]")
    tasks = table.get("tasks", {})
    _require_tables(tasks)
    return Settings(
        expert=_build(ExpertDefaults, table, "expert"),
        holdout=_build(HoldoutSettings, table, "holdout"),
        gate=_build(GateSettings, table, "gate"),
        retrain=_build(RetrainSettings, table, "retrain"),
        executor=_build(ExecutorSettings, table, "executor"),
        presets={name: _override(name, table.get("presets", {}).get(name, {})) for name in PRESETS},
        tasks={name: TaskRecord.from_table(name, part) for name, part in tasks.items()},
    )


def new_text(settings: Settings) -> str:
    """Return the text of a new ``ka2er.toml`` without tasks."""
    names = ("expert", "holdout", "gate", "retrain", "executor")
    parts = {name: getattr(settings, name) for name in names}
    tables = {
        name: {item.name: getattr(part, item.name) for item in fields(part)}
        for name, part in parts.items()
    }
    return tomli_w.dumps({"format": FORMAT, **tables})


def with_task(text: str, record: TaskRecord) -> str:
    """Return the text of a ``ka2er.toml`` with one more task at its end; comments stay."""
    table = tomli_w.dumps({"tasks": {record.task.name: record.to_table()}})
    text = f"{text.rstrip()}\n\n{table}"
    parse_settings(text)
    return text


def _build(kind: type[Record], table: Mapping[str, Any], name: str) -> Record:
    """Build one frozen record from a sub-table."""
    part = table.get(name, {})
    _refuse_unknown(part, {item.name for item in fields(kind)}, f"[{name}]")  # type: ignore[arg-type]
    return kind(**part)


def _override(name: str, table: Mapping[str, Any]) -> Preset:
    """Return a preset with the user's own values."""
    _refuse_unknown(table, {item.name for item in fields(Preset)} - {"plans"}, f"[presets.{name}]")
    return replace(PRESETS[name], **table)


def _require_tables(tasks: object) -> None:
    """Refuse tasks that are no tables."""
    if not isinstance(tasks, dict) or not all(isinstance(part, dict) for part in tasks.values()):
        raise UserError("tables [tasks.NAME]", repr(tasks))


def _refuse_unknown(table: object, known: set[str], where: str) -> None:
    """Refuse keys nobody reads: a misspelt one would silently do nothing."""
    if not isinstance(table, dict):
        raise UserError(f"a table {where}", repr(table))
    if unknown := sorted(set(table) - known):
        raise UserError(f"keys of {where}: {', '.join(sorted(known))}", f"{', '.join(unknown)}")
