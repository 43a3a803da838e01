"""The students of a workspace: immutable versions, which one is current, and how it came to be.

Folders ``students/vNNNN`` never change once they are there.  What happens to a version is in
``students/history.jsonl`` (`ka2er_training.history`), which one is in use in ``students/current``.
What changes one of them holds a lock, which the system frees if the process dies.

With a student its experts come into use as the workspace's: its weights were trained on those.
``students/experts_due`` is there while they do, so that a killed process is made good.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from typing import TYPE_CHECKING, Any

from ka2er_training.history import Past, append, new_event, past_of, read_events
from ka2er_training.workspace import read_json, write_text
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import left_behind, remove, replacing
from napari_ka2er.core.student_card import read_student_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ka2er_training.history import Event, State
    from ka2er_training.verdicts import Verdict
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.student import Student

_VERSION = re.compile(r"v\d{4,}")
_PATIENCE_S = 60.0

logger = logging.getLogger(__name__)


def versions(workspace: Workspace) -> list[str]:
    """Return the names of all students, oldest first."""
    folders = (workspace.folder / "students").iterdir()
    names = (f.name for f in folders if _VERSION.fullmatch(f.name))
    return sorted(names, key=lambda name: int(name[1:]))


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

    with _lock(workspace):
        name = _next(workspace)
        _note(workspace, "added", name)
        target = workspace.folder / "students" / name
        save_student(target, student, {**card, "version": name}, experts=experts)
    return name


def add_version(
    workspace: Workspace, folder: Path, card: Mapping[str, Any], verdict: Verdict | None = None
) -> str:
    """Copy a student's folder as the next version and return its name; `current` does not change.

    May be called again after a crash: the same student with the same lineage is added once.

    Parameters
    ----------
    workspace : Workspace
        Whose registry.
    folder : Path
        The student, with its experts; it stays where it is.
    card : mapping
        Takes the place of the same keys of the folder's own card: ``lineage``
        (`ka2er_training.lineage.lineage_of`), ``metrics``, ``data``, ``notes`` and ``created``.
    verdict : Verdict, optional
        The gate's: a refused version can only be promoted with force.

    Raises
    ------
    UserError
        If the folder holds no student, the registry is in use, or it cannot be written.
    """
    text = read_student_json(folder)
    text["card"] = {**text["card"], **card}
    with _lock(workspace):
        if there := _same(workspace, text):
            return there
        name = _next(workspace)
        text["card"]["version"] = name
        with replacing(workspace.folder / "students" / name) as building:
            shutil.copytree(folder, building)
            (building / "student.json").write_text(json.dumps(text, indent=2) + "\n", "utf-8")
            # Before the folder is there: a version that was refused must never be there unnoted.
            reason = "" if verdict is None else verdict.reason
            gate = None if verdict is None else verdict.promoted
            _note(workspace, "added", name, reason=reason, gate=gate)
    return name


def promote(workspace: Workspace, version: str, reason: str, *, force: bool = False) -> None:
    """Let a version be the one in use, with its experts; may be called again, say after a crash.

    `force` promotes what the gate refused; the history keeps that, and the reason.

    Raises
    ------
    UserError
        If there is no such version, the gate refused it, or the registry is in use.
    """
    with _lock(workspace):
        student_folder(workspace, version)
        gate = _past(workspace).gates.get(version)
        if gate is False and not force and version != current(workspace):
            raise UserError(
                "a version that the gate let pass", f"{version}, which it refused", "or use --force"
            )
        _switch(workspace, "promoted", version, reason, gate=gate, force=force and gate is False)


def rollback(workspace: Workspace, reason: str = "") -> str:
    """Go back to the version that was current before, and return it; again, to the one before that.

    Its experts come into use again, too.  Raises `UserError` if none was, or the registry is in
    use.
    """
    with _lock(workspace):
        _reconcile(workspace)
        known = versions(workspace)
        earlier = [name for name in _past(workspace).stack[:-1] if name in known]
        if not earlier:
            now = current(workspace)
            got = "no student so far" if now is None else f"none before {now}"
            raise UserError("a version that was current before", got)
        _switch(workspace, "rolled back", earlier[-1], reason)
    return earlier[-1]


def make_current(workspace: Workspace, version: str, reason: str = "the first student") -> None:
    """Promote a version of which no gate was asked."""
    promote(workspace, version, reason)


def settle_experts(workspace: Workspace) -> None:
    """Let the current student's experts come into use if a killed process has not got that far.

    Raises
    ------
    UserError
        If the registry is in use, or an expert cannot be written.
    """
    with _lock(workspace):
        due = _due(workspace)
        name = due.read_text(encoding="utf-8").strip() if due.exists() else ""
        if name and name == current(workspace):
            _use_experts(workspace, name)
        due.unlink(missing_ok=True)


def tasks_of(workspace: Workspace, version: str) -> list[str]:
    """Return the names of a student's tasks."""
    config = read_student_json(student_folder(workspace, version))["config"]
    return [str(entry["task"]["name"]) for entry in config["tasks"]]


