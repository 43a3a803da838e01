"""Which student people chose last: the next window begins with it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import replacing
from napari_ka2er.core.student_card import student_in
from napari_ka2er.model.catalogue import find_student

_NAME = "last_student.json"
logger = logging.getLogger(__name__)


def remember_student(folder: Path, student: Path) -> None:
    """Note in a folder which student, or workspace, was chosen; the sample student is the default.

    Where it cannot be noted, the log tells: nobody should have to stop working for it.
    """
    chosen = "" if student == sample_student() else str(student.absolute())
    if chosen == _noted(folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / _NAME) as temporary:
            temporary.write_text(json.dumps({"folder": chosen}) + "\n", "utf-8")
    except (UserError, OSError) as error:
        logger.warning("the next window will not know this student: %s", error)


def last_student(folder: Path) -> Path:
    """Return what was chosen last, though it may be gone since; at first the sample student."""
    noted = _noted(folder)
    return Path(noted) if noted else sample_student()


def sample_student() -> Path:
    """Return the folder of the student that comes with the plugin."""
    return find_student("sample")


def stood_for(student: Path) -> Path:
    """Return the workspace whose current student lies in a folder, or the folder itself.

    The workspace, so that the next round's student is followed, too.
    """
    workspace = student.parent.parent
    try:
        return workspace if student_in(workspace) == student else student
    except UserError:
        return student


def _noted(folder: Path) -> str:
    try:
        return str(json.loads((folder / _NAME).read_text("utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
