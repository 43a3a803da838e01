"""Where a task's data come from: nnU-Net raw datasets, MSD task folders, two folders of files."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ka2er_training.names import id_of, labels_of, parse_names, safe_id
from ka2er_training.workspace import read_json
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import SUFFIXES, is_readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_ka2er.core.task import Label


@dataclass(frozen=True, slots=True)
class SourceCase:
    """One case as it lies in the source; `label` is None where nobody drew one."""

    id: str
    image: Path
    label: Path | None


@dataclass(frozen=True, slots=True)
class Source:
    """A data set to add, before anything of it was read but its description.

    Parameters
    ----------
    name : str
        What it calls itself.
    kind : str
        ``"nnunet"``, ``"msd"`` or ``"folders"``.
    labels : tuple of Label
        Empty for two folders without label names: the values found are taken then.
    ignore : int, optional
        Value of voxels that nobody judged.
    modality : str
        nnU-Net's channel name.
    cases : tuple of SourceCase
        In the order of their ids.
    licence, reference : str
        As far as the source says.
    n_channels : int
        How many channels the fourth axis of each image holds, as in MSD; 0 where it would be time.
    """

    name: str
    kind: str
    labels: tuple[Label, ...]
    ignore: int | None
    modality: str
    cases: tuple[SourceCase, ...]
    licence: str = ""
    reference: str = ""
    n_channels: int = 0


def read_source(folder: Path, channel: int | None = None) -> Source:
    """Return the description of an nnU-Net raw dataset or an MSD task folder.

    Parameters
    ----------
    folder : Path
        It has a ``dataset.json``.
    channel : int, optional
        Which channel to take where there are several.

    Raises
    ------
    UserError
        If the folder is neither, has several channels and none is chosen, or files are missing.
    """
    if not (folder / "dataset.json").is_file():
        raise UserError(
            "an nnU-Net raw dataset or an MSD task folder (with dataset.json)",
            f"{folder}",
            "for two folders give --images and --labels",
        )
    description = read_json(folder / "dataset.json")
    try:
        return _source(folder, description, channel)
    except (LookupError, TypeError, AttributeError) as error:
        got = f"{type(error).__name__} {error}"
        raise UserError(f"a complete {folder / 'dataset.json'}", got) from error


def _source(folder: Path, description: Mapping[str, Any], channel: int | None) -> Source:
    """Return the source that a dataset.json describes."""
    is_msd = isinstance(description, dict) and isinstance(description.get("training"), list)
    channels = description["channel_names" if "channel_names" in description else "modality"]
    named = description["labels"]
    labels, ignore = labels_of({v: k for k, v in named.items()} if is_msd else named)
    if is_msd:
        cases = _msd_cases(folder, description)
    else:
        cases = _raw_cases(folder, description, channels, channel)
    return Source(
        name=_plain(str(description.get("name") or folder.absolute().name)),
        kind="msd" if is_msd else "nnunet",
        labels=labels,
        ignore=ignore,
        modality=channel_name(channels, channel, folder),
        cases=(*cases, *_unlabelled(folder / "imagesUn")),
        licence=str(description.get("licence", description.get("license", ""))),
        reference=str(description.get("reference", "")),
        n_channels=len(channels) if is_msd and len(channels) > 1 else 0,
    )


def read_folders(images: Path, labels: Path, names: Sequence[str], modality: str) -> Source:
    """Return the description of a folder of images and one of label maps with the same names.

    Parameters
    ----------
    images, labels : Path
        Files (or DICOM and zarr folders) of any readable format; ``_0000`` behind an image's name
        is allowed.
    names : sequence of str
        ``"1=liver"`` per label; empty: ``label_1`` and so on, by the values found.
    modality : str
        nnU-Net's channel name.

    Raises
    ------
    UserError
        If a folder is missing or empty, an image lacks its labels or the reverse, or two files of
        a folder are of the same case.
    """
    found, drawn = _files_by_id(images, ending="_0000"), _files_by_id(labels)
    if odd := sorted(set(found) ^ set(drawn)):
        lacking = "labels" if odd[0] in found else "an image"
        raise UserError(
            f"an image and labels for every case in {images} and {labels}",
            f"{odd[0]} without {lacking}",
        )
    cases = tuple(SourceCase(safe_id(name), found[name], drawn[name]) for name in sorted(found))
    name = _plain(images.absolute().parent.name)
    return Source(name, "folders", parse_names(names), None, modality, cases)


def _plain(name: str) -> str:
    """Return a data set's name without the number that nnU-Net or MSD put before it."""
    return re.sub(r"^(Dataset|Task)\d+_(?=.)", "", name)


