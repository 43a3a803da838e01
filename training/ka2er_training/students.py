"""From a workspace's tasks and experts to its next student."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ka2er_training.amalgamate import amalgamate, prepare_cases
from ka2er_training.amalgamation_report import amalgamation_report
from ka2er_training.cases import Source
from ka2er_training.click_work import train_clicks
from ka2er_training.distributed import first_alone, rank
from ka2er_training.holdout import check_training_data
from ka2er_training.plan import preset
from ka2er_training.presets import check_number
from ka2er_training.recipe import Ingredients, Recipe, recipe_for
from ka2er_training.registry import add_student, current, make_current, student_folder
from ka2er_training.run_identity import begin, identity_of
from ka2er_training.workspace import read_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.student import Student

    Progress = Callable[[float, str], None]

logger = logging.getLogger(__name__)

# Share of the progress bar that features and trunk take; clicks take the rest.
_TRUNK = 0.75


@dataclass(frozen=True, slots=True)
class AmalgamationPlan:
    """What `ka2er amalgamate` was asked for.

    Parameters
    ----------
    preset : str
        ``"tiny"`` or ``"base"``.
    tasks : tuple of str
        Which tasks take part; empty: all that have an expert.
    foundation : Path or None
        ``model_swinvit.pt``.
    parent : Path or None
        Folder of a student to begin with, instead of a foundation.
    steps, polish_steps, click_steps, checkpoint_every : int or None
        Instead of the preset's.
    seed : int
        Of everything random.
    device : str
        ``"cpu"``, ``"cuda"`` …
    resume : bool
        Go on where a broken run stopped.
    task_strength : tuple of (str, float)
        Factor on the augmentation's strength, for tasks with few volumes.
    sparse_threshold : float or None
        Instead of the preset's; between 0 (sparse mode runs every expert) and 1.
    alone : float or None
        Probability, from the first step on, that a window has no experts; None: the usual.
    saves_memory : bool
        See `ka2er_training.recipe.Recipe`.
    """

    preset: str = "tiny"
    tasks: tuple[str, ...] = ()
    foundation: Path | None = None
    parent: Path | None = None
    steps: int | None = None
    polish_steps: int | None = None
    click_steps: int | None = None
    checkpoint_every: int | None = None
    seed: int = 0
    device: str = "cpu"
    resume: bool = False
    task_strength: tuple[tuple[str, float], ...] = field(default=())
    sparse_threshold: float | None = None
    alone: float | None = None
    saves_memory: bool = False

    def __post_init__(self) -> None:
        if self.foundation is not None and self.parent is not None:
            raise UserError("--foundation or --from", "both", "leave one out")
        for name, least in (
            ("steps", 1),
            ("polish_steps", 0),
            ("click_steps", 0),
            ("checkpoint_every", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < 2**32:
                raise UserError(f"{name} of at least {least}", f"{value}")
        if self.sparse_threshold is not None:
            check_number(self.sparse_threshold, 0.0, 1.0, "a sparse threshold")
        if self.alone is not None:
            check_number(self.alone, 0.0, 1.0, "a share of windows without experts")


def recipe_of(plan: AmalgamationPlan) -> Recipe:
    """Return the recipe that a plan asks for."""
    sizes = preset(plan.preset)
    wanted = {"schedule": plan.steps, "polish": plan.polish_steps, "clicks": plan.click_steps}
    schedules = {}
    for name, steps in wanted.items():
        own = getattr(sizes, name)
        every = plan.checkpoint_every or own.checkpoint_every
        schedules[name] = dataclasses.replace(
            own, steps=own.steps if steps is None else steps, checkpoint_every=every
        )
    threshold = sizes.sparse_threshold if plan.sparse_threshold is None else plan.sparse_threshold
    sizes = dataclasses.replace(sizes, **schedules, sparse_threshold=threshold)
    often = {} if plan.alone is None else {"alone": plan.alone, "mixed_from": 0.0}
    recipe = recipe_for(sizes, plan.seed, task_strength=plan.task_strength, **often)
    return dataclasses.replace(
        recipe, foundation=plan.foundation, parent=plan.parent, saves_memory=plan.saves_memory
    )


def ingredients_of(
    workspace: Workspace, tasks: Sequence[str] = (), device: str = "cpu"
) -> Ingredients:
    """Return the training volumes and experts of a workspace's tasks.

    Parameters
    ----------
    workspace : Workspace
        With at least one expert.
    tasks : sequence of str
        Only these; empty: all that have an expert.
    device : str
        Where the experts look at volumes.

    Raises
    ------
    UserError
        If a task is unknown or has no expert, or there are none.
    """
    chosen = tuple(tasks) or tuple(
        name for name in workspace.tasks if (workspace.expert_folder(name) / "expert.json").exists()
    )
    if not chosen:
        remedy = "train one with ka2er expert train, or add one with ka2er expert add"
        raise UserError(f"at least one expert in {workspace.folder}", "none", remedy)
    records = {name: workspace.record(name) for name in chosen}
    experts = [Expert.load(workspace.expert_folder(name), device) for name in chosen]
    sources = [source for name in chosen for source in sources_of(workspace, name)]
    return Ingredients(
        {name: (record.task, record.spacing_mm) for name, record in records.items()},
        sources,
        experts,
    )


def sources_of(workspace: Workspace, task: str) -> list[Source]:
    """Return the training volumes of a task, labelled and unlabelled; never a hold-out case.

    Raises
    ------
    UserError
        If an image that is held out, whatever its name, is among them.
    """
    check_training_data(workspace, task)
    labels = read_json(workspace.dataset_folder(task) / "dataset.json")["labels"]
    ignore = labels.get("ignore")
    cases = workspace.training_cases(task) + workspace.unlabelled_cases(task)
    return [Source(case.id, task, case.image, case.label, ignore) for case in cases]


def amalgamate_workspace(
    workspace: Workspace,
    plan: AmalgamationPlan,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Amalgamate a workspace's experts and keep the student as its next version.

    The first student becomes the current one; later ones stay candidates until they are promoted.

    Parameters
    ----------
    workspace : Workspace
        Must hold at least one expert.
    plan : AmalgamationPlan
        Preset and changes to it.
    progress, cancelled : callable, optional
        See `ka2er_training.loop.train`.

    Returns
    -------
    dict
        Plain data: version, folder and notes.

    Raises
    ------
    UserError
        If there are no experts or volumes, or the run to resume is another one.
    CancelledError
        If `cancelled` said so; ``resume`` goes on.
    """
    recipe, run = recipe_of(plan), workspace.run_folder("amalgamate")
    ingredients = ingredients_of(workspace, plan.tasks, plan.device)
    cache = workspace.folder / "runs" / "cache"
    told = _shares(progress)
    # Under torchrun the first process holds the lock and keeps the result for all.
    with contextlib.nullcontext() if rank() else workspace.lock("amalgamate"):
        with first_alone():
            if not rank():
                begin(run, identity_of(ingredients, recipe), resume=plan.resume)
        student, notes = amalgamate(
            ingredients, recipe, run, cache,
            resume=plan.resume, device=plan.device, progress=told(0.0, _TRUNK), cancelled=cancelled,
        )  # fmt: skip
        cases = prepare_cases(ingredients, student.config, cache)
        student = train_clicks(
            student, cases, recipe, run / "clicks",
            resume=plan.resume, device=plan.device, progress=told(_TRUNK, 1.0), cancelled=cancelled,
        )  # fmt: skip
        name = "" if rank() else _keep(workspace, student, notes, ingredients)
    if name:
        page = workspace.folder / "reports" / f"amalgamation_{name}.html"
        amalgamation_report(page, run, student, cases, notes)
        logger.info("curves and pictures: %s", page)
    return {"version": name, "folder": str(workspace.folder / "students" / name), **notes}


