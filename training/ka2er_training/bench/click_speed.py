"""`ka2er bench clicks`: from a click to the new mask, through the widget's way and directly.

Wall time is what a user waits; CPU time, and its ratio to a reference on the same cores, holds on
other machines too.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import asdict, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.bench.cells import machine
from ka2er_training.bench.click_probe import CLICKS_PER_OBJECT, ClickSettings, sample_t1
from ka2er_training.bench.probes import ProbeSettings
from ka2er_training.bench.speed import open_settings, probe
from ka2er_training.bench.tables import Table
from ka2er_training.workspace import write_json, write_text
from napari_ka2er.core.io.atomic import make_folder, require_writable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODULE = "ka2er_training.bench.click_probe"

logger = logging.getLogger(__name__)


def measure_clicks(
    student: str,
    volume: Path | None,
    task: str,
    repeats: int,
    out: Path | None = None,
    *,
    has_reference: bool = True,
) -> dict[str, Any]:
    """Return what clicks with cached features take, beside a ResEnc-L 192³ forward pass.

    Parameters
    ----------
    student, volume, task
        As in `measure_speed`; without a volume the sample T1, cut and padded to 192³.
    repeats : int
        How many clicks.
    out : Path, optional
        Folder for the same as ``clicks.json`` and as a table.
    has_reference : bool
        Whether to run the reference, which takes 7 GB and more than a minute of CPU time.

    Raises
    ------
    UserError
        If something does not exist, `out` cannot be written or a measurement fails.
    """
    if out is not None:
        require_writable(out)
    settings = _settings(student, volume, task, repeats)
    with tempfile.TemporaryDirectory() as cache:
        given = replace(settings, cache=cache)
        made = {way: probe(way, given, MODULE) for way in ("encode", "direct", "service")}
    if has_reference:
        made["reference"] = probe("resenc_l", ProbeSettings(repeats=1))
    result = {"student": student, "task": settings.task, "mode": settings.mode, **_summary(made)}
    if out is not None:
        make_folder(out)
        write_json(out / "clicks.json", result)
        write_text(out / "clicks.md", clicks_table(result).markdown())
    return result


def _settings(student: str, volume: Path | None, task: str, repeats: int) -> ClickSettings:
    plain = open_settings(student, volume or sample_t1(), task, repeats)
    return ClickSettings(**{**asdict(plain), "volume": "" if volume is None else str(volume)})


def _summary(made: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `design.md` asks of this command, the other way, and the raw numbers."""
    asked, direct = made["service"], made["direct"]
    reference = made.get("reference")
    click_cpu = median(asked["cpu_s"])
    reference_cpu = median(reference["cpu_s"]) if reference else None
    return {
        "volume": asked["volume"],
        "shape": asked["shape"],
        "n_clicks": len(asked["wall_s"]),
        "click_s": _percentiles(asked["wall_s"]),
        "direct_click_s": _percentiles(direct["wall_s"]),
        "border_s": _percentiles(asked["border_s"]),
        "click_cpu_s": click_cpu,
        "direct_click_cpu_s": median(direct["cpu_s"]),
        "reference_cpu_s": reference_cpu,
        "cpu_ratio": reference_cpu and reference_cpu / click_cpu,
        "peak_mib": asked["peak_mib"],
        "window_peak_mib": asked["window_peak_mib"],
        "direct_peak_mib": direct["peak_mib"],
        "reference_peak_mib": reference and reference["peak_mib"],
        "same_answers": asked["answers"] == direct["answers"],
        "threads": direct["threads"],
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "machine": machine(),
        "raw": dict(made),
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def clicks_table(result: Mapping[str, Any]) -> Table:
    """Return the measurement as a table with a column per way."""
    rows = [
        ("wall s", _spread(result["click_s"]), _spread(result["direct_click_s"])),
        ("CPU s", f"{result['click_cpu_s']:.3f}", f"{result['direct_click_cpu_s']:.3f}"),
        ("of the wall time, the way between the processes", _spread(result["border_s"]), "none"),
        ("peak MiB", _memory(result), f"{result['direct_peak_mib'] or 0:.0f}"),
    ]
    if result["reference_cpu_s"] is not None:
        rows.append(("ResEnc-L 192³, CPU s", f"{result['reference_cpu_s']:.1f}", ""))
        rows.append(("that is so many clicks", f"{result['cpu_ratio']:.0f}", ""))
    shape = " x ".join(map(str, result["shape"]))
    note = (
        f"Median (95th percentile) of {result['n_clicks']} clicks, {CLICKS_PER_OBJECT} per object; "
        f"student {result['student']}, {result['mode']}, task {result['task']}, features cached; "
        f"{result['volume']} ({shape}); {result['threads']} threads on "
        f"{result['machine']['cpus']} CPUs ({result['machine']['arch']}); the two ways gave "
        f"{'the same' if result['same_answers'] else 'DIFFERENT'} masks."
    )
    head = ("a click", "through the service, as in the window", "in one process")
    return Table("Clicks", head, tuple(rows), note)


def _spread(seconds: Mapping[str, float]) -> str:
    return f"{seconds['p50']:.3f} ({seconds['p95']:.3f})"


def _memory(result: Mapping[str, Any]) -> str:
    return f"{result['peak_mib'] or 0:.0f}, and {result['window_peak_mib'] or 0:.0f} here"
