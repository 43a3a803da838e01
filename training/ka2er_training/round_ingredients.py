"""What a round teaches its student from: volumes, the round's own drawn more often, and experts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ka2er_training.recipe import Ingredients
from ka2er_training.students import sources_of
from napari_ka2er.core.errors import UserError
from napari_ka2er.model.experts import Expert

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ka2er_training.cases import Source
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.config import StudentConfig


def round_ingredients(
    workspace: Workspace,
    config: StudentConfig,
    experts: Mapping[str, Path],
    number: int,
    device: str = "cpu",
) -> Ingredients:
    """Return volumes and experts for the tasks of a student, corrected cases drawn more often.

    Parameters
    ----------
    workspace : Workspace
        After the round's packages were ingested.
    config : StudentConfig
        Of the student to go on from; it decides tasks and the experts' order.
    experts : mapping of str to Path
        Folders of the experts to take.
    number : int
        The round.
    device : str
        Where experts run.

    Raises
    ------
    UserError
        If an expert of the student is missing.
    """
    names = [entry.task.name for entry in config.tasks]
    if missing := [entry.name for entry in config.experts if entry.name not in experts]:
        raise UserError("every expert of the current student", f"no {', '.join(missing)}")
    sources = [s for name in names for s in weighted_sources(workspace, name, number)]
    return Ingredients(
        {entry.task.name: (entry.task, entry.spacing_mm) for entry in config.tasks},
        sources,
        [Expert.load(experts[entry.name], device) for entry in config.experts],
    )


def weighted_sources(workspace: Workspace, task: str, number: int) -> list[Source]:
    """Return a task's training volumes; a round's corrections together have their set share."""
    settings = workspace.settings.retrain
    sources = sources_of(workspace, task)
    new = {case["id"] for case in workspace.manifest(task) if case.get("round") == number}
    n_new = sum(source.name in new for source in sources)
    if not settings.replay:
        return [source for source in sources if source.name in new]
    if not n_new or n_new == len(sources):
        return sources
    share = settings.oversampling
    weights = {True: share / n_new, False: (1 - share) / (len(sources) - n_new)}
    weighted = [dataclasses.replace(s, weight=weights[s.name in new]) for s in sources]
    return [source for source in weighted if source.weight > 0]
