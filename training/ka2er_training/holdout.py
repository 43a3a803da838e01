"""Which patients no training may see, and the check that it has not."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from ka2er_training.ledger import settle_all
from ka2er_training.workspace import read_json, write_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import content_digest
from napari_ka2er.core.io import read_volume

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ka2er_training.integrity import CheckedCase
    from ka2er_training.workspace import Case, Workspace

logger = logging.getLogger(__name__)


def hold_out(patients: Iterable[str], share: float, salt: str) -> frozenset[str]:
    """Return the patients to hold out: those with the lowest hashes; never all, one of two or more.

    The choice depends on names only, not on their order, so that it is the same on every machine.
    """
    unique = sorted(set(patients))
    ranked = sorted(
        unique, key=lambda patient: hashlib.sha256(f"{salt}:{patient}".encode()).digest()
    )
    wanted = max(1, round(share * len(unique))) if share > 0 else 0
    return frozenset(ranked[: min(wanted, len(unique) - 1)])


def split_cases(workspace: Workspace, checked: Sequence[CheckedCase]) -> list[str]:
    """Return training, holdout or unlabelled for every case.

    An image that another task knows stays on the side where it is there: otherwise the student
    would be trained, through one task, on what is held out in the other.

    Raises
    ------
    UserError
        If other tasks hold out one image of a patient and train on another, or nothing is left to
        train on.
    """
    held, trained = _known_digests(workspace)
    patients_in = {one.patient for one in checked if one.image_digest in held}
    patients_out = {one.patient for one in checked if one.image_digest in trained}
    if torn := sorted(patients_in & patients_out):
        wanted = "patients whom the other tasks either hold out or train on"
        got = f"{torn[0]}, of whom images are held out and others are not"
        raise UserError(wanted, got, "give the --patient rule with which those were added")
    free = {one.patient for one in checked if one.case.label} - patients_in - patients_out
    settings = workspace.settings.holdout
    chosen = patients_in | hold_out(free, settings.share, settings.salt)
    if not chosen and settings.share > 0:
        logger.warning("only one patient: nothing can be held out")
    unlabelled = ["unlabelled" if one.patient not in chosen else "" for one in checked]
    labelled = ["holdout" if one.patient in chosen else "training" for one in checked]
    splits = [
        a if one.case.label else b for one, a, b in zip(checked, labelled, unlabelled, strict=True)
    ]
    if "training" not in splits:
        raise UserError("cases to train on", "only patients whom another task holds out")
    return splits


def check_training_data(workspace: Workspace, task: str) -> None:
    """Refuse a dataset whose training folder is not what was registered, or meets a hold-out.

    Raises
    ------
    UserError
        If files were added, removed or changed by hand, or an image that is held out, or kept for
        the gate, in any task is among them.
    """
    settle_all(workspace)
    cases = workspace.training_cases(task)
    folder = workspace.dataset_folder(task) / "imagesTr"
    registered, present = (
        {case.image.name for case in cases},
        {path.name for path in folder.iterdir()},
    )
    if odd := sorted(registered ^ present):
        what = "missing" if odd[0] in registered else "unknown"
        raise UserError(
            f"only registered cases in {folder}",
            f"{odd[0]}, which is {what}",
            "add data with ka2er task add",
        )
    held = {
        case["image"] for entry in workspace.holdout().values() for case in entry["cases"].values()
    } | {
        case["image"]
        for name in workspace.tasks
        for case in workspace.manifest(name)
        if case["split"] == "held"
    }
    present_digests = _contents(workspace, task, cases)
    for case in workspace.manifest(task):
        if case["split"] == "training" and case["image"] != present_digests[case["id"]]:
            raise UserError(
                f"the image that was registered as {case['id']} of {task}", "another", "restore it"
            )
        if case["split"] == "training" and case["image"] in held:
            raise UserError(
                "training cases apart from every hold-out", f"{case['id']} of {task} in one"
            )


def _contents(workspace: Workspace, task: str, cases: Sequence[Case]) -> dict[str, str]:
    """Return the content digests of images; those of unchanged files are remembered."""
    path = workspace.folder / "runs" / f"contents-{task}.json"
    known = read_json(path) if path.is_file() else {}
    found = {}
    for case in cases:
        stat = case.image.stat()
        seen = [stat.st_size, stat.st_mtime_ns]
        before = known.get(case.id)
        digest = before[2] if before and before[:2] == seen else None
        found[case.id] = [*seen, digest or content_digest(read_volume(case.image))]
    if found != known:
        write_json(path, found)
    return {name: str(entry[2]) for name, entry in found.items()}


def _known_digests(workspace: Workspace) -> tuple[set[str], set[str]]:
    """Return the image digests that are held out, and those that are trained on, in any task."""
    settle_all(workspace)
    held, trained = set[str](), set[str]()
    for task in workspace.tasks:
        for case in workspace.manifest(task):
            side = case["side"] if case["split"] == "queued" else case["split"]  # when it is back
            (held if side in ("holdout", "held") else trained).add(case["image"])
    return held, trained