def history(workspace: Workspace) -> list[Event]:
    """Return what happened, oldest first."""
    return read_events(_journal(workspace))


def state_of(workspace: Workspace, version: str) -> State:
    """Return whether a version is current, a candidate, refused, or was current once."""
    if version == current(workspace):
        return "current"
    past = _past(workspace)
    if version in past.once:
        return "was current"
    return "refused" if past.gates.get(version) is False else "candidate"


def _switch(workspace: Workspace, kind: Any, version: str, reason: str, **more: Any) -> None:
    """Note that a version becomes current, then let it, then its experts.

    The caller holds the lock.
    """
    _reconcile(workspace)
    previous = current(workspace)
    if version != previous:
        _note(workspace, kind, version, reason=reason, previous=previous, **more)
        write_text(_due(workspace), version + "\n")
        write_text(workspace.folder / "students" / "current", version + "\n")
    _use_experts(workspace, version)
    _due(workspace).unlink(missing_ok=True)


def _use_experts(workspace: Workspace, version: str) -> None:
    """Let a version's experts be the workspace's; those of tasks that it does not know stay."""
    found = (workspace.folder / "students" / version / "experts").glob("*/expert.json")
    for source in (path.parent for path in sorted(found) if path.parent.name in workspace.tasks):
        target = workspace.expert_folder(source.name)
        present = target / "expert.json"
        if present.is_file() and read_json(present) == read_json(source / "expert.json"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            shutil.copytree(source, partial)
        logger.info("expert %s is that of %s now", source.name, version)


def _due(workspace: Workspace) -> Path:
    return workspace.folder / "students" / "experts_due"


def _reconcile(workspace: Workspace) -> None:
    """Note which version is current if that is another than the history says."""
    name, stack = current(workspace), _past(workspace).stack
    if name is None or stack[-1:] == [name]:
        return
    cut = f"{stack[-1]} was to be current; that was cut short, or changed by hand" if stack else ""
    _note(workspace, "found", name, reason=cut or "was current before this history began")


def _note(workspace: Workspace, kind: Any, version: str, **more: Any) -> None:
    path = _journal(workspace)
    try:
        append(path, new_event(kind, version, **more))
    except OSError as error:
        got, remedy = error.strerror or f"{error}", "check permissions and free space"
        raise UserError(f"to write {path}", got, remedy) from error


def _same(workspace: Workspace, text: Mapping[str, Any]) -> str | None:
    """Return the version that is this student of this origin, if there is one."""
    for name in reversed(versions(workspace)):
        if _origin(read_student_json(workspace.folder / "students" / name)) == _origin(text):
            return name
    return None


def _origin(text: Mapping[str, Any]) -> tuple[Any, ...]:
    lineage = text["card"].get("lineage") or {}
    origin = {key: lineage.get(key) for key in ("parent", "round", "packages")}
    return text["weights"]["sha256"], text["config"], origin


def _next(workspace: Workspace) -> str:
    """Return the name of the next version; names of versions in the history are not used again."""
    for path in left_behind(workspace.folder / "students"):
        remove(path)
    used = [*versions(workspace), *(event.version for event in history(workspace))]
    return f"v{max((int(name[1:]) for name in used), default=0) + 1:04d}"


def _journal(workspace: Workspace) -> Path:
    return workspace.folder / "students" / "history.jsonl"


def _past(workspace: Workspace) -> Past:
    return past_of(history(workspace))


def _lock(workspace: Workspace) -> AbstractContextManager[object]:
    """Wait until no other process changes the registry."""
    return workspace.lock("registry", _PATIENCE_S)
