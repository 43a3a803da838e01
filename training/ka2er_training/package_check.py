"""Whether a workspace can take a package, and where each of its cases would go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ka2er_training.ledger import labels_of, settle_all
from ka2er_training.workspace import SPLITS, read_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.package import check_package, read_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.package import Package, PackagedCase
    from napari_ka2er.core.volume import Geometry

    Entry = dict[str, Any]

REMEDY = "it may only go to the hold-out (--to-holdout)"
_SIDES = {"training": "in training", "holdout": "held out", "held": "kept for the gate"}


@dataclass(frozen=True, slots=True)
class Place:
    """What a workspace knows about a packaged case.

    Parameters
    ----------
    entry : dict or None
        The case of the same task that has the same image.
    side : str
        ``"holdout"``, ``"held"`` or ``"training"`` where the image or its patient is; empty for
        somebody new.
    why : str
        What is on that side: an image or a patient.
    conflict : str
        What is on the other side of the hold-out, and where; empty if nothing is.
    """

    entry: Entry | None
    side: str
    why: str
    conflict: str = ""


def check_for_workspace(workspace: Workspace, path: Path, *, to_holdout: bool = False) -> list[str]:
    """Return why a workspace cannot take a package, one line each; nothing if it can.

    Parameters
    ----------
    workspace : Workspace
        Its data are put in order first, see `ka2er_training.ledger.settle_all`.
    path : Path
        The package.
    to_holdout : bool
        Whether cases of hold-out patients may update the hold-out; they never go to training.

    Raises
    ------
    UserError
        If another process is changing the workspace's data.
    """
    settle_all(workspace)
    if problems := check_package(path):
        return problems
    package = read_package(path)
    if problems := list(_wrong_task(workspace, package)):
        return problems
    problems = []
    for case in package.cases:
        problems += [
            f"case {case.name}: {p}" for p in _wrong_case(workspace, package, case, to_holdout)
        ]
    return problems


def place_of(workspace: Workspace, task: str, case: PackagedCase) -> Place:
    """Return where an image, or else its patient, is already.

    The task's own case of the image comes first: a correction is a correction of that, whoever
    else has the image.  The image may be in other tasks, but not on the hold-out's other side.
    """
    found = list(_known(workspace, task, case))
    if not found:
        return Place(None, "", "")
    name, entry, why = found[0]
    own = entry if name == task and entry["image"] == case.content else None
    others = (other for other in found[1:] if _is_trained(other[1]) != _is_trained(entry))
    conflict = next((f"{told}, which is {_SIDES[_side(one)]}" for _, one, told in others), "")
    return Place(own, _side(entry), why, conflict)


def _known(workspace: Workspace, task: str, case: PackagedCase) -> Iterator[tuple[str, Entry, str]]:
    """Yield task and case of everything with this image, the task's own first, or its patient.

    The patient of a known case of the task is the one noted there, whatever the package says.
    """
    names = [task, *(name for name in workspace.tasks if name != task)]
    same = [(n, e) for n in names for e in workspace.manifest(n) if e["image"] == case.content]
    for name, entry in same:
        yield name, entry, f"the same image as {entry['id']}{'' if name == task else f' of {name}'}"
    if any(name == task for name, _ in same):
        return
    patient = patient_of_case(case)
    for entry in workspace.manifest(task):
        if entry["patient"] == patient:
            yield task, entry, f"of the same patient as {entry['id']}"


def patient_of_case(case: PackagedCase) -> str:
    """Return a packaged case's patient; without a pseudonym every image is one."""
    return str(case.record.get("patient") or f"image-{case.content[:12]}")


def merged_labels(
    workspace: Workspace, task: str, case: PackagedCase, entry: Entry
) -> tuple[NDArray[np.uint16], NDArray[Any] | None]:
    """Return a known case's labels with a correction of them, and the labels as they are.

    Both on the lattice of the workspace's image.  Where nobody reviewed, the older label stays.
    """
    folder = workspace.dataset_folder(task)
    ending = read_json(folder / "dataset.json")["file_ending"]
    images, drawn = SPLITS[entry["split"]]
    image = read_volume(folder / images / f"{entry['id']}_0000{ending}")
    _, where = read_labels(case.labels)
    new = reoriented(labels_of(workspace, task, case), where, image.geometry)
    if drawn is None or entry["split"] == "queued":
        return new, None
    old, _ = read_labels(folder / drawn / f"{entry['id']}{ending}")
    ignored = ~reoriented(case.reviewed.mask(where.shape), where, image.geometry)
    return np.where(ignored, old, new).astype(np.uint16), old


