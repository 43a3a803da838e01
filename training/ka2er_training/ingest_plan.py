"""Where the cases of packages of corrections go: to training, to the gate or to the hold-out."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from ka2er_training.gate import MIN_HELD
from ka2er_training.holdout import hold_out
from ka2er_training.package_check import patient_of_case, place_of
from ka2er_training.settings import HoldoutSettings
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ka2er_training.package_check import Place
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.package import Package, PackagedCase

    Found = tuple[Package, PackagedCase, Place]


def plan_ingest(
    workspace: Workspace, packages: Sequence[Package], number: int, *, to_holdout: bool = False
) -> list[dict[str, Any]]:
    """Decide where every case of checked packages goes; nothing is written.

    Known images and patients stay on their side.  Of the new patients of each task a share,
    ``[retrain] held_share``, is kept from training for the gate, chosen by the hash of their name;
    more of them if the gate would else have too few, see `held_patients`.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    packages : sequence of Package
        Without problems by `ka2er_training.package_check.check_for_workspace`.
    number : int
        The round.
    to_holdout : bool
        Whether new patients become the first hold-out of a task that has none, see
        `first_holdout`.

    Returns
    -------
    list of dict
        Plain data for `ingest`, one per case.

    Raises
    ------
    UserError
        If an image is in two of the packages, or would be trained in one task and held in another.
    """
    found = [
        (package, case, place_of(workspace, package.task.name, case))
        for package in packages
        for case in package.cases
    ]
    images = [(package.task.name, case.content) for package, case, _ in found]
    if len(set(images)) < len(images):
        raise UserError("every image once in a round", "one in two packages", "leave one out")
    sides = _sides(workspace, found, to_holdout)
    plan = [
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
    _require_one_side([case.content for _, case, _ in found], plan)
    return plan


def counts_of(plan: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Return how many cases of a plan go where, by task and split."""
    counts: dict[str, dict[str, int]] = {}
    for item in plan:
        of_task = counts.setdefault(item["task"], {})
        of_task[item["split"]] = of_task.get(item["split"], 0) + 1
    return counts


def _require_one_side(images: Sequence[str], plan: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to train one task on an image that this round keeps from training in another."""
    seen: dict[str, Mapping[str, Any]] = {}
    for image, item in zip(images, plan, strict=True):
        other = seen.setdefault(image, item)
        if (other["split"] == "training") != (item["split"] == "training"):
            sides = " and ".join(f"{one['split']} of {one['task']}" for one in (other, item))
            remedy = "give the two packages in two rounds"
            raise UserError("every image on one side", f"{item['name']} for {sides}", remedy)


def _sides(
    workspace: Workspace, found: Sequence[Found], to_holdout: bool
) -> dict[tuple[str, str], str]:
    """Return the side of every patient who is new to a task."""
    settings = workspace.settings
    sides: dict[tuple[str, str], str] = {}
    for task in {package.task.name for package, _, _ in found}:
        own = [(case, place) for package, case, place in found if package.task.name == task]
        cases = [case for case, place in own if not place.side]
        founders = frozenset[str]()
        if to_holdout and not workspace.holdout_cases(task):
            founders = first_holdout(cases, settings.holdout)
            sides |= {(task, patient): "holdout" for patient in founders}
        new = Counter(p for p in map(patient_of_case, cases) if p not in founders)
        known = _n_known(workspace, task, [case for case, place in own if place.side == "held"])
        share, salt = settings.retrain.held_share, settings.holdout.salt
        held = held_patients(new, known, share, salt)
        sides |= {(task, patient): "held" if patient in held else "training" for patient in new}
    return sides


def first_holdout(cases: Sequence[PackagedCase], settings: HoldoutSettings) -> frozenset[str]:
    """Return the patients who become the hold-out of a task that has none.

    As at `ka2er task add`: the share of those of whom all was reviewed, chosen by the hash of their
    names; one of two or more, and the only one, too, as without a hold-out nothing can be judged.

    Parameters
    ----------
    cases : sequence of PackagedCase
        Of patients who are new to the task.
    settings : HoldoutSettings
        A share of 0 counts as the default: whoever asks for a hold-out wants one.
    """
    partly = {patient_of_case(case) for case in cases if not _is_whole(case)}
    whole = {patient_of_case(case) for case in cases} - partly
    share = settings.share or HoldoutSettings().share
    return hold_out(whole, share, settings.salt) or frozenset(whole)


def _is_whole(case: PackagedCase) -> bool:
    return case.reviewed.is_whole(read_volume(case.images[0]).geometry.shape)


def _n_known(workspace: Workspace, task: str, coming: Sequence[PackagedCase]) -> int:
    """Return how many corrections of a task are held without any new patient."""
    images = {case["image"] for case in workspace.manifest(task) if case["split"] == "held"}
    return len(images | {case.content for case in coming})


def held_patients(
    patients: Mapping[str, int], n_known: int, share: float, salt: str
) -> frozenset[str]:
    """Return the new patients of a task who are kept from training: those of lowest hashes.

    The share of them, and as many as the gate lacks cases (`MIN_HELD`), but for that at most three
    of eight cases, so that most corrections are learned from.  Of fewer than four patients the
    share, rounded down.

    Parameters
    ----------
    patients : mapping of str to int
        How many cases each of them has, in any order.
    n_known : int
        Cases that are held already.
    share : float
        ``[retrain] held_share``; 0 holds nobody.
    salt : str
        Of the hash.
    """
    ranked = sorted(patients, key=lambda p: hashlib.sha256(f"{salt}:held:{p}".encode()).digest())
    held = ranked[: int(share * len(ranked))]
    if len(ranked) < 4 or not share:
        return frozenset(held)
    room = 3 * sum(patients.values()) // 8
    for patient in ranked[len(held) :]:
        n_held = sum(patients[name] for name in held)
        if n_known + n_held >= MIN_HELD:
            break
        if n_held + patients[patient] <= room:
            held.append(patient)
    return frozenset(held)


def held_notes(workspace: Workspace, plan: Sequence[dict[str, Any]]) -> list[str]:
    """Return, per task that a plan trains, that too few of its corrections are held; else nothing.

    The same before and after the plan is carried out.
    """
    notes = []
    held = [item for item in plan if item["split"] == "held"]
    for task in dict.fromkeys(item["task"] for item in plan if item["split"] == "training"):
        own = {(item["package"], item["name"]) for item in held if item["task"] == task}
        old = [case for case in workspace.manifest(task) if case["split"] == "held"]
        n = len(own | {(c.get("package"), c.get("name")) for c in old})
        if n < MIN_HELD:
            notes.append(
                f"{task}: {n} corrected case{'' if n == 1 else 's'} kept from training, the gate "
                f"wants {MIN_HELD}: it counts the gain on the hold-out instead; packages of eight "
                "patients or more give enough"
            )
    return notes
