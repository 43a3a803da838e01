"""Which files a command line names, read ahead of their use; and where results go."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import (
    SUFFIXES,
    WRITTEN_SUFFIXES,
    check_target,
    distinct,
    is_label_map,
    is_readable,
    read_volume,
    volumes_in,
)
from napari_ka2er.core.io.atomic import require_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
    from concurrent.futures import Future

    from napari_ka2er.core.volume import Volume

logger = logging.getLogger(__name__)

_DEFAULT_SUFFIX = ".nii.gz"
# Patient, study and series, and one to spare: a folder given by mistake is not searched for hours.
_DEPTH = 4
# What is written beside a label map if it is wanted, see `beside`.
_EXTRAS = ("uncertainty", "experts")
# A name that ends like this means a file, which would otherwise become a folder of that name.
_OTHER_IMAGES = (*SUFFIXES, ".mgz", ".mgh", ".mnc", ".img", ".hdr", ".dicom")


def list_inputs(inputs: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Return the volumes that paths stand for, each once; folders are opened, sorted by name.

    A DICOM series is one volume: a folder that holds nothing else stands for itself, and of several
    files of a series, as a shell's ``*.dcm`` names them, the first counts.  Folders in a folder are
    opened too, four deep, but hidden ones and `out`, where the results of an earlier run lie.

    Raises
    ------
    UserError
        If a path does not exist or holds no volume.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise UserError("a volume or a folder of volumes", f"{path}, which does not exist")
        inside = _volumes_below(path, out) if path.is_dir() else []
        if not inside and not is_readable(path):
            raise UserError(f"a volume ({', '.join(SUFFIXES)}, DICOM) or a folder", f"{path}")
        found += inside or [path]
    return distinct(found)


def _volumes_below(folder: Path, out: Path | None, depth: int = _DEPTH) -> list[Path]:
    """Return the volumes in a folder and the folders in it; a volume that is a folder is closed."""
    found = volumes_in(folder)
    if folder in found or depth == 0:
        return found
    left_out = {folder.resolve(), *folder.resolve().parents}  # where links may lead back to
    if out is not None:
        left_out.add(out.resolve())
    for path in folder.iterdir():
        is_closed = path.name.startswith(".") or path in found or path.resolve() in left_out
        if path.is_dir() and not is_closed:
            found += _volumes_below(path, out, depth - 1)
    return sorted(set(found))


def overwritten(targets: Iterable[Path], inputs: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each target that is an input, lies in one or is a folder around one, and that input.

    Links and other spellings of a path do not hide an input.
    """
    inputs = list(inputs)
    places = {path.resolve(): path for path in inputs}
    same = {_identity(path): path for path in inputs}
    around = {parent: path for place, path in places.items() for parent in place.parents}
    for target in targets:
        place = target.resolve()
        hits = [places.get(folder) for folder in (place, *place.parents)]
        for path in filter(None, (same.get(_identity(target)), *hits, around.get(place))):
            yield target, path
            break


