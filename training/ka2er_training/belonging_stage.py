"""The stage of a round that asks, before anything is trained, whether labels belong to images."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ka2er_training.belonging import Drawn, fit_of
from ka2er_training.belonging_rule import Fit, refusal
from ka2er_training.evaluate import on_lattice
from ka2er_training.evaluate_workspace import labelled
from ka2er_training.registry import student_folder
from ka2er_training.scoring import mask_of, student_system
from napari_ka2er.core.errors import CancelledError
from napari_ka2er.core.io import read_labels, read_volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ka2er_training.evaluate import LabelledCase
    from ka2er_training.retrain_stages import RoundWork
    from ka2er_training.scoring import System
    from ka2er_training.workspace import Workspace

    Entry = dict[str, Any]

logger = logging.getLogger(__name__)

MOST_CASES = 16  # of a task that are looked at
MOST_EARLIER = 8  # earlier training cases whose labels they are compared with
REMEDY = "--accept-labels trains all the same"


def check_labels(work: RoundWork) -> dict[str, Any]:
    """Ask of every corrected task whether its labels belong to their images.

    The current student segments up to 16 of the round's cases; those masks are kept, so that a
    round that was broken off does not make them again, and the gate finds those of held cases.

    Returns
    -------
    dict
        Plain data: ``tasks`` (per task ``refusal``, a line or empty, ``cases``, as `Fit.to_json`
        tells them, and ``n``, how many cases the round has), and ``stopped``, why the round ends
        here; empty if it goes on, also because the labels are accepted whatever they are.
    """
    chosen = {task: _corrected(work, task) for task in work.workspace.tasks}
    chosen = {task: entries for task, entries in chosen.items() if entries}
    if not chosen:
        return {"tasks": {}, "stopped": ""}
    student = student_folder(work.workspace, work.state.before)
    system = student_system(student, work.state.options.mode, work.device, work.workspace)
    tasks = {}
    known = [task for task in chosen if task in system.tasks]
    for i, task in enumerate(known):
        part = replace(work, **work.part(i, len(known)))
        fits = list(_fits(part, system, task, chosen[task]))
        cases = [fit.to_json() for fit in fits]
        tasks[task] = {"refusal": refusal(fits), "cases": cases, "n": len(chosen[task])}
    found = {"tasks": tasks, "stopped": ""}
    for note in label_notes(found):
        logger.warning("%s", note)
    if not work.state.options.accept_labels:
        found["stopped"] = _why(tasks)
    return found


def label_notes(found: Mapping[str, Any]) -> list[str]:
    """Return a line about every suspicious case of what `check_labels` has found."""
    notes = []
    for task, told in found.get("tasks", {}).items():
        if told["refusal"]:
            notes.append(f"{task}: {told['refusal']}")
        fits = [Fit.from_json(case) for case in told["cases"]]
        notes += [
            f"{task}, case {fit.case}: {fit.why()}: look at its labels"
            for fit in fits
            if fit.verdict == "strange"
        ]
    return notes


def _why(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    refusals = [f"{task}: {told['refusal']}" for task, told in tasks.items() if told["refusal"]]
    if not refusals:
        return ""
    return f"wanted labels of their own images, got {'; '.join(refusals)}; {REMEDY}"


def _corrected(work: RoundWork, task: str) -> list[Entry]:
    """Return the cases of a task that this round has brought to training and to the gate."""
    return [
        case
        for case in work.workspace.manifest(task)
        if case.get("round") == work.state.number and case["split"] in ("training", "held")
    ]


def _fits(work: RoundWork, system: System, task: str, corrected: list[Entry]) -> Iterator[Fit]:
    """Yield how well the labels of a task's corrected cases fit, of at most 16."""
    entries = _drawn_by_lot(work.workspace, corrected, MOST_CASES)
    earlier = _earlier(work, task)
    cases = _cases_of(work.workspace, task, [*entries, *earlier])
    labels = {entry["id"]: _whole(entry, cases) for entry in [*entries, *earlier]}
    all_have_some = all(labels[entry["id"]] for entry in earlier)
    for i, entry in enumerate(entries):
        if work.cancelled and work.cancelled():
            raise CancelledError
        if work.progress:
            work.progress(i / len(entries), entry["id"])
        case = cases[entry["id"]]
        own = Drawn(*read_labels(case.labels), case.ignore)
        lattice = read_volume(case.image).geometry
        mask = on_lattice(mask_of(work.workspace, system, case), lattice, own.geometry)
        others = {
            other["id"]: drawn
            for other in [*entries, *earlier]
            if (drawn := labels[other["id"]]) and other["patient"] != entry["patient"]
        }
        if own.centre_mm() is None and not all_have_some:
            others = {}  # such a task has images without labels
        yield fit_of(entry["id"], Drawn(mask, own.geometry), own, others, case.task.values)


def _earlier(work: RoundWork, task: str) -> list[Entry]:
    """Return at most 8 training cases that were there before and are reviewed whole."""
    known = [
        case
        for case in work.workspace.manifest(task)
        if case["split"] == "training"
        and case.get("round") != work.state.number
        and not case.get("partial")
    ]
    return _drawn_by_lot(work.workspace, known, MOST_EARLIER)


def _drawn_by_lot(workspace: Workspace, entries: Iterable[Entry], most: int) -> list[Entry]:
    """Return some of the cases, always the same."""
    salt = workspace.settings.holdout.salt
    return sorted(
        entries, key=lambda e: hashlib.sha256(f"{salt}:labels:{e['id']}".encode()).digest()
    )[:most]


def _cases_of(workspace: Workspace, task: str, entries: Iterable[Entry]) -> dict[str, LabelledCase]:
    wanted = {entry["id"] for entry in entries}
    cases = [*workspace.training_cases(task), *workspace.held_cases(task)]
    found = labelled(workspace, task, [case for case in cases if case.id in wanted])
    return {case.name: case for case in found}


def _whole(entry: Entry, cases: Mapping[str, LabelledCase]) -> Drawn | None:
    """Return the labels of a case for comparison; None if it is empty or not reviewed whole."""
    if entry.get("partial"):
        return None
    case = cases[entry["id"]]
    drawn = Drawn(*read_labels(case.labels), case.ignore).cropped()
    return drawn if drawn.drawn().any() else None
