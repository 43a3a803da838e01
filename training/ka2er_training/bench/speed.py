"""`ka2er bench speed`: what things take on this machine, as ratios too.

Ratios of CPU time hold on other machines better than seconds do, and other work on the machine
disturbs them less than it disturbs wall time.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ka2er_training.bench.cells import machine
from ka2er_training.bench.probes import ProbeSettings
from ka2er_training.bench.tables import Table
from ka2er_training.workspace import read_json, write_json, write_text
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.student_card import read_student_json
from napari_ka2er.model.catalogue import find_student
from napari_ka2er.model.config import StudentConfig
from napari_ka2er.model.fingerprints import fingerprint
from napari_ka2er.model.ranking import prior_fit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_ka2er.model.config import Mode

logger = logging.getLogger(__name__)

MODES: tuple[Mode, ...] = ("distilled", "sparse", "full")
PROBES_MODULE = "ka2er_training.bench.probes"


def probe(name: str, settings: ProbeSettings, module: str = PROBES_MODULE) -> dict[str, Any]:
    """Run a probe of a module in a new process and return what it took.

    Raises
    ------
    UserError
        If it fails; its last line says why.
    """
    logger.info("%s %s %s", name, settings.mode, settings.expert)
    command = [sys.executable, "-m", module, name]
    done = subprocess.run(
        [*command, json.dumps(asdict(settings))], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"the measurement {name} to finish", last)
    spent: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return spent


def open_settings(student: str, volume: Path | None, task: str, repeats: int) -> ProbeSettings:
    """Return the settings for a student by name, on a volume or one of the sample volumes.

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
    return ProbeSettings(str(folder), str(image), task or fitting_task(folder, image), repeats)


def fitting_task(student: Path, image: Path) -> str:
    """Return the task that fits an image best by intensities and field of view.

    Another one could have a grid so fine that a pass takes hours.
    """
    config = StudentConfig.from_json(read_student_json(student)["config"])
    volume = fingerprint(read_volume(image))
    return max(config.tasks, key=lambda entry: prior_fit(entry, volume)[0]).task.name


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
    student: str,
    volume: Path | None,
    task: str,
    repeats: int,
    only: Iterable[str] = (),
    *,
    out: Path | None = None,
) -> dict[str, Any]:
    """Return what passes, windows and clicks take, and their ratios.

    Parameters
    ----------
    student : str
        Its name or folder.
    volume : Path, optional
        An image; a sample volume by default.
    task : str
        Of the student; the one that fits the image best if empty.
    repeats : int
        Of each measurement; whole volumes are measured a third as often, what is largest once.
    only : iterable of str
        Names of probes; all if empty.
    out : Path, optional
        Folder for the report, written after each measurement; what it holds under the same
        circumstances is not measured again.

    Raises
    ------
    UserError
        If something does not exist or a measurement fails.
    """
    settings, chosen = open_settings(student, volume, task, repeats), set(only)
    known = sorted({name for _, name, _ in _measurements(settings)})
    if unknown := sorted(chosen - set(known)):
        raise UserError(f"measurements among {', '.join(known)}", ", ".join(unknown))
    result = _circumstances(student, settings)
    spent = {} if out is None else _measured_before(out, result)
    for label, name, given in _measurements(settings):
        if label not in spent and (not chosen or name in chosen):
            spent[label] = {**probe(name, given), **_load()}
            result |= {"measurements": spent, "ratios": ratios(spent)}
            write_speed(result, out)
    return result | {"measurements": spent, "ratios": ratios(spent)}


def _load() -> dict[str, float]:
    """Return the machine's load, or nothing where the system does not tell (Windows)."""
    return {"load": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}


def _circumstances(student: str, settings: ProbeSettings) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "student": student,
        "volume": Path(settings.volume).name,
        "task": settings.task,
        "repeats": settings.repeats,
    }


def _measured_before(out: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measurements that a folder holds, if they are of the kind that is wanted."""
    path = out / "speed.json"
    found = read_json(path) if path.is_file() else {}
    is_same = all(found.get(key) == value for key, value in wanted.items())
    return dict(found["measurements"]) if is_same else {}


def _measurements(settings: ProbeSettings) -> list[tuple[str, str, ProbeSettings]]:
    """Return label, probe and settings of everything there is to measure."""
    config = StudentConfig.from_json(read_student_json(Path(settings.student))["config"])
    whole = replace(settings, repeats=max(1, settings.repeats // 3))
    coarsest = max(config.tasks, key=lambda entry: math.prod(entry.spacing_mm)).task.name
    large = replace(settings, task=coarsest, repeats=1, mode="sparse")
    return [
        ("click", "click", settings),
        ("CT 512x512x400", "large_ct", large),
        *((f"window {mode}", "encode_window", replace(settings, mode=mode)) for mode in MODES),
        *((f"windows {mode}", "encode_volume", replace(whole, mode=mode)) for mode in MODES),
        *((f"pass {mode}", "automatic_pass", replace(whole, mode=mode)) for mode in MODES),
        *(
            (f"expert {e.name}", "expert_pass", replace(whole, expert=e.name))
            for e in config.experts
        ),
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
    loads = [one["load"] for one in result["measurements"].values() if "load" in one]
    if loads:
        note += f" Load average {min(loads):.0f} to {max(loads):.0f}: see CPU time, not wall time."
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
