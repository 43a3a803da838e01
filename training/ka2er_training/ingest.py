"""Take packages of corrections into a workspace: nothing is lost, nothing comes twice."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from ka2er_training.ingest_plan import counts_of, held_notes
from ka2er_training.integrity import label_digest
from ka2er_training.ledger import (
    DATA_LOCK,
    PATIENCE_S,
    future_ignore,
    labels_of,
    packaged,
    packages_folder,
    settle,
    version_path,
    write_cases,
)
from ka2er_training.names import safe_id
from ka2er_training.package_check import merged_labels, patient_of_case
from ka2er_training.workspace import SPLITS, read_json
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.io import read_labels, read_volume, write_labels
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.package import read_package

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.package import Package, PackagedCase

    Entry = dict[str, Any]

# What a correction changes in a known case's entry; kept in its history.
_CHANGING = ("split", "label", "label_version", "package", "name", "round", "partial")


def ingest(
    workspace: Workspace,
    plan: Sequence[dict[str, Any]],
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Carry out a plan, package by package; killed at any moment it may be called again.

    Returns
    -------
    dict
        Plain data: ``cases`` by task and split, ``notes`` for people.

    Raises
    ------
    UserError
        If a package has gone or changed since it was checked, or another process changes the data.
    CancelledError
        If `cancelled` said so, between two packages.
    """
    digests = list(dict.fromkeys(item["package"] for item in plan))
    for i, digest in enumerate(digests):
        if cancelled and cancelled():
            raise CancelledError
        if progress:
            progress(i / len(digests), f"package {digest[:12]}")
        items = [item for item in plan if item["package"] == digest]
        with workspace.lock(DATA_LOCK, PATIENCE_S):
            _take(workspace, items)
    return {"cases": counts_of(plan), "notes": held_notes(workspace, plan)}


def withdraw(workspace: Workspace, number: int) -> list[str]:
    """Take a refused round's corrections out of training again; nothing of them is deleted.

    New cases become ``queued``: they come back, to the same side, when their package is given
    again.  A label that was superseded is the older one again.  Corrections of the hold-out stay.

    Returns
    -------
    list of str
        The cases.
    """
    moved = []
    with workspace.lock(DATA_LOCK, PATIENCE_S):
        for task in workspace.tasks:
            cases = workspace.manifest(task)
            chosen = [
                case
                for case in cases
                if case.get("round") == number and case["split"] in ("training", "held")
            ]
            for case in chosen:
                _take_back(case)
                moved.append(str(case["id"]))
            if chosen:
                write_cases(workspace, task, cases)
            settle(workspace, task)
    return moved


def _take_back(case: Entry) -> None:
    if history := case.get("history"):
        before = history[-1]
        rest = {key: value for key, value in case.items() if key not in _CHANGING}
        case.clear()
        case.update(rest | before | {"history": history[:-1]})
    else:
        case.update(side=case["split"], split="queued")


def _take(workspace: Workspace, items: Sequence[dict[str, Any]]) -> None:
    """Take the cases of one package: copy it, write label versions, commit, settle."""
    task, digest = items[0]["task"], items[0]["package"]
    package = _kept_package(workspace, digest, items[0]["source"])
    cases = workspace.manifest(task)
    by_id = {case["id"]: case for case in cases}
    done = {(case.get("package"), case.get("name")) for case in cases if case["split"] != "queued"}
    for item in items:
        if (digest, item["name"]) in done:
            continue
        source = packaged(package, item["name"])
        if item["known"]:
            _supersede(workspace, task, by_id[item["known"]], item, source)
        else:
            cases.append(_new_entry(workspace, item, source, set(by_id)))
            by_id[cases[-1]["id"]] = cases[-1]
    write_cases(workspace, task, cases)
    settle(workspace, task)


def _kept_package(workspace: Workspace, digest: str, source: str) -> Package:
    """Return the workspace's own copy of a package, made if there is none."""
    from pathlib import Path

    kept = packages_folder(workspace, digest)
    if not kept.exists():
        with replacing(kept) as partial:
            shutil.copytree(Path(source), partial)
    package = read_package(kept)
    if package.digest != digest:
        raise UserError(f"the package {digest[:12]} that was checked", "another", "check it again")
    return package


def _new_entry(
    workspace: Workspace, item: dict[str, Any], source: PackagedCase, taken: set[str]
) -> Entry:
    """Return the entry of an image that is new to the task."""
    labels = labels_of(workspace, item["task"], source)
    _, geometry = read_labels(source.labels)
    case_id = safe_id(item["name"])
    if case_id in taken:
        case_id = f"{case_id}_{source.content[:12]}"
    return {
        "id": case_id,
        "patient": patient_of_case(source),
        "split": item["split"],
        "image": source.content,
        "label": label_digest(labels, geometry),
        **_origin(workspace, item, labels),
    }


def _origin(workspace: Workspace, item: dict[str, Any], labels: Any) -> Entry:
    ignore = future_ignore(workspace, item["task"])
    return {
        "package": item["package"],
        "name": item["name"],
        "round": item["round"],
        "partial": bool((labels == ignore).any()),
    }


def _supersede(
    workspace: Workspace, task: str, entry: Entry, item: dict[str, Any], source: PackagedCase
) -> None:
    """Give a known case the corrected label as its next version; the older one is kept."""
    folder = workspace.dataset_folder(task)
    ending = read_json(folder / "dataset.json")["file_ending"]
    merged, old = merged_labels(workspace, task, source, entry)
    images, drawn = SPLITS[entry["split"]]
    image = read_volume(folder / images / f"{entry['id']}_0000{ending}")
    version = entry.get("label_version", 0 if drawn is None else 1)
    if old is not None:
        _keep(folder / str(drawn) / f"{entry['id']}{ending}", folder, entry["id"], version, ending)
    new = version_path(folder, entry["id"], version + 1, ending)
    new.parent.mkdir(exist_ok=True)
    write_labels(new, merged, image)
    before = {key: entry[key] for key in _CHANGING if key in entry}
    if old is not None:
        before["label_version"] = version
    if entry["split"] != "queued":
        entry["history"] = [*entry.get("history", []), before]
    entry.update(
        split=item["split"],
        label=label_digest(merged, image.geometry),
        label_version=version + 1,
        **_origin(workspace, item, merged),
    )


def _keep(label: Path, folder: Path, case_id: str, version: int, ending: str) -> None:
    """Keep the present label under its version, unless it is kept already."""
    kept = version_path(folder, case_id, version, ending)
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with replacing(kept) as partial:
            shutil.copyfile(label, partial)
