"""The students of a workspace: immutable versions, and which one is current."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ka2er_training.workspace import write_text
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.student import Student

_VERSION = re.compile(r"v\d{4}")


def versions(workspace: Workspace) -> list[str]:
    """Return the names of all students, oldest first."""
    folders = (workspace.folder / "students").iterdir()
    return sorted(f.name for f in folders if _VERSION.fullmatch(f.name))


def current(workspace: Workspace) -> str | None:
    """Return the name of the student that is in use, or None."""
    pointer = workspace.folder / "students" / "current"
    return pointer.read_text(encoding="utf-8").strip() if pointer.exists() else None


def student_folder(workspace: Workspace, version: str | None = None) -> Path:
    """Return a student's folder, by default the current one's.

    Raises
    ------
    UserError
        If there is no such version, or none yet.
    """
    name = version or current(workspace)
    if name is None or name not in versions(workspace):
        known = ", ".join(versions(workspace)) or "none yet; ka2er amalgamate makes one"
        raise UserError(f"a student of {workspace.folder} ({known})", repr(name or "current"))
    return workspace.folder / "students" / name


def add_student(
    workspace: Workspace, student: Student, card: Mapping[str, Any], experts: Mapping[str, Path]
) -> str:
    """Write a student as the next version and return its name; `current` does not change."""
    from napari_ka2er.model.checkpoint import save_student

    known = versions(workspace)
    name = f"v{int(known[-1][1:]) + 1 if known else 1:04d}"
    target = workspace.folder / "students" / name
    save_student(target, student, {**card, "version": name}, experts=experts)
    return name


def make_current(workspace: Workspace, version: str) -> None:
    """Let a version be the one in use."""
    student_folder(workspace, version)
    write_text(workspace.folder / "students" / "current", version + "\n")
