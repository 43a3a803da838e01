"""The cells of `ka2er bench amalgamation`, the most informative first.

Experts are needed by everything and come first; then the joint SwinUNETR and KA²ER with the first
seed, the simpler systems, further seeds, few labels, shifts and costs.  Stopping anywhere leaves
tables that say less, not other things.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.cells import Cell
from ka2er_training.bench.shifts import SHIFTS
from ka2er_training.bench.splits import Split, split_cases
from ka2er_training.bench.systems import (
    BASELINES,
    ENSEMBLE,
    EXPERTS,
    FEW_LABEL_SYSTEMS,
    HALF_EXPERTS,
    JOINT,
    KA2ER,
    LONG_SYSTEMS,
    SHIFT_SYSTEMS,
    TWICE_EXPERTS,
    VARIANTS,
    System,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ka2er_training.bench.settings import BenchSettings, TaskSettings

# Part of the schedule, for each kind of trained expert.
_SCHEDULES = {"half": 0.5, "trained": 1, "twice": 2}
OTHER_SERIES = "another series"
MODES = ("full", "sparse", "distilled")

# The mask decoder's kind: cells of clicks with an earlier one are not taken for today's.
_DECODER = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell and its place in the tables.

    Parameters
    ----------
    cell : Cell
        What to run.
    table : str
        ``"main"``, ``"clicks"``, ``"few"``, ``"long"``, ``"shift"`` or ``"cost"``.
    system, task : str
        Line and column.
    seed : int
        Of the student; 0 where there is none.
    column : str
        Name of the shift, number of labelled cases, or of steps; empty elsewhere.
    """

    cell: Cell
    table: str
    system: str
    task: str
    seed: int = 0
    column: str = ""


