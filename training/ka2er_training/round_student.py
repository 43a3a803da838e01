"""A round's candidate: the student with the experts that passed their own gate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.distributed import rank
from ka2er_training.reamalgamate import amalgamate_anew, reamalgamate, warm_recipe
from ka2er_training.round_ingredients import round_ingredients
from ka2er_training.round_preset import config_of, preset_of
from ka2er_training.round_state import RoundOptions, options_of, round_folder
from ka2er_training.students import AmalgamationPlan, data_of, recipe_of
from ka2er_training.teaching import kept_habits
from ka2er_training.workspace import Workspace, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ka2er_training.recipe import Recipe


def student_candidate(workspace: Workspace, number: int) -> Path:
    """Return where a round's student is, or will be."""
    return round_folder(workspace, number) / "student"


def make_student(
    folder: str | Path,
    number: int,
    before: str,
    experts: Mapping[str, str],
    device: str = "cpu",
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Re-amalgamate a round's student and write it as a candidate.

    All arguments are small, so that this runs as a job on another machine, or in each of several
    processes of one.  Called again it goes on from its checkpoints, or returns at once.

    Parameters
    ----------
    folder : str or Path
        The workspace.
    number : int
        The round.
    before : str
        Version of the student to go on from.
    experts : mapping of str to str
        Folder of each task's expert.
    device : str
        Where to train; ``"auto"`` is decided here.
    progress, cancelled : callable, optional
        See `ka2er_training.loop.train`.

    Returns
    -------
    dict
        Plain data: ``folder``, and steps and seconds per part.
    """
    from napari_ka2er.model.checkpoint import load_student, save_student
    from napari_ka2er.model.device import resolve_device

    workspace = Workspace.open(folder)
    out, told = student_candidate(workspace, number), round_folder(workspace, number)
    if (out / "student.json").is_file() and (told / "student_notes.json").is_file():
        return {"folder": str(out), **read_json(told / "student_notes.json")}
    options, device = options_of(workspace, number), str(resolve_device(device))
    loaded = load_student(workspace.folder / "students" / before)
    parent, habits = loaded.student, kept_habits(loaded.card.get("notes", {}))
    places = {name: Path(place) for name, place in experts.items()}
    ingredients = round_ingredients(workspace, parent.config, places, number, device)
    recipe = round_recipe(workspace, options, number, habits)
    cache = workspace.folder / "runs" / "cache"
    run: dict[str, Any] = {"device": device, "progress": progress, "cancelled": cancelled}
    if options.from_scratch:
        student, notes = amalgamate_anew(ingredients, recipe, told, cache, **run)
    else:
        student, notes = reamalgamate(parent, ingredients, recipe, told, cache, **run)
    if not rank():
        card = {"data": data_of(workspace, ingredients), "notes": notes}
        save_student(out, student, card, experts=places)
        write_json(told / "student_notes.json", notes)
    return {"folder": str(out), **notes}


def round_recipe(
    workspace: Workspace,
    options: RoundOptions,
    number: int,
    habits: Mapping[str, Any] | None = None,
) -> Recipe:
    """Return the recipe of a round's student, short or (from scratch) full.

    `habits` are those of the student to go on from, see `teaching.kept_habits`; they change
    neither its length nor its sizes.
    """
    seed = number if options.seed is None else options.seed
    sizes_of = options.preset or preset_of(config_of(workspace))
    if options.from_scratch:
        plan = AmalgamationPlan(
            preset=sizes_of,
            steps=options.steps,
            polish_steps=options.polish_steps,
            click_steps=options.click_steps,
            checkpoint_every=options.checkpoint_every,
            seed=seed,
            **(habits or {}),
        )
        return recipe_of(plan)
    steps = {
        "trunk": options.steps,
        "polish": options.polish_steps,
        "clicks": options.click_steps,
    }
    recipe = warm_recipe(workspace.settings.retrain, sizes_of, seed, steps, habits)
    if options.checkpoint_every is None:
        return recipe
    sizes: dict[str, Any] = {
        part: dataclasses.replace(
            getattr(recipe.sizes, part), checkpoint_every=options.checkpoint_every
        )
        for part in ("schedule", "polish", "clicks")
    }
    return dataclasses.replace(recipe, sizes=dataclasses.replace(recipe.sizes, **sizes))
