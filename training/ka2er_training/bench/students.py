"""How cells train students, and teach them to answer clicks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ka2er_training.amalgamate import new_student, task_entries, train_student
from ka2er_training.bench.means import expert_folder
from ka2er_training.cases import PreparedCase, Source, prepare_case
from ka2er_training.click_work import train_clicks
from ka2er_training.plan import preset, student_config
from ka2er_training.polish import polish
from ka2er_training.recipe import Ingredients, Recipe, recipe_for
from ka2er_training.sources import read_source
from napari_ka2er.model.checkpoint import load_student, save_student
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ka2er_training.bench.cells import Cell, Store
    from ka2er_training.bench.means import Means
    from napari_ka2er.core.task import Task
    from napari_ka2er.model.config import StudentConfig
    from napari_ka2er.model.student import Student


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that a student's cell trains from.

    Parameters
    ----------
    recipe : Recipe
        Sizes, schedules, losses.
    config : StudentConfig
        The student's numbers.
    cases : sequence of PreparedCase
        Training volumes with features and targets.
    experts : mapping of str to Path
        Folders of the experts that lend features.
    """

    recipe: Recipe
    config: StudentConfig
    cases: Sequence[PreparedCase]
    experts: Mapping[str, Path]


def train_student_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Amalgamate one student; its prompts are another cell's work."""
    lesson, folder = prepare_lesson(cell, store, means), store.folder_of(cell)
    experts = [Expert.load(path, means.device) for path in lesson.experts.values()]
    student = new_student(lesson.config, lesson.recipe, lesson.cases, experts)
    student = train_student(
        student, lesson.cases, lesson.recipe, folder / "trunk",
        resume=True, device=means.device, progress=means.progress, cancelled=means.cancelled,
    )  # fmt: skip
    student = polish(
        student, lesson.cases, lesson.recipe, folder / "polish",
        resume=True, device=means.device, cancelled=means.cancelled,
    )  # fmt: skip
    _keep(cell, student, lesson, store)
    tasks = cell.settings["tasks"]
    return {
        "parameters": sum(p.numel() for p in student.parameters()),
        "windows": {entry.task.name: entry.window for entry in lesson.config.tasks},
        "n_labelled": {name: len(task["labelled"]) for name, task in tasks.items()},
        "n_unlabelled": {name: len(task["unlabelled"]) for name, task in tasks.items()},
    }


def train_prompts_cell(cell: Cell, store: Store, means: Means) -> dict[str, Any]:
    """Teach a finished student to answer clicks; its trunk stays as it is."""
    before = cell.needs[0]
    lesson, folder = prepare_lesson(before, store, means), store.folder_of(cell)
    clicks = dataclasses.replace(lesson.recipe.sizes.clicks, steps=cell.settings["steps"])
    sizes = dataclasses.replace(lesson.recipe.sizes, clicks=clicks)
    student = load_student(store.folder_of(before) / "student", means.device).student
    student = train_clicks(
        student, lesson.cases, dataclasses.replace(lesson.recipe, sizes=sizes), folder / "clicks",
        resume=True, device=means.device, progress=means.progress, cancelled=means.cancelled,
    )  # fmt: skip
    _keep(cell, student, lesson, store)
    return {"parameters": sum(p.numel() for p in student.mask_decoder.parameters())}


def prepare_lesson(cell: Cell, store: Store, means: Means) -> Lesson:
    """Return what a student's cell trains from; features that are on disk are not made again."""
    variant = cell.settings["variant"]
    kinds = {"trained": "expert", "untrained": "untrained"}
    given = [expert_folder(need, store) for need in cell.needed(kinds.get(variant["experts"], ""))]
    experts = [Expert.load(path, means.device) for path in given]
    sources, tasks = _sources(cell.settings["tasks"], means)
    ingredients = Ingredients(tasks, sources, experts)
    recipe = _recipe(cell.settings)
    entries = task_entries(ingredients, recipe.sizes)
    config = student_config(entries, experts, recipe.sizes, recipe.amalgamation)
    teachers = [Expert.load(expert_folder(n, store), means.device) for n in cell.needed("expert")]
    cases = _prepare(ingredients, config, teachers if variant["soft"] else [], means)
    folders = {expert.task.name: path for expert, path in zip(experts, given, strict=True)}
    return Lesson(recipe, config, cases, folders)


def _keep(cell: Cell, student: Student, lesson: Lesson, store: Store) -> None:
    card = {"notes": {"benchmark": cell.name, "cell": cell.digest}}
    save_student(store.folder_of(cell) / "student", student, card, experts=lesson.experts)


def _recipe(settings: Mapping[str, Any]) -> Recipe:
    sizes = preset(settings["preset"])
    rate = sizes.schedule.learning_rate * settings["variant"].get("rate", 1.0)
    schedule = dataclasses.replace(sizes.schedule, steps=settings["steps"], learning_rate=rate)
    gate = dataclasses.replace(sizes.polish, steps=settings["polish_steps"])
    sizes = dataclasses.replace(sizes, schedule=schedule, polish=gate)
    variant = settings["variant"]
    recipe = recipe_for(sizes, settings["seed"], **variant["teaching"])
    return dataclasses.replace(recipe, amalgamation=variant["amalgamation"])


def _sources(
    tasks: Mapping[str, Any], means: Means
) -> tuple[list[Source], dict[str, tuple[Task, tuple[float, float, float]]]]:
    """Return the training volumes, and per task its description and grid spacing."""
    sources, known = [], {}
    for name, given in tasks.items():
        files = {case.id: case for case in read_source(means.data / given["folder"]).cases}
        for case in given["labelled"]:
            sources.append(Source(case, name, files[case].image, files[case].label))
        for case in given["unlabelled"]:
            sources.append(Source(case, name, files[case].image, None))
        z, y, x = given["spacing_mm"]
        known[name] = (means.task(name, given["folder"]), (z, y, x))
    return sources, known


def _prepare(
    ingredients: Ingredients, config: StudentConfig, teachers: Sequence[Expert], means: Means
) -> list[PreparedCase]:
    """Return the training volumes with the experts' features and the teachers' targets."""
    cases = []
    n = len(ingredients.sources)
    for i, source in enumerate(ingredients.sources):
        if means.progress is not None:
            means.progress(i / n, f"features of {source.name}")
        # Teachers that lend no features still have to predict; their features are dropped again.
        lent = ingredients.experts or [t for t in teachers if t.task.name == source.task]
        entry = config.entry(source.task)
        case = prepare_case(source, entry, lent, means.cache, soft=bool(teachers))
        views = case.views if ingredients.experts else ()
        cases.append(dataclasses.replace(case, views=views))
    return cases
