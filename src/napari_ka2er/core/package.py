"""Read packages of corrections, and tell what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.correction import (
    CORRECTIONS,
    DATASET,
    FORMAT,
    MANIFEST,
    SUFFIX,
    VERSION,
    values_in_package,
)
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import content_digest, file_digest
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.review import Reviewed
from napari_ka2er.core.task import Task
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class PackagedCase:
    """One case of a package.

    Parameters
    ----------
    name : str
        Its name in the dataset.
    images, labels : tuple of Path, Path
        One image file per channel; the label map, with the values of `values_in_package`.
    reviewed : Reviewed
        Where the labels count.
    record : mapping
        Its line of corrections.jsonl.
    """

    name: str
    images: tuple[Path, ...]
    labels: Path
    reviewed: Reviewed
    record: dict[str, Any] = field(hash=False)

    @property
    def content(self) -> str:
        """The digest of the image's voxels, see `content_digest`."""
        return str(self.record["image"]["content"])


@dataclass(frozen=True, slots=True)
class Package:
    """A package as its own files describe it; `check_package` tells whether they are right.

    Parameters
    ----------
    path : Path
        Its folder.
    task : Task
        The labels, with the values they had in the sessions.
    cases : tuple of PackagedCase
        At least one.
    ignore : int or None
        The value of voxels that nobody reviewed.
    digest : str
        The SHA-256 of the manifest, which names that of all other files.
    """

    path: Path
    task: Task
    cases: tuple[PackagedCase, ...]
    ignore: int | None
    digest: str


def read_package(path: Path) -> Package:
    """Return what is in a package.

    Raises
    ------
    UserError
        If it is no package, of a newer version, or its own descriptions cannot be read.
    """
    manifest, dataset = _read_manifest(path), _read_json(path / DATASET)
    try:
        task = Task.from_json(manifest["task"])
        n_channels = len(dataset["channel_names"])
        lines = (path / CORRECTIONS).read_text("utf-8").splitlines()
        cases = tuple(_case(path, json.loads(line), n_channels) for line in lines)
        ignore = dataset["labels"].get("ignore")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("a readable package", f"{path.name}: {error}") from error
    if not cases:
        raise UserError("a package with at least one case", f"{path.name} with none")
    return Package(path, task, cases, ignore, file_digest(path / MANIFEST))


def check_package(path: Path, known: Mapping[str, str] | None = None) -> list[str]:
    """Return what is wrong with a package, one line each; nothing if it can be used.

    Parameters
    ----------
    path : Path
        The package.
    known : mapping of str to str, optional
        Images that must not be in it: `content_digest` to name, say ``"hold-out case 012"``.

    Returns
    -------
    list of str
        Problems; of damaged or strange files only that they are.
    """
    try:
        if problems := list(_wrong_files(path)):
            return problems
        package = read_package(path)
    except UserError as error:
        return [str(error)]
    if problems := list(_wrong_dataset(package)):
        return problems
    counts = Counter(case.content for case in package.cases)
    problems = [f"image {digest[:12]} {n} times" for digest, n in counts.items() if n > 1]
    for case in package.cases:
        problems += [f"case {case.name}: {problem}" for problem in _wrong_case(package, case)]
        if known and case.content in known:
            problems.append(f"case {case.name}: is the same image as {known[case.content]}")
    return problems


def summarise_package(path: Path) -> dict[str, Any]:
    """Return what people want to know about a package, as plain data."""
    package = read_package(path)
    return {
        "package": str(path),
        "digest": package.digest,
        "task": package.task.name,
        "labels": [label.name for label in package.task.labels],
        "n_cases": len(package.cases),
        "ignore": package.ignore,
        "cases": [_summary(case) for case in package.cases],
    }


def _summary(case: PackagedCase) -> dict[str, Any]:
    record = case.record
    n_prompts = sum(len(found["prompts"]) for found in record.get("objects", ()))
    kept = ("reviewed_share", "reviewer", "seconds", "student", "changed_voxels", "statuses")
    return {"case": case.name, "n_prompts": n_prompts, **{k: record.get(k) for k in kept}}


