"""What of a session went into which package: a file beside its log, for windows of later days.

It is no action of the log: older versions refuse a log with an action that they do not know.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.correction import MANIFEST
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.hashing import file_digest
from napari_ka2er.core.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable

EXPORTS = "exports.json"


@dataclass(frozen=True, slots=True)
class Export:
    """A package that a session went into.

    Parameters
    ----------
    package : Path
        The package's folder, absolute.
    digest : str
        The SHA-256 of its manifest.
    n_worked : int
        How many actions the session had then, choices of a student left out.
    time_s : float
        When, in seconds since 1970.
    """

    package: Path
    digest: str
    n_worked: int
    time_s: float

    @property
    def is_there(self) -> bool:
        """Whether the package still lies where it was written, and is the same."""
        try:
            return file_digest(self.package / MANIFEST) == self.digest
        except OSError:
            return False


def note_export(folder: Path, package: Path, n_worked: int, time_s: float) -> None:
    """Note in a session's folder that it went into a package; see `Export`.

    Raises
    ------
    UserError
        If the folder cannot be written to, or what was noted before cannot be read now.
    """
    made = Export(package.resolve(), file_digest(package / MANIFEST), n_worked, time_s)
    try:
        before = _read(folder)
    except OSError as error:  # it would be replaced by the new note alone
        remedy = f"{package.name} is complete, but its session may be offered again"
        raise UserError(f"to read {folder / EXPORTS}", f"{error.strerror}", remedy) from error
    known = [{**asdict(export), "package": str(export.package)} for export in (*before, made)]
    with replacing(folder / EXPORTS) as temporary:
        temporary.write_text(json.dumps({"exports": known}, indent=2) + "\n", "utf-8")


def read_exports(folder: Path) -> tuple[Export, ...]:
    """Return the packages that a session went into, oldest first; none if it cannot be read.

    Notes that are malformed are left out.
    """
    try:
        return _read(folder)
    except OSError:
        return ()


def is_exported(exports: Iterable[Export], n_worked: int) -> bool:
    """Return whether a package has all that was done in a session of so many actions."""
    return any(export.n_worked >= n_worked for export in exports)


def packages_in(parent: Path) -> list[Export]:
    """Return the packages that the sessions in a folder went into, those that are there still.

    Returns
    -------
    list of Export
        Newest first, each package once, whatever number of sessions is in it.
    """
    found: dict[str, Export] = {}
    for path in parent.glob(f"*/{EXPORTS}") if parent.is_dir() else ():
        found.update({export.digest: export for export in read_exports(path.parent)})
    return sorted((e for e in found.values() if e.is_there), key=lambda e: -e.time_s)


def _read(folder: Path) -> tuple[Export, ...]:
    """Return the well-formed notes; raises `OSError` if the file is there but cannot be read."""
    try:
        known = list(json.loads((folder / EXPORTS).read_text("utf-8"))["exports"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ()
    found = (_export(data) for data in known)
    return tuple(export for export in found if export is not None)


def _export(data: Any) -> Export | None:
    """Return the export that a note tells of, or None if it is malformed."""
    try:
        return Export(
            package=Path(data["package"]),
            digest=str(data["digest"]),
            n_worked=int(data["n_worked"]),
            time_s=float(data["time_s"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
