"""`ka2er bench speed` and `bench clicks`: what things take on this machine, as ratios too.

Ratios of CPU time hold on other machines better than seconds do, and other work on the machine
disturbs them less than it disturbs wall time.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.cells import machine
from ka2er_training.bench.probes import ProbeSettings
from ka2er_training.bench.tables import Table
from ka2er_training.workspace import write_json, write_text
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import read_student_json
from napari_ka2er.model.catalogue import find_student

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ka2er.model.config import Mode

logger = logging.getLogger(__name__)

MODES: tuple[Mode, ...] = ("distilled", "sparse", "full")


def probe(name: str, settings: ProbeSettings) -> dict[str, Any]:
    """Run a probe in a new process and return what it took.

    Raises
    ------
    UserError
        If it fails; its last line says why.
    """
    logger.info("%s %s %s", name, settings.mode, settings.expert)
    command = [sys.executable, "-m", "ka2er_training.bench.probes", name]
    done = subprocess.run(
        [*command, json.dumps(asdict(settings))], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"the measurement {name} to finish", last)
    spent: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return spent


def open_settings(student: str, volume: Path | None, task: str, repeats: int) -> ProbeSettings:
    """Return the settings for a student by name, on a volume or the project's phantom.

    Raises
    ------
    UserError
        If there is no such student, task or volume.
    """
    folder = find_student(student)
    tasks = [entry["task"]["name"] for entry in read_student_json(folder)["config"]["tasks"]]
    if task and task not in tasks:
        raise UserError(f"one of the student's tasks ({', '.join(tasks)})", repr(task))
    image = volume or find_volume()
    if not image.exists():
        raise UserError("an image", f"{image}, which does not exist")
    return ProbeSettings(str(folder), str(image), task or tasks[0], repeats)


def find_volume() -> Path:
    """Return the sample volume that measurements use when none is given.

    Raises
    ------
    UserError
        If the sample volumes are not there.
    """
    from napari_ka2er.model.catalogue import sample_folder

    found = sorted((sample_folder() / "volumes").glob("*.nii.gz"))
    if not found:
        raise UserError("a sample volume", f"none in {sample_folder()}", "give --volume")
    return found[0]


def measure_speed(
    student: str, volume: Path | None, task: str, repeats: int, only: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what passes, windows and clicks take, and their ratios.

    Parameters
    ----------
    student : str
        Its name or folder.
    volume : Path, optional
        An image; a sample volume by default.
    task : str
        Of the student; its first if empty.
    repeats : int
        Of each measurement; the large references are measured once.
    only : iterable of str
        Names of probes; all if empty.

    Raises
    ------
    UserError
        If something does not exist or a measurement fails.
    """
    settings = open_settings(student, volume, task, repeats)
    chosen = set(only)
    spent = {
        label: probe(name, given)
        for label, name, given in _measurements(settings)
        if not chosen or name in chosen
    }
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "student": student,
        "volume": Path(settings.volume).name,
        "task": settings.task,
        "measurements": spent,
        "ratios": ratios(spent),
    }


def _measurements(settings: ProbeSettings) -> list[tuple[str, str, ProbeSettings]]:
    """Return label, probe and settings of everything there is to measure."""
    experts = [e["name"] for e in read_student_json(Path(settings.student))["config"]["experts"]]
    return [
        ("click", "click", settings),
        *((f"window {mode}", "encode_window", replace(settings, mode=mode)) for mode in MODES),
        *((f"pass {mode}", "automatic_pass", replace(settings, mode=mode)) for mode in MODES),
        *((f"expert {name}", "expert_pass", replace(settings, expert=name)) for name in experts),
        ("SwinUNETR 96³", "swin_unetr", replace(settings, repeats=min(settings.repeats, 3))),
        ("ResEnc-L 192³", "resenc_l", replace(settings, repeats=1)),
    ]


def ratios(spent: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the ratios of median CPU time that the design sets budgets for."""
    cpu = {label: median(one["cpu_s"]) for label, one in spent.items()}
    experts = sum(value for label, value in cpu.items() if label.startswith("expert "))
    pairs = {
        "ResEnc-L 192³ / click": ("ResEnc-L 192³", "click"),
        "SwinUNETR 96³ / click": ("SwinUNETR 96³", "click"),
        "window full / distilled": ("window full", "window distilled"),
        "window sparse / distilled": ("window sparse", "window distilled"),
    }
    found = {name: cpu[a] / cpu[b] for name, (a, b) in pairs.items() if a in cpu and b in cpu}
    for mode in MODES:
        if f"pass {mode}" in cpu and experts:
            found[f"pass {mode} / all experts' own passes"] = cpu[f"pass {mode}"] / experts
    return {name: round(value, 3) for name, value in found.items()}


def speed_table(result: Mapping[str, Any]) -> Table:
    """Return the measurements as a table."""
    rows = tuple(
        (
            label,
            _spread(one["cpu_s"]),
            _spread(one["wall_s"]),
            f"{one['peak_mib']:.0f}",
            f"{one['peak_mib'] - one['ready_mib']:.0f}",
            one["what"],
        )
        for label, one in result["measurements"].items()
    )
    shape = result["machine"]
    note = (
        f"Median [lowest, highest]. {result['date']}, {shape['cpus']} CPUs ({shape['arch']}); "
        f"student {result['student']}, volume {result['volume']}, task {result['task']}."
    )
    head = ("what", "CPU s", "wall s", "peak MiB", "of that, the work", "details")
    return Table("Speed", head, rows, note)


def _spread(values: list[float]) -> str:
    digits = 2 if median(values) < 10 else 0
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def write_speed(result: Mapping[str, Any], out: Path | None) -> str:
    """Return the report as Markdown; with `out`, also write it and the raw numbers there."""
    lines = [f"- {name}: {value:g}" for name, value in result["ratios"].items()]
    text = speed_table(result).markdown() + "\nRatios of CPU time:\n\n" + "\n".join(lines) + "\n"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "speed.json", result)
        write_text(out / "speed.md", text)
    return text


def measure_clicks(
    student: str, volume: Path | None, task: str, repeats: int, out: Path | None
) -> dict[str, Any]:
    """Return what a click with cached features takes beside a ResEnc-L 192³ forward pass.

    Parameters
    ----------
    student, volume, task, repeats
        As in `measure_speed`.
    out : Path, optional
        Folder for the same as ``clicks.json``.
    """
    settings = open_settings(student, volume, task, repeats)
    spent = probe("click", settings)
    reference = probe("resenc_l", replace(settings, repeats=1))
    click_cpu, reference_cpu = median(spent["cpu_s"]), median(reference["cpu_s"])
    p50, p95 = np.percentile(spent["wall_s"], [50, 95])
    result = {
        "click_s": {"p50": float(p50), "p95": float(p95)},
        "click_cpu_s": click_cpu,
        "reference_cpu_s": reference_cpu,
        "cpu_ratio": reference_cpu / click_cpu,
        "peak_mib": spent["peak_mib"],
        "reference_peak_mib": reference["peak_mib"],
        "what": spent["what"],
        "machine": machine(),
        "raw": {"click": spent, "reference": reference},
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "clicks.json", result)
    logger.info(
        "click %.2f s (95 %%: %.2f), %.2f CPU-s; ResEnc-L 192³ %.0f CPU-s: %.0f times as much",
        p50, p95, click_cpu, reference_cpu, result["cpu_ratio"],
    )  # fmt: skip
    return result