def reoriented(data: NDArray[Any], source: Geometry, target: Geometry) -> NDArray[Any]:
    """Return an array with its axes in the order and direction of another lattice's."""
    from nibabel import orientations

    begin, end = (orientations.io_orientation(g.affine) for g in (source, target))
    turned: NDArray[Any] = orientations.apply_orientation(
        data, orientations.ornt_transform(begin, end)
    )
    return np.ascontiguousarray(turned)


def _side(entry: Entry) -> str:
    split = entry["split"]
    if split == "queued":
        return str(entry["side"])
    return split if split in ("holdout", "held") else "training"


def _is_trained(entry: Entry) -> bool:
    return _side(entry) == "training"


def _wrong_task(workspace: Workspace, package: Package) -> Iterator[str]:
    """Yield why a package's task is none of the workspace's."""
    name = package.task.name
    if name not in workspace.tasks:
        yield f"task {name} is none of {workspace.folder}: {', '.join(workspace.tasks)}"
        return
    own = workspace.record(name).task
    ours, theirs = ({x.name: x.value for x in task.labels} for task in (own, package.task))
    if ours != theirs:
        yield f"labels of task {name} are {theirs}, the workspace's are {ours}"
    if own.modality != package.task.modality:
        yield f"images are {package.task.modality}, those of task {name} are {own.modality}"


def _reads_sheared(workspace: Workspace, task: str) -> bool:
    """Return whether the task's data set names the reader for which right angles do not matter."""
    description = read_json(workspace.dataset_folder(task) / "dataset.json")
    return bool(description.get("overwrite_image_reader_writer") == "NibabelIO")


def _wrong_case(
    workspace: Workspace, package: Package, case: PackagedCase, to_holdout: bool
) -> Iterator[str]:
    """Yield why a case cannot be taken."""
    task = package.task.name
    if len(case.images) > 1:
        yield f"has {len(case.images)} channels, the student reads one"
        return
    geometry = read_volume(case.images[0]).geometry
    if geometry.is_sheared and not _reads_sheared(workspace, task):
        yield "has a sheared lattice, which not all of nnU-Net's readers take; resample it"
    place = place_of(workspace, task, case)
    if place.conflict:
        sides = f"{place.why}, which is {_SIDES[place.side]}, and {place.conflict}"
        yield f"is {sides}: it can go to neither side; leave it out"
        return
    if _is_back(workspace, package, case, place.entry):
        return
    if place.side == "holdout":
        if not to_holdout:
            yield f"is {place.why}, which is held out; {REMEDY}"
        elif place.entry is None and not case.reviewed.is_whole(geometry.shape):
            yield f"is {place.why}, which is held out, and a hold-out case must be reviewed whole"
    if place.entry is None:
        return
    if place.entry["split"] != "queued":
        try:
            merged, old = merged_labels(workspace, task, case, place.entry)
        except UserError as error:
            yield str(error)
            return
        if old is not None and np.array_equal(merged, old):
            yield f"is known as {place.entry['id']} already, with the same labels"


def _is_back(
    workspace: Workspace, package: Package, case: PackagedCase, entry: Entry | None
) -> bool:
    """Return whether a case only comes along with others of its package, which were withdrawn.

    After a refused round the hold-out keeps what the package corrected of it.
    """
    if entry is None or entry["split"] != "holdout":
        return False
    there = {
        known["name"]
        for known in workspace.manifest(package.task.name)
        if known.get("package") == package.digest and known["split"] != "queued"
    }
    is_own = (entry.get("package"), entry.get("name")) == (package.digest, case.name)
    return is_own and not {one.name for one in package.cases} <= there