def refuse_overwriting(targets: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write where an input lies.

    Raises
    ------
    UserError
        If a target is an input, lies in one or is a folder around one.
    """
    for target, path in overwritten(targets, inputs):
        got = f"{target}, where the input {path} lies"
        raise UserError("to write beside the inputs, not over them", got, "choose another -o")


def without_results(
    names: Mapping[Path, str], inputs: Sequence[Path], targets: Sequence[Path]
) -> dict[Path, str]:
    """Return `names` without results of earlier runs, which may be written anew.

    Raises
    ------
    UserError
        If another of them would be overwritten.
    """
    earlier = earlier_results(list(names), inputs)
    written = {_identity(target) for target in targets}  # and not in one, which may be a folder
    anew = {path for path in earlier if _identity(path) in written}
    refuse_overwriting(targets, [path for path in names if path not in anew])
    return {path: name for path, name in names.items() if path not in earlier}


def earlier_results(paths: Sequence[Path], inputs: Sequence[Path]) -> set[Path]:
    """Return which of the volumes found in folders are results of earlier runs.

    These are label maps named after another volume, and the maps beside them.  Only volumes with
    such names are read; those among `inputs`, which somebody named, are none.
    """
    found = {path for path in paths if path not in inputs}
    stems = {stem_of(path) for path in paths}
    maps = {path for path in found if _is_named_after(path, stems) and _is_label_map(path)}
    extras = found & {beside(path, what) for path in maps for what in _EXTRAS}
    for path in sorted(maps | extras):
        what = "a label map" if path in maps else "a map beside one"
        logger.info("%s: left out, as it is %s", path, what)
    return maps | extras


def _is_named_after(path: Path, stems: Set[str]) -> bool:
    """Return whether a name is another's with more behind it, and perhaps folders before it."""
    parts = stem_of(path).split("_")
    starts = ((start, end) for end in range(1, len(parts)) for start in range(end))
    return any("_".join(parts[start:end]) in stems for start, end in starts)


def _is_label_map(path: Path) -> bool:
    """Return whether a volume can be read and is a label map."""
    try:
        return is_label_map(read_volume(path))
    except UserError:  # told when it is read to be used
        return False


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return what a file or folder that exists has under all its names."""
    try:
        status = path.stat()
    except OSError:
        return path.absolute()
    return status.st_dev, status.st_ino


def read_ahead(paths: Sequence[Path], level: int = 0) -> Iterator[tuple[Path, Future[Volume]]]:
    """Yield paths and their volumes to be; while one is used, the next is read in a thread."""
    if not paths:
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(read_volume, paths[0], level)
        for number, path in enumerate(paths):
            current = coming
            wait([current])
            if number + 1 < len(paths):
                coming = pool.submit(read_volume, paths[number + 1], level)
            yield path, current


def case_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return what results are named after: each file's name before the suffix.

    Where several have the same, the names of the folders that tell them apart come first, as in
    ``p1_ct`` and ``p2_ct``.

    Raises
    ------
    UserError
        If two are equal all the same: the results would overwrite each other.
    """
    alike: dict[str, list[Path]] = {}
    for path in paths:
        alike.setdefault(stem_of(path), []).append(path)
    names = {path: name for group in alike.values() for path, name in _told_apart(group).items()}
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(names[path], path)
        if other != path:
            raise UserError("inputs with different names", f"{other} and {path}")
    return {path: names[path] for path in paths}


def _told_apart(paths: Sequence[Path]) -> dict[Path, str]:
    """Return names of files that have the same, with as many folders as make them different."""
    folders = {path: _absolute(path).parent.parts[1:] for path in paths}
    for n in range(max(map(len, folders.values())) + 1):
        names = {
            path: "_".join((*parts[len(parts) - n :], stem_of(path)))
            for path, parts in folders.items()
            if n <= len(parts)
        }
        if len(set(names.values())) == len(paths):
            return names
    return {path: stem_of(path) for path in paths}


def stem_of(path: Path) -> str:
    """Return a file's name without the suffix of its format, also ``.nii.gz`` and ``.ome.zarr``."""
    name = _absolute(path).name
    for suffix in sorted(("", ".ome.zarr", ".ome.tif", ".ome.tiff", *SUFFIXES), key=len)[::-1]:
        if suffix and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _absolute(path: Path) -> Path:
    """Return a path without ``.`` and ``..``; a link keeps its own name."""
    return Path(os.path.abspath(path))  # resolve() would follow links


def suffix_for(path: Path) -> str:
    """Return the input's own suffix if label maps can be written in its format."""
    endings = [s for s in WRITTEN_SUFFIXES if path.name.lower().endswith(s)]
    return max(endings, key=len) if endings else _DEFAULT_SUFFIX


def check_out(out: Path, n_volumes: int, n_tasks: int) -> None:
    """Refuse a place that cannot be written, or a file for several label maps."""
    if out.name.lower().endswith(_OTHER_IMAGES) and not out.is_dir():
        check_target(out)
    if not is_file(out):
        require_writable(out)
        return
    if n_volumes > 1 or n_tasks > 1:
        raise UserError("a folder to write several label maps to", f"the file {out}")
    check_target(out)


def is_file(out: Path) -> bool:
    """Return whether a place to write to is meant as one file."""
    return out.name.lower().endswith(WRITTEN_SUFFIXES)


def target_of(out: Path, path: Path, name: str, task: str) -> Path:
    """Return where the label map of a task of the volume in `path` is written."""
    return out if is_file(out) else out / f"{name}_{task}{suffix_for(path)}"


def beside(target: Path, what: str) -> Path:
    """Return where something else that belongs to a label map is written."""
    return target.with_name(f"{stem_of(target)}_{what}{suffix_for(target)}")
