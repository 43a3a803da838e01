"""Which format a path has, by its name and first bytes, and which volumes lie in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: the module that handles it, and the suffixes it reads and writes."""

    module: str
    suffixes: tuple[str, ...]
    written: tuple[str, ...]


# A detached header (.nhdr, .mhd) names its data file, so the pair cannot be replaced in one step.
FORMATS = (
    Format("nifti", (".nii", ".nii.gz"), (".nii", ".nii.gz")),
    Format("itk", (".nrrd", ".nhdr", ".mha", ".mhd"), (".nrrd", ".mha")),
    Format("dicom", (".dcm", ".ima"), ()),
    Format("tiff", (".tif", ".tiff"), (".tif", ".tiff")),
    Format("zarr", (".zarr",), (".zarr",)),
)
SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.suffixes)
WRITTEN_SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.written)


def module_name(path: Path) -> str | None:
    """Return the module that reads this existing path, or None."""
    if path.is_dir() and any((path / n).is_file() for n in ("zarr.json", ".zgroup", ".zattrs")):
        return "zarr"
    if path.is_dir():
        return "dicom" if any(map(_is_dicom, sorted(path.iterdir()))) else None
    for form in FORMATS:
        if form.module != "zarr" and path.name.lower().endswith(form.suffixes):
            return form.module
    return "dicom" if _has_dicom_magic(path) else None


def _is_dicom(path: Path) -> bool:
    """Return whether a file in a folder is DICOM; some have no magic, and ._x.dcm is none."""
    named = path.suffix.lower() in (".dcm", ".ima") and not path.name.startswith(".")
    return (named and path.is_file()) or _has_dicom_magic(path)


def _has_dicom_magic(path: Path) -> bool:
    """Return whether a file, whatever its name, begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def volumes_in(folder: Path) -> list[Path]:
    """Return what `read_volume` takes in a folder, each volume once, sorted by name.

    Parameters
    ----------
    folder : Path
        An OME-Zarr or a DICOM series, which stand for themselves; or a folder that holds image
        files, OME-Zarrs, DICOM series side by side, or series in folders of their own.

    Returns
    -------
    list of Path
        A DICOM series is its folder, or its first file where several share the folder.  Empty if
        there is nothing to read.
    """
    if module_name(folder) == "zarr":
        return [folder]
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [*filter(_is_image, inside), *_series_in(folder).values()]
    for path in inside:
        if path.is_dir() and path not in found:
            found += _series_in(path).values()
    return sorted(set(found))


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Return paths without those whose volume an earlier one names, as files of a series do."""
    once: dict[Path, Path] = {}
    series: dict[Path, dict[Path, Path]] = {}
    for path in paths:
        volume = path
        if not path.is_dir() and module_name(path) == "dicom":
            if path.parent not in series:
                series[path.parent] = _series_in(path.parent)
            volume = series[path.parent].get(path, path)
        once.setdefault(volume, path)
    return list(once.values())


def _is_image(path: Path) -> bool:
    """Return whether a path in a folder is a volume by itself, and none of a DICOM series."""
    suffixes = tuple(s for form in FORMATS if form.module != "dicom" for s in form.suffixes)
    is_zarr = path.is_dir() and module_name(path) == "zarr"
    return is_zarr or path.name.lower().endswith(suffixes)


def _series_in(folder: Path) -> dict[Path, Path]:
    """Return what each DICOM file right in a folder belongs to.

    That is the folder, or the first file of its series where there are several.
    """
    if module_name(folder) != "dicom":
        return {}
    from napari_ka2er.core.io.dicom import series_in  # pydicom takes its time to import

    series = [files for _, files in series_in(folder)]
    return {file: folder if len(series) == 1 else files[0] for files in series for file in files}
