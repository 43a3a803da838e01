"""Where the cases of packages of corrections go: to training, to the gate or to the hold-out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ka2er_training.package_check import patient_of_case, place_of
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ka2er_training.package_check import Place
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.package import Package, PackagedCase

    Found = tuple[Package, PackagedCase, Place]


def plan_ingest(
    workspace: Workspace, packages: Sequence[Package], number: int
) -> list[dict[str, Any]]:
    """Decide where every case of checked packages goes; nothing is written.

    Known images and patients stay on their side.  Of the new patients of each task a share,
    ``[retrain] held_share``, is kept from training for the gate, chosen by the hash of their name.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    packages : sequence of Package
        Without problems by `ka2er_training.package_check.check_for_workspace`.
    number : int
        The round.

    Returns
    -------
    list of dict
        Plain data for `ingest`, one per case.

    Raises
    ------
    UserError
        If an image is in two of the packages.
    """
    found = [
        (package, case, place_of(workspace, package.task.name, case))
        for package in packages
        for case in package.cases
    ]
    images = [(package.task.name, case.content) for package, case, _ in found]
    if len(set(images)) < len(images):
        raise UserError("every image once in a round", "one in two packages", "leave one out")
    sides = _sides(workspace, found)
    return [
        {
            "package": package.digest,
            "source": str(package.path),
            "name": case.name,
            "task": package.task.name,
            "known": place.entry["id"] if place.entry else None,
            "split": place.side or sides[package.task.name, patient_of_case(case)],
            "round": number,
        }
        for package, case, place in found
    ]


def _sides(workspace: Workspace, found: Sequence[Found]) -> dict[tuple[str, str], str]:
    """Return the side of every patient who is new to a task."""
    settings = workspace.settings
    sides: dict[tuple[str, str], str] = {}
    for task in {package.task.name for package, _, _ in found}:
        own = [(case, place) for package, case, place in found if package.task.name == task]
        new = {patient_of_case(case) for case, place in own if not place.side}
        held = held_patients(new, settings.retrain.held_share, settings.holdout.salt)
        sides |= {(task, patient): "held" if patient in held else "training" for patient in new}
    return sides


def held_patients(patients: Iterable[str], share: float, salt: str) -> frozenset[str]:
    """Return the new patients whose corrections are kept for the gate: those of lowest hashes.

    At least one of four or more; of fewer the share rounded down, so that one or two corrected
    cases are all trained on.
    """
    ranked = sorted(patients, key=lambda p: hashlib.sha256(f"{salt}:held:{p}".encode()).digest())
    least = 1 if len(ranked) >= 4 and share > 0 else 0
    return frozenset(ranked[: max(least, int(share * len(ranked)))])