def with_unlabelled(source: Source, folder: Path) -> Source:
    """Return a source with the images of a folder as further cases, without labels.

    Raises
    ------
    UserError
        If the folder is missing or empty, or two of its files are of the same case.
    """
    _files_by_id(folder)
    return replace(source, cases=(*source.cases, *_unlabelled(folder)))


def channel_name(channels: Mapping[str, str], channel: int | None, folder: Path) -> str:
    """Return the name of the one channel to use."""
    if len(channels) > 1 and channel is None:
        raise UserError(
            "one channel (the student reads one)",
            f"{len(channels)} in {folder}: {', '.join(channels.values())}",
            "choose one with --channel",
        )
    if channel is not None and str(channel) not in channels:
        raise UserError(f"a channel of {folder}: {', '.join(channels)}", f"{channel}")
    return str(channels[str(channel or 0)])


def _raw_cases(
    folder: Path, description: Mapping[str, Any], channels: Mapping[str, str], channel: int | None
) -> list[SourceCase]:
    """Return the cases of an nnU-Net raw dataset; extra or missing files are errors."""
    channel_name(channels, channel, folder)
    ending = description["file_ending"]
    if "dataset" in description:
        files = {
            name: (folder / entry["images"][channel or 0], folder / entry["label"])
            for name, entry in description["dataset"].items()
        }
    else:
        images = sorted((folder / "imagesTr").glob(f"*_{channel or 0:04d}{ending}"))
        names = [path.name[: -len(f"_0000{ending}")] for path in images]
        files = {
            n: (p, folder / "labelsTr" / f"{n}{ending}") for n, p in zip(names, images, strict=True)
        }
        stray = sorted(
            {p.name[: -len(ending)] for p in (folder / "labelsTr").glob(f"*{ending}")} - set(names)
        )
        if stray:
            raise UserError(f"an image for every label map in {folder}", f"{stray[0]} without one")
    _require_files(path for pair in files.values() for path in pair)
    return [SourceCase(name, *files[name]) for name in sorted(files)]


def _msd_cases(folder: Path, description: Mapping[str, Any]) -> list[SourceCase]:
    """Return the training cases of an MSD task folder."""
    pairs = [
        (folder / entry["image"], folder / entry["label"]) for entry in description["training"]
    ]
    _require_files(path for pair in pairs for path in pair)
    cases = [SourceCase(id_of(image), image, label) for image, label in pairs]
    return sorted(cases, key=lambda case: case.id)


def _require_files(paths: Iterable[Path]) -> None:
    """Refuse a source that names files it does not have."""
    for path in paths:
        if not path.exists():
            raise UserError("every image and label map that the dataset names", f"no {path}")


def _unlabelled(folder: Path) -> tuple[SourceCase, ...]:
    """Return a folder's images as cases without labels; none if there is no folder."""
    ids = _files_by_id(folder, ending="_0000") if folder.is_dir() else {}
    return tuple(SourceCase(safe_id(name), ids[name], None) for name in sorted(ids))


def _files_by_id(folder: Path, ending: str = "") -> dict[str, Path]:
    """Return a folder's readable files and image folders by name without suffix and `ending`."""
    if not folder.is_dir():
        raise UserError("a folder of images", f"{folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not is_readable(path):
            continue
        other = files.setdefault(id_of(path).removesuffix(ending), path)
        if other != path:
            got = f"{other.name} and {path.name} in {folder}"
            raise UserError("one file for each case", got, "remove one")
    if not files:
        raise UserError(f"images in {folder} ({' '.join(SUFFIXES)})", "none")
    return files
