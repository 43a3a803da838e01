"""The page at the end of an amalgamation: how it learned, and what the student sees by then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ka2er_training.cases import PreparedCase, draw
from ka2er_training.overlay import PLANES, slice_of, upright
from ka2er_training.overlay import draw as draw_slice
from ka2er_training.report import curves, figure_uri, read_scalars, write_page
from ka2er_training.run_identity import STAGES
from napari_ka2er.core.volume import Geometry, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task
    from napari_ka2er.model.student import Student


def amalgamation_report(
    out: Path,
    runs: Path,
    student: Student,
    cases: Sequence[PreparedCase],
    notes: Mapping[str, Any],
) -> Path:
    """Write one self-contained page about an amalgamation.

    It shows the losses of every stage that has a log and, for each task that has a volume, one
    window of its first labelled one: the labels, and the student's result with every expert.

    Parameters
    ----------
    out : Path
        The page, a ``.html`` file; in place of an older one, missing folders are made.
    runs : Path
        The run's folder, with the stages' folders.
    student : Student
        The result; it stays as it is.
    cases : sequence of PreparedCase
        Its training volumes.
    notes : mapping
        What `amalgamate` noted.

    Returns
    -------
    Path
        `out`.
    """
    config = student.config
    logs = {stage: runs / stage / "scalars.jsonl" for stage in STAGES}
    steps = {stage: n for stage, log in logs.items() if (n := len(read_scalars(log)))}
    digests = {f"expert {expert.name}": expert.digest for expert in config.experts}
    shown = [(entry, _first(cases, entry.task.name)) for entry in config.tasks]
    parts = {
        "title": f"Amalgamation of {', '.join(entry.task.name for entry in config.tasks)}",
        "facts": facts({"steps": steps, **notes, **digests}),
        "curves": [(f"{stage}, {n} steps", curves(logs[stage])) for stage, n in steps.items()],
        "overlays": [
            (f"{entry.task.name}, case {case.name}", _overlay(student, case, entry.task))
            for entry, case in shown
            if case is not None
        ],
    }
    write_page(out, "amalgamation.html", parts)
    return out


def facts(notes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return notes as rows of a table; what is empty is left out."""
    return [
        (name.replace("_", " "), text) for name, value in notes.items() if (text := _text(value))
    ]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        known = {key: _text(inner) for key, inner in value.items()}
        return ", ".join(f"{key}: {text}" for key, text in known.items() if text)
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return "" if value is None else str(value)


def _first(cases: Sequence[PreparedCase], task: str) -> PreparedCase | None:
    """Return a task's first labelled volume, else its first, else None."""
    own = [case for case in cases if case.task == task]
    return next((case for case in own if case.is_labelled), own[0] if own else None)


def middle_window(case: PreparedCase, size: tuple[int, int, int]) -> Geometry:
    """Return the window around the middle of a volume's labels, over the volume as far as it can.

    It lies on the volume's own voxels, so that nothing is interpolated.
    """
    shape, window = np.array(case.grid.shape), np.array(size)
    points = [found for found in case.focus if len(found)]
    middle = np.median(np.concatenate(points), axis=0) if points else (shape - 1) / 2
    low = np.minimum((window - 1) / 2, (shape - 1) / 2)
    first = np.round(np.clip(middle, low, shape - 1 - low) - (window - 1) / 2)
    to_grid = np.eye(4)
    to_grid[:3, 3] = first
    return Geometry(size, case.grid.affine @ to_grid)


@torch.inference_mode()
def result_in_window(
    student: Student, case: PreparedCase
) -> tuple[Volume, NDArray[Any], NDArray[Any]]:
    """Return the middle window's image, its labels and the student's result with every expert.

    Both label maps are 0 beyond the volume.  The student is put back into training if it was there.
    """
    config, device = student.config, next(student.parameters()).device
    window = middle_window(case, config.entry(case.task).window)
    sample = draw(case, config, window, with_features=config.amalgamation != "none")
    features = None if sample.features is None else sample.features.to(device)
    was_training = student.training
    logits = student.eval()(sample.image.to(device), features).logits
    student.train(was_training)
    logits = logits[0, list(config.outputs(case.task))].float().cpu()
    values = torch.tensor(config.entry(case.task).task.values)
    inside = torch.ones(window.shape) if sample.inside is None else sample.inside[0, 0]
    found, drawn = (
        torch.where(score.amax(0) * inside > 0, values[score.argmax(0)], 0).numpy()
        for score in (logits, sample.target[0] - 0.5)  # labels are soft at borders
    )
    return Volume(sample.image[0, 0].numpy(), window.affine), drawn, found


def _overlay(student: Student, case: PreparedCase, task: Task) -> str:
    """Return slices through the labels' middle, labels above the student's, as a data URI."""
    volume, drawn, found = result_in_window(student, case)
    rows = {"labels" if case.is_labelled else "no labels": drawn, "student": found}
    grids = {name: upright(volume, labels) for name, labels in rows.items()}
    image = next(iter(grids.values()))[0]
    marked = np.argwhere(np.any([grid > 0 for _, grid in grids.values()], axis=0))
    middle = np.median(marked, axis=0) if len(marked) else (np.array(image.shape) - 1) / 2
    limits = np.percentile(image, (1, 99.5))
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    axes = figure.subplots(len(grids), len(PLANES))
    for row, (name, (_, grid)) in zip(axes, grids.items(), strict=True):
        for place, plane, at in zip(row, PLANES, middle.round().astype(int), strict=True):
            pair = slice_of(image, plane, at), slice_of(grid, plane, at)
            draw_slice(place, plane, pair, limits, task)
            place.set_title(f"{name} ({plane})", fontsize=9)
    patches = [Patch(color=label.color, label=label.name) for label in task.labels]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    return figure_uri(figure)
