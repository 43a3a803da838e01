"""Packages of corrected phantoms, exported as the widget does it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.training.conftest import phantom

from napari_ka2er.core.correction import Correction, export_package
from napari_ka2er.core.review import Reviewed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.volume import Volume

WHOLE = Reviewed(True)
THREE_SLICES = Reviewed(False, (frozenset({7, 9, 11}), frozenset(), frozenset()))


def correction(
    workspace: Workspace,
    seed: int,
    patient: str = "",
    reviewed: Reviewed = WHOLE,
    labels: np.ndarray | None = None,
    volume: Volume | None = None,
) -> Correction:
    """Return a corrected phantom of the task balls."""
    image, truth = phantom(seed)
    record = {"name": f"case{seed}", "patient": patient, "reviewer": "tester", "seconds": 60.0}
    task = workspace.record("balls").task
    drawn = truth if labels is None else labels
    return Correction(volume or replace(image, name=f"{seed}"), drawn, task, reviewed, record)


def package(path: Path, *corrections: Correction) -> Path:
    """Export corrections."""
    return export_package(path, corrections)
