"""A student for other programs: the work behind `ka2er export`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import make_folder, replacing, require_writable
from napari_ka2er.core.student_card import read_student_json
from napari_ka2er.model.config import StudentConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_ka2er.core.task import Task
    from napari_ka2er.model.config import Mode, TaskEntry

BUNDLE, ONNX = "monai-bundle", "onnx"
# What a folder that may be replaced holds, by format.
MARKS = {BUNDLE: "configs/metadata.json", ONNX: "onnx.json"}
DEFAULT_MODES: dict[str, Mode] = {BUNDLE: "sparse", ONNX: "distilled"}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be exported.

    Parameters
    ----------
    student : Path
        The student's folder.
    text : dict
        Its student.json.
    config : StudentConfig
        The numbers in it.
    entry : TaskEntry
        The task.
    mode : str
        The student's mode.
    """

    student: Path
    text: dict[str, Any]
    config: StudentConfig
    entry: TaskEntry
    mode: Mode

    @property
    def task(self) -> Task:
        """The task's names and labels."""
        return self.entry.task

    @property
    def version(self) -> str:
        """The student's version, "unknown" if nobody gave it one."""
        return str(self.text["card"].get("version") or "unknown")

    @property
    def data(self) -> Sequence[dict[str, Any]]:
        """Sources and licences of the training data."""
        return list(self.text["card"].get("data") or [])


def export_student(
    student: Path, to: str, out: Path, *, task: str = "", mode: Mode | None = None
) -> dict[str, Any]:
    """Write a student as a MONAI bundle or as ONNX graphs.

    Parameters
    ----------
    student : Path
        Its folder.
    to : str
        ``"monai-bundle"`` or ``"onnx"``.
    out : Path
        A folder; an earlier export of the same kind is replaced.
    task : str
        Which task; may be empty if the student has only one.
    mode : str, optional
        By default sparse for a bundle and distilled for ONNX.

    Returns
    -------
    dict
        ``folder``, ``to``, ``task``, ``mode`` and ``files`` with their sizes in bytes.

    Raises
    ------
    UserError
        If the student, the task or the mode cannot be exported, or the folder holds something else
        or cannot be made.
    """
    order = _order(student, task, mode or DEFAULT_MODES[to])
    _refuse_other_content(out, to)
    require_writable(out.parent)
    write = _writer(to)
    make_folder(out.parent)
    with replacing(out) as building:
        building.mkdir()
        write(order, building)
    names = {"folder": str(out), "to": to, "task": order.task.name, "mode": order.mode}
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return names | {"files": {p.relative_to(out).as_posix(): p.stat().st_size for p in paths}}


def _writer(to: str) -> Any:
    """Return the function that writes a format; torch is imported only now."""
    if to == BUNDLE:
        from ka2er_training.export_bundle import write_bundle

        return write_bundle
    from ka2er_training.export_onnx import write_onnx

    return write_onnx


def _order(student: Path, task: str, mode: Mode) -> Order:
    text = read_student_json(student)
    config = StudentConfig.from_json(text["config"])
    if not task and len(config.tasks) > 1:
        known = ", ".join(entry.task.name for entry in config.tasks)
        raise UserError("one task, as tasks have different grids", f"none of {known}", "use --task")
    entry = config.entry(task or config.tasks[0].task.name)
    return Order(student, text, config, entry, mode)


def _refuse_other_content(out: Path, to: str) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARKS[to]).is_file()):
        raise UserError(f"a new folder or an earlier {to} export", f"{out}", "choose another")


def our_licence() -> str:
    """Return the text of the licence that this software comes with."""
    text = distribution("napari-ka2er").read_text("licenses/LICENSE")
    if text is None:
        raise UserError("the licence of napari-ka2er", "none in its installation", "install again")
    return text


def copy_descriptions(student: Path, out: Path, names: Sequence[str]) -> None:
    """Copy student.json and what describes the experts of these names, without any weights."""
    out.mkdir(parents=True)
    shutil.copy(student / "student.json", out)
    for name in names:
        (out / "experts" / name).mkdir(parents=True)
        for part in ("expert.json", "plans.json", "dataset.json"):
            shutil.copy(student / "experts" / name / part, out / "experts" / name)