def _case(path: Path, record: dict[str, Any], n_channels: int) -> PackagedCase:
    name = str(record["case"])
    if PurePosixPath(name).name != name:
        raise ValueError(f"{name!r} is no name for a case")
    images = tuple(path / "imagesTr" / f"{name}_{n:04d}{SUFFIX}" for n in range(n_channels))
    str(record["image"]["content"])
    reviewed = Reviewed.from_json(record["reviewed"])
    return PackagedCase(name, images, path / "labelsTr" / f"{name}{SUFFIX}", reviewed, record)


def _wrong_files(path: Path) -> Iterator[str]:
    """Yield files that are missing, changed, too many, or that lead out of the package."""
    listed = _read_manifest(path).get("files", {})
    present = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if not p.is_dir()}
    present.pop(MANIFEST, None)
    for name in sorted(listed.keys() - present.keys()):
        yield f"{name} is missing"
    for name in sorted(present.keys() - listed.keys()):
        yield f"{name} is not in the manifest"
    for name in sorted(listed.keys() & present.keys()):
        if present[name].is_symlink() or not present[name].is_file():
            yield f"{name} is a link or no file"
        elif file_digest(present[name]) != listed[name].get("sha256"):
            yield f"{name} was changed after the export"


def _wrong_dataset(package: Package) -> Iterator[str]:
    """Yield where dataset.json does not say what nnU-Net wants and the manifest says."""
    dataset = _read_json(package.path / DATASET)
    values = values_in_package(package.task)
    wanted = {"background": 0} | {x.name: values[x.value] for x in package.task.labels}
    wanted |= {} if package.ignore is None else {"ignore": len(values) + 1}
    if dataset.get("labels") != wanted:
        yield f"labels are {dataset.get('labels')}, wanted {wanted}"
    if dataset.get("numTraining") != len(package.cases):
        yield f"numTraining is {dataset.get('numTraining')}, cases are {len(package.cases)}"
    if dataset.get("file_ending") != SUFFIX:
        yield f"file_ending is {dataset.get('file_ending')}, wanted {SUFFIX}"
    wanted_files = {f for case in package.cases for f in (*case.images, case.labels)}
    for path in sorted(wanted_files ^ set(package.path.glob(f"*Tr/*{SUFFIX}"))):
        yield f"{path.parent.name}/{path.name} is not where corrections.jsonl says"


def _wrong_case(package: Package, case: PackagedCase) -> Iterator[str]:
    """Yield what is wrong with the image and the labels of a case."""
    try:
        channels = [read_volume(image) for image in case.images]
        labels, geometry = read_labels(case.labels)
    except UserError as error:
        yield str(error)
        return
    if not all(channel.geometry.is_close(geometry) for channel in channels):
        yield "image and labels do not lie in the same place"
        return
    if _content_of(channels) != case.content:
        yield "the image is not the one in corrections.jsonl"
    n_labels = len(package.task.labels)
    strange = sorted({*np.unique(labels).tolist()} - {*range(n_labels + 1), package.ignore})
    if strange:
        yield f"labels {strange} are neither 0 to {n_labels} nor the ignore label"
    reviewed = case.reviewed.mask(geometry.shape)
    if not reviewed.any():
        yield "nothing was reviewed"
    if ((labels == n_labels + 1) == reviewed).any():
        yield "the ignore label is not exactly where nobody reviewed"


def _content_of(channels: list[Volume]) -> str:
    data = np.stack([channel.data for channel in channels])
    names = tuple(str(number) for number in range(len(channels)))
    return content_digest(Volume(data, channels[0].affine, names))


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path / MANIFEST)
    form, version = manifest.get("format"), manifest.get("version")
    if form != FORMAT or not isinstance(version, int) or version > VERSION:
        got = f"{form} version {version}"
        raise UserError(f"{FORMAT} of at most version {VERSION}", got, "update napari-ka2er")
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"a package with a readable {path.name}", f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"a package with a readable {path.name}", f"{path}: no mapping")
    return data
