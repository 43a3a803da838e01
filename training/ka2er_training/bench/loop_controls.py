"""Packages that must not get through: with damaged labels, and with a copy of a hold-out case."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.correction import Correction, export_package, values_in_package
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.package import read_package
from napari_ka2er.core.review import Reviewed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.workspace import Case
    from napari_ka2er.core.package import Package
    from napari_ka2er.core.task import Task

    Labels = NDArray[Any]


def damaged_package(package: Path, out: Path, damage: str, seed: int) -> Path:
    """Write a copy of a package whose labels are wrong and whose files are all in order.

    Parameters
    ----------
    package, out : Path
        The good package; the new one.
    damage : str
        ``"shuffled"``: every case has the labels of another one, ``"shifted"``: moved by a quarter
        of the volume along every axis, to one side or the other, ``"emptied"``: no labels at all.
    seed : int
        Decides who gets whose labels, and which way they move.

    Returns
    -------
    Path
        `out`.
    """
    good = read_package(package)
    corrections = [_correction(good, number) for number in range(len(good.cases))]
    drawn = [correction.labels for correction in corrections]
    wrong = damaged(drawn, damage, seed)
    changed = [replace(c, labels=w) for c, w in zip(corrections, wrong, strict=True)]
    return export_package(out, changed)


def damaged(labels: Sequence[Labels], damage: str, seed: int) -> list[Labels]:
    """Return label maps (Z, Y, X) that are wrong, of the same shapes; see `damaged_package`."""
    generator = np.random.default_rng(seed)
    if damage == "emptied":
        return [np.zeros_like(one) for one in labels]
    if damage == "shifted":
        return [shifted(one, generator.choice((-1, 1), 3)) for one in labels]
    if damage == "shuffled":
        turn = int(generator.integers(1, max(len(labels), 2)))
        order = generator.permutation(len(labels))
        takes = {int(a): int(b) for a, b in zip(order, np.roll(order, turn), strict=True)}
        return [fitted(labels[takes[n]], one.shape) for n, one in enumerate(labels)]
    raise ValueError(damage)


def shifted(labels: Labels, signs: NDArray[Any]) -> Labels:
    """Return labels moved by a quarter of the volume along every axis; what leaves is lost."""
    steps = [int(sign * max(1, n // 4)) for sign, n in zip(signs, labels.shape, strict=True)]
    moved = np.zeros_like(labels)
    moved[tuple(_part(s) for s in steps)] = labels[tuple(_part(-s) for s in steps)]
    return moved


def _part(step: int) -> slice:
    return slice(step, None) if step > 0 else slice(0, step)


def fitted(labels: Labels, shape: tuple[int, ...]) -> Labels:
    """Return labels centred in a volume of another shape, cut or padded with background."""
    result = np.zeros(shape, labels.dtype)
    cut, place = [], []
    for have, want in zip(labels.shape, shape, strict=True):
        n = min(have, want)
        cut.append(slice((have - n) // 2, (have - n) // 2 + n))
        place.append(slice((want - n) // 2, (want - n) // 2 + n))
    result[tuple(place)] = labels[tuple(cut)]
    return result


def _correction(package: Package, number: int) -> Correction:
    """Return a packaged case as it was before it was exported."""
    case = package.cases[number]
    labels, _ = read_labels(case.labels)
    known = np.zeros_like(labels)
    for value, packaged in values_in_package(package.task).items():
        known[labels == packaged] = value
    name = str(case.record.get("name") or case.name)
    record = {**case.record, "name": name}
    for key in ("case", "image", "created", "reviewed_share"):  # written anew
        record.pop(key, None)
    return Correction(read_volume(case.images[0]), known, package.task, case.reviewed, record)


def copied_package(case: Case, task: Task, out: Path) -> Path:
    """Write a package with a copy of a case, under another name and for another patient."""
    assert case.label is not None
    volume, labels = read_volume(case.image), read_labels(case.label)[0]
    record = {"name": "somebody_new", "patient": "somebody_new", "reviewer": "simulated"}
    whole = Reviewed(whole=True)
    return export_package(out, [Correction(volume, labels, task, whole, record)])
