"""Which files a command line names, read ahead of their use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import (
    SUFFIXES,
    WRITTEN_SUFFIXES,
    distinct,
    is_readable,
    read_volume,
    volumes_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from napari_ka2er.core.volume import Volume

_DEFAULT_SUFFIX = ".nii.gz"


def list_inputs(inputs: Sequence[Path]) -> list[Path]:
    """Return the volumes that paths stand for, each once; folders are opened, sorted by name.

    A DICOM series is one volume: a folder that holds nothing else stands for itself, and of several
    files of a series, as a shell's ``*.dcm`` names them, the first counts.

    Raises
    ------
    UserError
        If a path does not exist or holds no volume.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise UserError("a volume or a folder of volumes", f"{path}, which does not exist")
        inside = volumes_in(path) if path.is_dir() else []
        if not inside and not is_readable(path):
            raise UserError(f"a volume ({', '.join(SUFFIXES)}, DICOM) or a folder", f"{path}")
        found += inside or [path]
    return distinct(found)


def read_ahead(paths: Sequence[Path], level: int = 0) -> Iterator[tuple[Path, Future[Volume]]]:
    """Yield paths and their volumes to be; while one is used, the next is read in a thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(read_volume, paths[0], level)
        for number, path in enumerate(paths):
            current = coming
            wait([current])
            if number + 1 < len(paths):
                coming = pool.submit(read_volume, paths[number + 1], level)
            yield path, current


def case_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the part of each file's name before the suffix.

    Raises
    ------
    UserError
        If two are equal: the results would overwrite each other.
    """
    names = {path: stem_of(path) for path in paths}
    seen: dict[str, Path] = {}
    for path, name in names.items():
        if name in seen:
            raise UserError("inputs with different names", f"{seen[name]} and {path}")
        seen[name] = path
    return names


def stem_of(path: Path) -> str:
    """Return a file's name without the suffix of its format, also ``.nii.gz`` and ``.ome.zarr``."""
    name = path.resolve().name
    for suffix in sorted(("", ".ome.zarr", ".ome.tif", ".ome.tiff", *SUFFIXES), key=len)[::-1]:
        if suffix and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def suffix_for(path: Path) -> str:
    """Return the input's own suffix if label maps can be written in its format."""
    endings = [s for s in WRITTEN_SUFFIXES if path.name.lower().endswith(s)]
    return max(endings, key=len) if endings else _DEFAULT_SUFFIX