class Plan:
    """All cells of a benchmark.

    Parameters
    ----------
    settings : BenchSettings
        Tasks and budgets.
    names : mapping of str to sequence of str
        Per task, the names of all its cases.
    recipes : mapping
        Everything beside `settings` that decides what a training does: the presets' full records,
        plain data.  It enters the digests, so that a changed preset makes new cells.
    """

    def __init__(
        self,
        settings: BenchSettings,
        names: Mapping[str, Sequence[str]],
        recipes: Mapping[str, Any],
    ) -> None:
        self.settings, self.names, self.recipes = settings, names, recipes
        self.expert = cache(self._expert)
        self.student = cache(self._student)

    def split(self, task: TaskSettings, seed: int) -> Split:
        """Return the split of a task; of a task with folds, that of the seed."""
        return split_cases(self.names[task.name], task, seed)

    def entries(self) -> list[Entry]:
        """Return all entries in the order in which they should run."""
        seeds = self.settings.student.seeds
        first, later = seeds[0], seeds[1:]
        ordered = [
            *self._main((EXPERTS, JOINT, *KA2ER), first),
            *self._clicks(first),
            *self._main((*BASELINES, ENSEMBLE, HALF_EXPERTS, TWICE_EXPERTS), first),
        ]
        for seed in later:
            ordered += self._main((EXPERTS, JOINT, *KA2ER), seed)
        tables = (self._few, self._shifts, self._costs, self._long)
        return [*ordered, *(entry for table in tables for entry in table(first))]

    def cells(self) -> list[Cell]:
        """Return the wanted cells, most wanted first."""
        return [entry.cell for entry in self.entries()]

    def _expert(
        self, task: TaskSettings, seed: int, kind: str = "trained", n_cases: int | None = None
    ) -> Cell:
        """Return an expert's cell; `kind`: trained, half or twice (the schedule), untrained."""
        every, epochs = self.split(task, seed).train, self.settings.expert_epochs(task)
        cases = every[:n_cases]
        settings = {
            "recipe": self.settings.recipe,
            "task": task.name,
            "folder": task.folder,
            "spacing_mm": task.spacing_mm,
            "cases": cases,
            **asdict(self.settings.expert),
            "epochs": max(1, int(epochs * _SCHEDULES.get(kind, 1))),
            "preset_record": self.recipes["expert"],
        }
        fold = f" fold {seed % len(task.folds)}" if task.folds else ""
        schedule = f", {kind} the schedule" if kind in ("half", "twice") else ""
        limit = f", {len(cases)} labelled cases" if len(cases) < len(every) else ""
        trained = Cell("expert", f"expert {task.name}{fold}{schedule}{limit}", settings)
        if kind != "untrained":
            return trained
        return Cell("untrained", f"untrained expert {task.name}{fold}", {"seed": 0}, (trained,))

    def _student(
        self, variant: str, seed: int, n_labels: int | None = None, steps: int | None = None
    ) -> Cell:
        """Return a student's cell; `n_labels` limits the labelled cases per task."""
        how, budget = VARIANTS[variant], self.settings.student
        settings = {
            "recipe": self.settings.recipe,
            "variant": how.to_json(),
            "preset": budget.preset,
            "preset_record": self.recipes["student"],
            "steps": steps or (budget.steps if n_labels is None else budget.few_label_steps),
            "polish_steps": budget.polish_steps,
            "seed": seed,
            "tasks": {
                task.name: self._cases(task, seed, how.soft, n_labels) for task in self._tasks
            },
        }
        kinds = [kind for kind in ("trained", "untrained") if kind == how.experts]
        if how.soft and "trained" not in kinds:
            kinds.append("trained")
        needs = tuple(self.expert(task, seed, kind) for kind in kinds for task in self._tasks)
        other = "" if n_labels is None else f", {n_labels} labelled cases"
        other += f", {steps} steps" if steps else ""
        return Cell("student", f"student {variant} seed {seed}{other}", settings, needs)

    @property
    def _tasks(self) -> tuple[TaskSettings, ...]:
        return self.settings.tasks

    def _cases(
        self, task: TaskSettings, seed: int, soft: bool, n_labels: int | None
    ) -> dict[str, Any]:
        train = self.split(task, seed).train
        labelled = train[:n_labels]
        # Without soft targets an unlabelled image teaches nothing.
        unlabelled = train[len(labelled) :] if soft else ()
        place = {"folder": task.folder, "spacing_mm": task.spacing_mm}
        return {**place, "labelled": labelled, "unlabelled": unlabelled}

    def _evaluation(
        self, system: System, task: TaskSettings, seed: int, more: Mapping[str, Any]
    ) -> Cell:
        """Return the cell that measures a system; `more`: cases, change, n_labels, steps."""
        if system.mode == "expert":
            needs: tuple[Cell, ...] = (self.expert(task, seed, "trained", more.get("n_labels")),)
        elif system.mode in ("half expert", "twice expert"):
            needs = (self.expert(task, seed, system.mode.split()[0]),)
        elif system.mode == "ensemble":
            needs = tuple(self.expert(other, seed) for other in self._tasks)
        else:
            needs = (self.student(system.variant, seed, more.get("n_labels"), more.get("steps")),)
        settings = {
            "recipe": self.settings.recipe,
            "mode": system.mode,
            "task": task.name,
            "folder": task.folder,
            "cases": more.get("cases", self.split(task, seed).test),
            "change": more.get("change", ""),
        }
        where = f"{task.name} {settings['change']}".strip()
        other = f", {more['n_labels']} labelled cases" if "n_labels" in more else ""
        other += f", {more['steps']} steps" if "steps" in more else ""
        return Cell("evaluation", f"{system.name} on {where}, seed {seed}{other}", settings, needs)

    def _main(self, systems: Sequence[System], seed: int) -> Iterator[Entry]:
        for system in systems:
            for task in self._tasks:
                if system is EXPERTS and seed != self.settings.student.seeds[0] and not task.folds:
                    continue  # the same expert on the same cases
                if system is TWICE_EXPERTS and not task.twice:
                    continue
                cell = self._evaluation(system, task, seed, {})
                yield Entry(cell, "main", system.name, task.name, seed)

    def _clicks(self, seed: int) -> Iterator[Entry]:
        budget = self.settings.measurement
        taught = Cell(
            "prompts",
            f"prompts of student ka2er seed {seed}",
            {
                "recipe": self.settings.recipe,
                "decoder": _DECODER,
                "steps": self.settings.student.click_steps,
            },
            (self.student("ka2er", seed),),
        )
        for task in self._tasks:
            settings = {
                "recipe": self.settings.recipe,
                "task": task.name,
                "folder": task.folder,
                "cases": self.split(task, seed).test[: budget.click_cases],
                "clicks": budget.clicks,
                "mode": "sparse",
            }
            cell = Cell("clicks", f"clicks on {task.name}", settings, (taught,))
            yield Entry(cell, "clicks", "KA²ER sparse", task.name, seed)

    def _few(self, seed: int) -> Iterator[Entry]:
        for n_labels in self.settings.student.few_labels:
            for system in FEW_LABEL_SYSTEMS:
                for task in self._tasks:
                    cell = self._evaluation(system, task, seed, {"n_labels": n_labels})
                    yield Entry(cell, "few", system.name, task.name, seed, str(n_labels))

    def _long(self, seed: int) -> Iterator[Entry]:
        for steps in self.settings.student.long_steps:
            for system, task in product(LONG_SYSTEMS, self._tasks):
                cell = self._evaluation(system, task, seed, {"steps": steps})
                yield Entry(cell, "long", system.name, task.name, seed, str(steps))

    def _shifts(self, seed: int) -> Iterator[Entry]:
        for system, task in product(SHIFT_SYSTEMS, self._tasks):
            for column, more in self._shifted(task, seed).items():
                cell = self._evaluation(system, task, seed, more)
                yield Entry(cell, "shift", system.name, task.name, seed, column)

    def _shifted(self, task: TaskSettings, seed: int) -> dict[str, dict[str, Any]]:
        """Return, per column of the table of shifts, which cases and what is done to them."""
        split, limit = self.split(task, seed), self.settings.measurement.shift_cases
        columns = {name: {"cases": split.test[:limit], "change": name} for name in SHIFTS}
        if split.shifted:
            columns[OTHER_SERIES] = {"cases": split.shifted[:limit], "change": ""}
        return columns

    def _costs(self, seed: int) -> Iterator[Entry]:
        student = self.student("ka2er", seed)
        for task in self._tasks:
            settings = {
                "recipe": self.settings.recipe,
                "task": task.name,
                "folder": task.folder,
                "case": self.split(task, seed).test[0],
                "modes": MODES,
                "repeats": self.settings.measurement.cost_repeats,
            }
            cell = Cell("cost", f"cost of K experts on {task.name}", settings, (student,))
            yield Entry(cell, "cost", "KA²ER", task.name, seed)
