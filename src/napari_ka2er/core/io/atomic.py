"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}-(new|old)(\..*)?")
_LONGEST_SUFFIX = 16  # what comes after the first of two dots may be half the name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes `path`'s place at the end.

    The temporary name has the suffixes of `path` in lower case, so that libraries choose the same
    format.  A symbolic link stays one: what it leads to is replaced.  A file that is replaced
    leaves its permissions to the new one.  If anything goes wrong, `path` stays as it was and the
    temporary file or folder is removed.

    Raises
    ------
    UserError
        If there is no such folder, or the system refuses to write (no permission, disk full).
    """
    # A link to nothing has nothing to keep.  Unlike Path's, these checks bear too long a name.
    is_link = os.path.islink(path) and os.path.exists(path)
    target = Path(os.path.realpath(path)) if is_link else path
    if not target.parent.is_dir():
        raise UserError(
            "a folder to write to", f"{target.parent}, which is none", "create it first"
        )
    temporary = _beside(target)
    try:
        yield temporary
        _flush(temporary)
        if target.is_file():
            shutil.copymode(target, temporary)
        _put(temporary, target)
    except OSError as error:
        raise UserError(
            f"to write {path.name} in {path.parent}",
            error.strerror or f"{error}",
            "check permissions and free space",
        ) from error
    finally:
        remove(temporary)


def require_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made; make nothing.

    Raises
    ------
    UserError
        If it is a file or below one, or the system refuses to write there.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise UserError(f"a folder to write to at {folder}", f"{there}, which is a file")
    try:  # permissions alone do not tell: root has them all, in read-only file systems too
        with TemporaryDirectory(prefix=".ka2er-", dir=there):
            pass
    except OSError as error:
        raise _refused(folder, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises
    ------
    UserError
        If the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error


def _refused(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"to write in {folder}",
        error.strerror or f"{error}",
        "check permissions and free space, or choose another folder",
    )


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def left_behind(folder: Path) -> list[Path]:
    """Return what processes that were killed in `replacing` have left in a folder.

    Also what others are writing there now: who clears it away must know that nobody is.
    """
    return [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]


def _beside(path: Path, word: str = "new") -> Path:
    """Return an unused hidden name in the folder of `path`, as short as it can be.

    The name of `path` may be as long as the system allows, so only its suffixes (``.nii.gz``,
    ``.ome.tif``) stay; in lower case, as ITK and nibabel know no others.
    """
    suffixes = "".join(path.suffixes[-2:]).lower()[-_LONGEST_SUFFIX:]
    return path.with_name(f".{uuid4().hex[:8]}-{word}{suffixes}")


def _flush(path: Path) -> None:
    """Wait until a file's bytes are on the disk: a full network disk only tells then."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _put(temporary: Path, path: Path) -> None:
    """Move `temporary` to `path`; an existing folder cannot be replaced at once, so goes aside."""
    if not (path.is_dir() and temporary.is_dir()):
        os.replace(temporary, path)
        return
    aside = _beside(path, "old")
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(aside, path)
        raise
    remove(aside)
