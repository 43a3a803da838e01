"""Go on amalgamating from the current student: the same sizes, a short schedule, all tasks.

What stays as it is, and why: the experts' standardisers, also of a retrained expert, since the
layers behind them were trained for these scales and its features have moved little; windows and
fingerprints of the tasks, which decide the grid.  What is measured about that: docs/retraining.md.
"""

from __future__ import annotations

import dataclasses
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ka2er_training.amalgamate import amalgamate, prepare_cases, train_student
from ka2er_training.calibration import open_shortcut
from ka2er_training.click_work import train_clicks
from ka2er_training.distributed import first_alone
from ka2er_training.plan import preset
from ka2er_training.polish import polish
from ka2er_training.recipe import Ingredients, Recipe, recipe_for
from ka2er_training.teaching import lasting
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ka2er_training.retrain_settings import RetrainSettings
    from ka2er_training.schedule import Schedule
    from napari_ka2er.model.experts import Expert

    Progress = Callable[[float, str], None]


def warm_recipe(
    settings: RetrainSettings,
    name: str,
    seed: int,
    steps: Mapping[str, int | None],
    habits: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe of a round.

    Everything that helps an untrained student over its first steps is left out: foreground
    weights, the hinge against collapse, full mode first, and the loss that leads images to their
    own expert.  The last would go on sharpening the routing in every round, of all tasks, until
    experts fall under `sparse_threshold` and are not run where they used to be.

    Parameters
    ----------
    settings : RetrainSettings
        Shares of length and rate.
    name : str
        Preset, ``"tiny"`` or ``"base"``.
    seed : int
        Of everything random.
    steps : mapping
        ``trunk``, ``polish``, ``clicks``: steps instead of the shares; None: the share.
    habits : mapping, optional
        Fields of `Teaching` that the student to go on from was taught with, see `kept_habits`.
    """
    sizes = preset(name)
    parts = {"schedule": "trunk", "polish": "polish", "clicks": "clicks"}
    schedules: dict[str, Any] = {
        part: _shorter(getattr(sizes, part), settings, steps.get(key))
        for part, key in parts.items()
    }
    recipe = recipe_for(dataclasses.replace(sizes, **schedules), seed, **(habits or {}))
    teaching = dataclasses.replace(
        recipe.teaching,
        mixed_from=0.0,
        positive_weight=1.0,
        collapse=0.0,
        routing=0.0,
    )
    return dataclasses.replace(recipe, teaching=teaching)


def _shorter(schedule: Schedule, settings: RetrainSettings, steps: int | None) -> Schedule:
    wanted = max(1, round(schedule.steps * settings.student_share)) if steps is None else steps
    return dataclasses.replace(
        schedule,
        steps=wanted,
        learning_rate=schedule.learning_rate * settings.student_rate,
        warm_up=min(schedule.warm_up, max(1, wanted // 8)),
    )


def warm_student(parent: Student, experts: Sequence[Expert]) -> Student:
    """Return a copy of a student that names these experts.

    All weights are the parent's, but for the last layers of experts that are others now: those of
    the same experts were trained on with the trunk, and would only have to be learnt again.

    Raises
    ------
    UserError
        If an expert has other stages or channels: it is no retrained one, but another network.
    """
    entries = []
    for entry, expert in zip(parent.config.experts, experts, strict=True):
        channels = {s: int(expert.stage_channels[stage]) for s, stage in entry.stages.items()}
        if channels != entry.channels:
            wanted = f"the expert {entry.name} with the channels the student knows"
            raise UserError(wanted, "another network", "run ka2er amalgamate")
        entries.append(dataclasses.replace(entry, digest=expert.digest))
    student = Student(dataclasses.replace(parent.config, experts=tuple(entries)))
    student.load_state_dict(parent.state_dict())
    digests = [entry.digest for entry in parent.config.experts]
    changed = {k for k, expert in enumerate(experts) if expert.digest != digests[k]}
    open_shortcut(student, experts, gain=None, which=changed)
    return student


def reamalgamate(
    parent: Student,
    ingredients: Ingredients,
    recipe: Recipe,
    out: Path,
    cache: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Student, dict[str, Any]]:
    """Train the parent on: trunk, polish, clicks; goes on from the checkpoints in `out`.

    Parameters
    ----------
    parent : Student
        Not changed.
    ingredients : Ingredients
        As `round_ingredients` returns them.
    recipe : Recipe
        As `warm_recipe` returns it.
    out, cache : Path
        Folder of checkpoints and logs; folder of features.
    device, progress, cancelled
        See `ka2er_training.loop.train`.

    Returns
    -------
    student : Student
        The candidate.
    notes : dict
        Steps and seconds per part.
    """
    told = _parts(progress)
    run: dict[str, Any] = {"resume": True, "device": device, "cancelled": cancelled}
    clock = [time.monotonic()]
    student = warm_student(parent, ingredients.experts)
    with first_alone():
        cases = prepare_cases(
            ingredients, student.config, cache, progress=told(0.0, 0.2), cancelled=cancelled
        )
    clock.append(time.monotonic())
    student = train_student(student, cases, recipe, out / "trunk", progress=told(0.2, 0.7), **run)
    student = polish(student, cases, recipe, out / "polish", progress=told(0.7, 0.8), **run)
    clock.append(time.monotonic())
    student = train_clicks(student, cases, recipe, out / "clicks", progress=told(0.8, 1.0), **run)
    clock.append(time.monotonic())
    return student, _notes(recipe, clock, cases)


def amalgamate_anew(
    ingredients: Ingredients,
    recipe: Recipe,
    out: Path,
    cache: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Student, dict[str, Any]]:
    """Train a new student, with the full schedule, for comparison; see `reamalgamate`."""
    told = _parts(progress)
    run: dict[str, Any] = {"resume": True, "device": device, "cancelled": cancelled}
    start = time.monotonic()
    student, notes = amalgamate(ingredients, recipe, out, cache, progress=told(0.0, 0.75), **run)
    cases = prepare_cases(ingredients, student.config, cache, cancelled=cancelled)
    middle = time.monotonic()
    student = train_clicks(student, cases, recipe, out / "clicks", progress=told(0.75, 1.0), **run)
    prepared = start + notes["seconds_features"]
    return student, _notes(recipe, [start, prepared, middle, time.monotonic()], cases)


def _notes(recipe: Recipe, clock: Sequence[float], cases: Sequence[Any]) -> dict[str, Any]:
    seconds = [round(end - begin, 1) for begin, end in pairwise(clock)]
    return {
        "steps": recipe.steps,
        "seconds_features": seconds[0],
        "seconds_trunk": seconds[1],
        "seconds_clicks": seconds[2],
        "n_cases": {t: sum(c.task == t for c in cases) for t in sorted({c.task for c in cases})},
        "seed": recipe.seed,
        "teaching": lasting(recipe.teaching),
    }


def _parts(progress: Progress | None) -> Callable[[float, float], Progress | None]:
    """Return a function that maps a part's progress to its share of the whole."""

    def part(low: float, high: float) -> Progress | None:
        if progress is None:
            return None
        return lambda share, text: progress(low + (high - low) * share, text)

    return part
