"""The main job on the volumes that come with the project."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.inputs import stem_of
from ka2er_training.overlay import write_overlay
from ka2er_training.prediction import Wanted, predict_files
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_ka2er.model.predictor import Predictor

logger = logging.getLogger(__name__)

VOLUMES = ("icbm_t1", "ct_chest")


def run_demo(
    predictor: Predictor,
    volumes: Sequence[Path],
    out: Path,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Segment volumes with whatever tasks fit them and write pictures.

    Parameters
    ----------
    predictor : Predictor
        The student.
    volumes : sequence of Path
        The images.
    out : Path
        Gets ``<case>_<task>.nii.gz``, ``<case>_<task>.png`` and ``summary.json``.
    progress : callable, optional
        Called with the share that is done and what is being done.

    Returns
    -------
    dict
        What is in ``summary.json``: ``seconds`` and, per volume and task, ``results``.
    """
    start = time.perf_counter()
    results = predict_files(predictor, volumes, out, Wanted(), progress)
    for result in results:
        result["picture"] = str(_picture(predictor, result))
    seconds = round(time.perf_counter() - start, 1)
    summary = {"seconds": seconds, "mode": predictor.mode, "results": results}
    half_done = out / ".summary.json"
    half_done.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    os.replace(half_done, out / "summary.json")
    logger.info("masks, pictures and summary.json are in %s (%.0f s)", out.resolve(), seconds)
    return summary


def _picture(predictor: Predictor, result: dict[str, Any]) -> Path:
    """Draw one result beside its label map."""
    volume = read_volume(Path(result["input"]))
    labels, _ = read_labels(Path(result["labels"]))
    task = predictor.entry(result["task"]).task
    sizes = ", ".join(f"{name} {ml:.0f} ml" for name, ml in result["volumes_ml"].items())
    path = Path(result["labels"])
    path = path.with_name(f"{stem_of(path)}.png")
    write_overlay(path, volume, labels, task, f"{volume.name}: {task.name} ({sizes})")
    return path


def open_napari(volume: Path) -> None:
    """Open napari with a volume and the plugin's widget; returns when it is closed.

    Raises
    ------
    UserError
        If napari is not installed, or cannot open a window.
    """
    command = [sys.executable, "-m", "napari", str(volume), "--with", "napari-ka2er"]
    status = subprocess.run(command, check=False).returncode
    if status:
        got = f"an end with status {status}, for the reason above"
        remedy = 'ka2er demo --headless needs none, pip install ".[all]" in the clone brings one'
        raise UserError("napari with a window", got, remedy)