def _keep(
    workspace: Workspace, student: Student, notes: dict[str, Any], ingredients: Ingredients
) -> str:
    experts = {name: workspace.expert_folder(name) for name in ingredients.tasks}
    card = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "lineage": {
            "parent": current(workspace),
            "experts": {e.task.name: e.digest for e in ingredients.experts},
        },
        "data": data_of(workspace, ingredients),
        "notes": notes,
    }
    name = add_student(workspace, student, card, experts)
    if current(workspace) is None:
        make_current(workspace, name)
        logger.info("student %s in %s, the current one", name, student_folder(workspace, name))
    else:
        remedy = f"ka2er promote {workspace.folder} {name} makes it the current one"
        logger.info("student %s in %s; %s", name, student_folder(workspace, name), remedy)
    return name


def data_of(workspace: Workspace, ingredients: Ingredients) -> list[dict[str, Any]]:
    """Return, per task, where its training data come from and under which licence."""
    return [
        {
            "task": name,
            "source": workspace.record(name).source,
            "licence": workspace.record(name).licence,
            "n_training": sum(s.task == name and s.label is not None for s in ingredients.sources),
            "n_unlabelled": sum(s.task == name and s.label is None for s in ingredients.sources),
        }
        for name in ingredients.tasks
    ]


def _shares(progress: Progress | None) -> Callable[[float, float], Progress | None]:
    """Return a function that maps a part's progress to its share of the whole."""

    def part(low: float, high: float) -> Progress | None:
        if progress is None:
            return None
        return lambda share, text: progress(low + (high - low) * share, text)

    return part
