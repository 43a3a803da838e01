"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes `path`'s place at the end.

    The temporary name ends like `path`, so that libraries choose the same format.  If anything
    goes wrong, `path` stays as it was and the temporary file or folder is removed.

    Raises
    ------
    UserError
        If there is no such folder, or the system refuses to write (no permission, disk full).
    """
    if not path.parent.is_dir():
        raise UserError("a folder to write to", f"{path.parent}, which is none", "create it first")
    temporary = path.with_name(f".{uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        _put(temporary, path)
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
    aside = path.with_name(f".{uuid4().hex[:8]}-old-{path.name}")
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(aside, path)
        raise
    remove(aside)
