"""Self-contained HTML pages, and the curves of a training on them."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from matplotlib.figure import Figure

from ka2er_training.workspace import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SMOOTH = 25  # steps that a curve is averaged over


def write_page(path: Path, template: str, parts: Mapping[str, Any]) -> None:
    """Write a page from one of the templates beside this package; missing folders are made."""
    environment = Environment(
        loader=PackageLoader("ka2er_training"), autoescape=select_autoescape()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, environment.get_template(template).render(**parts))


def read_scalars(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a training's ``scalars.jsonl``; none if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def curves(scalars: Path) -> str:
    """Return the losses of a training, smoothed, as a data URI; from its ``scalars.jsonl``.

    A term that only some steps have, as that of one task's windows, is drawn where it is; so is one
    that was not finite, and is None there.
    """
    lines = read_scalars(scalars)
    names = sorted({name for line in lines for name in line} - {"step", "gradient"})
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name in names:
        known = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        steps, values = np.array(known, dtype=float).reshape(-1, 2).T
        width = max(1, min(_SMOOTH, len(values)))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid") if known else values
        axes.plot(steps[width - 1 :], smooth, label=name, lw=2 if name == "loss" else 1)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend(fontsize=7, ncols=3)
    axes.grid(alpha=0.3)
    return figure_uri(figure)


def figure_uri(figure: Figure) -> str:
    """Return a figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return png_uri(buffer.getvalue())


def png_uri(data: bytes) -> str:
    """Return the bytes of a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
