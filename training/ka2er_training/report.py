"""One self-contained HTML page about an amalgamation: curves, scores, overlays."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ka2er_training.workspace import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task

_SMOOTH = 25  # steps that a curve is averaged over


def write_report(path: Path, title: str, parts: Mapping[str, Any]) -> None:
    """Write a page.

    Parameters
    ----------
    path : Path
        The file; missing folders are made.
    title : str
        Its heading.
    parts : mapping
        ``facts`` (list of pairs), ``table`` (list of rows, the head first), ``curves`` and
        ``overlays`` (lists of caption and data URI); any may be missing.
    """
    empty: dict[str, Any] = {"facts": [], "curves": [], "table": [], "overlays": []}
    write_page(path, "report.html", {"title": title, **empty, **parts})


def write_page(path: Path, template: str, parts: Mapping[str, Any]) -> None:
    """Write a page from one of the templates beside this package; missing folders are made."""
    environment = Environment(
        loader=PackageLoader("ka2er_training"), autoescape=select_autoescape()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, environment.get_template(template).render(**parts))


def curves(scalars: Path) -> str:
    """Return the losses of a training, smoothed, as a data URI; from its ``scalars.jsonl``.

    A term that only some steps have, as that of one task's windows, is drawn where it is.
    """
    lines = [json.loads(line) for line in scalars.read_text(encoding="utf-8").splitlines()]
    names = sorted({name for line in lines for name in line} - {"step", "gradient"})
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        steps = np.array([line["step"] for line in lines if name in line])
        values = np.array([line[name] for line in lines if name in line])
        width = min(_SMOOTH, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, label=name, lw=2 if name == "loss" else 1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend(fontsize=7, ncols=3)
    axes.grid(alpha=0.3)
    return figure_uri(figure)


def overlay(image: NDArray[Any], labels: NDArray[Any], gt: NDArray[Any] | None, task: Task) -> str:
    """Return three slices through the middle of the labels as a data URI.

    Parameters
    ----------
    image, labels : ndarray, shape (Z, Y, X)
        The volume, and the student's label map (filled).
    gt : ndarray or None, shape (Z, Y, X)
        The true label map (outlined).
    task : Task
        Gives the colours.
    """
    found = (
        np.argwhere(labels > 0) if (labels > 0).any() else np.array([np.array(labels.shape) // 2])
    )
    centre = np.median(found, axis=0).astype(int)
    low, high = np.percentile(image, (1, 99))
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axis in range(3):
        axes = figure.add_subplot(1, 3, axis + 1)
        cut = tuple(centre[a] if a == axis else slice(None) for a in range(3))
        axes.imshow(image[cut], cmap="gray", vmin=low, vmax=high, origin="lower", aspect="auto")
        for label in task.labels:
            colour = np.array([*to_rgb(label.color), 0.45])
            fill = (labels[cut] == label.value)[..., None] * colour
            axes.imshow(fill, origin="lower", aspect="auto")
            if gt is not None and (gt[cut] == label.value).any():
                axes.contour(gt[cut] == label.value, [0.5], colors=[label.color], linewidths=1)
        axes.set_axis_off()
    return figure_uri(figure)


def score_table(summaries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return rows for the page from `evaluate.Summary.to_json` data, the head first."""
    head = ["task", "label", "cases", "Dice (95 % interval)", "NSD"]
    rows = [
        [s["task"], s["label"], str(s["dice"]["n"]), _interval(s["dice"]), _interval(s["nsd"])]
        for s in summaries
    ]
    return [head, *rows]


def _interval(value: Mapping[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def figure_uri(figure: Figure) -> str:
    """Return a figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return png_uri(buffer.getvalue())


def png_uri(data: bytes) -> str:
    """Return the bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
