"""Students by name: the one that comes with the project, and those to download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Download:
    """A zip archive of one student folder: where it is, and the SHA-256 it must have."""

    url: str
    sha256: str


# Published students.  None has been published yet; `find_student` works with any.
DOWNLOADS: Mapping[str, Download] = {}


def sample_folder() -> Path:
    """Return the folder with the sample student and volumes that come with the project."""
    checkout = Path(__file__).parents[3] / "sample_data"
    if checkout.is_dir():
        return checkout
    # A namespace package's folder has no path of its own in Python 3.11, what is in it has one.
    return Path(str(files("ka2er_sample_data") / "volumes")).parent


def find_student(name: str, downloads: Mapping[str, Download] = DOWNLOADS) -> Path:
    """Return a student's folder.

    Parameters
    ----------
    name : str
        A folder, ``"sample"``, or the name of a published student, which is downloaded once.
    downloads : mapping of str to Download
        The published students.

    Raises
    ------
    UserError
        If there is nothing of that name, or what was downloaded is not what was published.
    """
    if name == SAMPLE:
        return sample_folder() / "student"
    if name in downloads:
        return _downloaded(downloads[name])
    folder = Path(name).expanduser()
    if folder.is_file():
        raise UserError(
            "a student's folder", f"the file {folder}", "give the folder with student.json"
        )
    if not folder.is_dir():
        known = ", ".join((SAMPLE, *downloads))
        raise UserError(f"a student's folder or one of {known}", repr(name))
    return folder


def _downloaded(download: Download) -> Path:
    """Download and unpack a student once; the archive is checked before it is opened."""
    import pooch  # half a second that opening napari need not pay
    import requests

    try:
        paths = pooch.retrieve(
            download.url,
            known_hash=f"sha256:{download.sha256}",
            path=Path(pooch.os_cache("napari-ka2er")) / "students",
            processor=pooch.Unzip(),
        )
    except (ValueError, OSError, requests.RequestException) as error:
        raise UserError(f"the student at {download.url}", f"{error}") from error
    found = [Path(path) for path in paths if Path(path).name == "student.json"]
    if len(found) != 1:
        raise UserError("an archive with one student.json", f"{len(found)} in {download.url}")
    return found[0].parent
