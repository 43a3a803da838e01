"""The cells of `ka2er bench loop`, the most informative first.

The start, our rounds with what they are worth, a damaged package of each kind, partial review,
the order of cases, corrections only, the same data from scratch, then the other damaged packages.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.cells import Cell
from ka2er_training.bench.loop_cases import for_round, loop_cases
from ka2er_training.bench.loop_entries import (
    ACCEPTED,
    DISPUTED,
    NO_CHANGE,
    ONLY,
    OURS,
    PARTIAL,
    SCRATCH,
    WHOLE,
    LoopEntry,
)
from ka2er_training.bench.loop_settings import DAMAGES
from ka2er_training.bench.splits import patient_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ka2er_training.bench.loop_settings import LoopSettings

MODE = "sparse"


class LoopPlan:
    """All cells of the loop.

    Parameters
    ----------
    settings : LoopSettings
        Tasks and budgets.
    names : mapping of str to sequence of str
        Per task, the names of all its cases.
    recipes : mapping
        All numbers of the presets, plain data; see `ka2er_training.bench.amalgamation.Plan`.
    """

    def __init__(
        self,
        settings: LoopSettings,
        names: Mapping[str, Sequence[str]],
        recipes: Mapping[str, Any],
    ) -> None:
        self.settings, self.recipes = settings, recipes
        self.task = settings.task(settings.corrected)
        self.cases = {
            task.name: loop_cases(names[task.name], task, settings.start[task.name].cases)
            for task in settings.tasks
        }
        self.start = cache(self._start)

    def entries(self) -> list[LoopEntry]:
        """Return all entries in the order in which they should run."""
        return [entry for seed in self.settings.seeds for entry in self._of_seed(seed)]

    def cells(self) -> list[Cell]:
        """Return the wanted cells, most wanted first."""
        return [entry.cell for entry in self.entries()]

    def _of_seed(self, seed: int) -> Iterator[LoopEntry]:
        start = self.start(seed)
        yield LoopEntry(start, "state", NO_CHANGE, 0, seed)
        yield LoopEntry(self._measure(start, seed, 0, NO_CHANGE), "measure", NO_CHANGE, 0, seed)
        annotations = list[Cell]()
        for entry in self._rounds(start, seed, OURS):
            annotations += [entry.cell] if entry.table == "annotation" else []
            yield entry
        yield self._copy(start, seed)
        controls = list(self._controls(start, annotations[0], seed))
        yield from controls[: len(DAMAGES)]  # one of each before the other arms, the rest after
        yield from self._whole(seed)
        yield from self._partial(start, seed)
        yield from self._disputed(start, seed)
        yield from self._rounds(start, seed, ONLY)
        yield from self._from_scratch(start, annotations, seed)
        yield from controls[len(DAMAGES) :]

    def _copy(self, start: Cell, seed: int) -> LoopEntry:
        settings = {"recipe": self.settings.recipe, "task": self.task.name}
        cell = Cell("copy", f"copy of a hold-out case, seed {seed}", settings, (start,))
        return LoopEntry(cell, "copy", "copy", 0, seed)

    def _from_scratch(
        self, start: Cell, annotations: Sequence[Cell], seed: int
    ) -> Iterator[LoopEntry]:
        """Yield everything trained anew once, after the last round: the most expensive cell."""
        scratch, last = self._scratch(start, annotations, seed), len(annotations)
        yield LoopEntry(scratch, "state", SCRATCH, last, seed)
        yield LoopEntry(self._measure(scratch, seed, last, SCRATCH), "measure", SCRATCH, last, seed)

    def _rounds(self, start: Cell, seed: int, arm: str) -> Iterator[LoopEntry]:
        """Yield the rounds of an arm, each with its own annotation of its own student's masks."""
        state = start
        for number in range(1, self.settings.annotation.rounds + 1):
            cases = for_round(self._new, number, self.settings.annotation.cases_per_round)
            work = self._annotation(state, cases, seed, f"round {number}, {arm}")
            yield LoopEntry(work, "annotation", arm, number, seed)
            state = self._round(state, work, seed, f"round {number}, {arm}", replay=arm != ONLY)
            yield LoopEntry(state, "state", arm, number, seed)
            measure = self._measure(state, seed, number, arm)
            yield LoopEntry(measure, "measure", arm, number, seed)

    def _whole(self, seed: int) -> Iterator[LoopEntry]:
        """Yield the measuring of our first candidate; copied if it is the current student."""
        start = self.start(seed)
        entries = list(self._rounds(start, seed, OURS))
        state, measured = (
            next(e.cell for e in entries if e.table == table) for table in ("state", "measure")
        )
        cell = self._measure(state, seed, 1, WHOLE, measured)
        yield LoopEntry(cell, "measure", WHOLE, 1, seed)

    def _partial(self, start: Cell, seed: int) -> Iterator[LoopEntry]:
        """Yield the first round once more, with some slices of each case instead of all."""
        cases = for_round(self._new, 1, self.settings.annotation.cases_per_round)
        slices = self.settings.annotation.slices
        work = self._annotation(start, cases, seed, PARTIAL, slices=slices, n_clicks=0)
        yield from self._one_round(start, work, seed, PARTIAL)

    def _disputed(self, start: Cell, seed: int) -> Iterator[LoopEntry]:
        """Yield the first round once more, with the cases that student and expert dispute most."""
        budget = self.settings.annotation
        settings = {
            "recipe": self.settings.recipe,
            "task": self.task.name,
            "folder": self.task.folder,
            "candidates": self._new[: budget.candidates],
            "n": budget.cases_per_round,
            "mode": MODE,
        }
        order = Cell("order", f"order by disagreement, seed {seed}", settings, (start,))
        yield LoopEntry(order, "order", DISPUTED, 1, seed)
        candidates = self._new[: budget.candidates]
        work = self._annotation(start, candidates, seed, DISPUTED, order=order)
        yield from self._one_round(start, work, seed, DISPUTED)

    def _one_round(self, start: Cell, work: Cell, seed: int, arm: str) -> Iterator[LoopEntry]:
        yield LoopEntry(work, "annotation", arm, 1, seed)
        state = self._round(start, work, seed, f"round 1, {arm}")
        yield LoopEntry(state, "state", arm, 1, seed)
        yield LoopEntry(self._measure(state, seed, 1, arm), "measure", arm, 1, seed)

    def _controls(self, start: Cell, good: Cell, seed: int) -> Iterator[LoopEntry]:
        """Yield the damaged packages, and some of them once more with their labels accepted."""
        for number in range(self.settings.controls.packages):
            yield self._control(start, good, seed, number)
        for number in range(self.settings.controls.accepted):
            yield self._control(start, good, seed, number, accepted=True)

    def _control(
        self, start: Cell, good: Cell, seed: int, number: int, *, accepted: bool = False
    ) -> LoopEntry:
        damage = DAMAGES[number % len(DAMAGES)]
        arm = f"{damage}{ACCEPTED if accepted else ''}"
        settings = {**self._round_settings(seed, replay=True), "damage": damage}
        settings |= {"package_seed": number, **({"accept_labels": True} if accepted else {})}
        cell = Cell("control", f"control {number + 1}, {arm}, seed {seed}", settings, (start, good))
        return LoopEntry(cell, "control", arm, 1, seed)

    def _start(self, seed: int) -> Cell:
        experts = Cell("experts", f"experts, seed {seed}", self._start_settings(seed))
        settings = {**experts.settings, **self._student_settings()}
        return Cell("start", f"start, seed {seed}", settings, (experts,))

    def _student_settings(self) -> dict[str, Any]:
        student = asdict(self.settings.student)
        return {"student": student, "student_record": self.recipes["student"]}

    def _start_settings(self, seed: int) -> dict[str, Any]:
        tasks = {
            task.name: {
                "split": asdict(task),
                "epochs": self.settings.start[task.name].epochs,
                "start": self.cases[task.name].start,
                "holdout": self.cases[task.name].holdout,
            }
            for task in self.settings.tasks
        }
        return {
            "recipe": self.settings.recipe,
            "seed": seed,
            "corrected": self.settings.corrected,
            "tasks": tasks,
            "expert": asdict(self.settings.expert),
            "expert_record": self.recipes["expert"],
        }

    def _scratch(self, start: Cell, annotations: Sequence[Cell], seed: int) -> Cell:
        """Return the cell that trains everything anew, with the start's budget, on all data."""
        needs = (start, *annotations)
        return Cell("scratch", f"from scratch, seed {seed}", dict(start.settings), needs)

    def _annotation(
        self,
        state: Cell,
        cases: Sequence[str],
        seed: int,
        name: str,
        *,
        slices: int = 0,
        n_clicks: int | None = None,
        order: Cell | None = None,
    ) -> Cell:
        budget = self.settings.annotation
        settings = {
            "recipe": self.settings.recipe,
            "task": self.task.name,
            "folder": self.task.folder,
            "cases": cases,
            "patients": {case: patient_of(case, self.task) for case in cases},
            "n_clicks": budget.n_clicks if n_clicks is None else n_clicks,
            "n_strokes": budget.n_strokes,
            "slices": slices,
            "mode": MODE,
        }
        needs = (state,) if order is None else (state, order)
        return Cell("annotation", f"annotation, {name}, seed {seed}", settings, needs)

    def _round(self, state: Cell, work: Cell, seed: int, name: str, *, replay: bool = True) -> Cell:
        settings = self._round_settings(seed, replay=replay)
        return Cell("round", f"{name}, seed {seed}", settings, (state, work))

    def _round_settings(self, seed: int, *, replay: bool) -> dict[str, Any]:
        return {
            "recipe": self.settings.recipe,
            "seed": seed,
            "replay": replay,
            "budget": asdict(self.settings.retrain),
        }

    def _measure(self, state: Cell, seed: int, number: int, arm: str, *more: Cell) -> Cell:
        budget = self.settings.measurement
        settings = {
            "recipe": self.settings.recipe,
            # What the loop gives its user is the current student; what an arm has learned is in
            # the candidate, whether the gate has let it through or not.
            "which": "current" if arm in (OURS, NO_CHANGE, SCRATCH) else "candidate",
            "mode": MODE,
            "task": self.task.name,
            "click_cases": budget.click_cases,
            "n_clicks": budget.n_clicks if arm in (OURS, NO_CHANGE, SCRATCH) else 0,
        }
        return Cell(
            "measure", f"measure {arm}, round {number}, seed {seed}", settings, (state, *more)
        )

    @property
    def _new(self) -> tuple[str, ...]:
        return self.cases[self.task.name].new
