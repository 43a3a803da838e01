"""A workspace: the folder that holds datasets, experts, students and their history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ka2er_training.settings import Settings, new_text, read_settings
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import remove, replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from ka2er_training.settings import TaskRecord

SETTINGS_FILE = "ka2er.toml"
CASES_FORMAT = 2  # of cases.json; 1 had digests that depended on the order of the axes
FOLDERS = ("datasets", "preprocessed", "experts", "packages", "students", "reports", "runs")
SPLITS = {
    "training": ("imagesTr", "labelsTr"),
    "holdout": ("imagesTs", "labelsTs"),
    "unlabelled": ("imagesUn", None),
    # Corrected cases that the gate is tried on, and those of a round that it refused.
    "held": ("imagesHe", "labelsHe"),
    "queued": ("imagesQu", "labelsQu"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One image of a task; `label` is None where nobody drew one."""

    id: str
    image: Path
    label: Path | None
    patient: str


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder with ``ka2er.toml``.

    Parameters
    ----------
    folder : Path
        Absolute path.
    settings : Settings
        What ``ka2er.toml`` said when the workspace was opened.
    """

    folder: Path
    settings: Settings

    @classmethod
    def create(cls, folder: Path) -> Workspace:
        """Make a new workspace in a new or empty folder.

        Raises
        ------
        UserError
            If the folder holds anything, or cannot be written.
        """
        folder = folder.absolute()
        if (folder / SETTINGS_FILE).exists():
            raise UserError("a new folder", f"{folder}, which is a workspace already")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError("a new or empty folder", f"{folder}, which holds something else")
        existed = folder.exists()
        try:
            for name in FOLDERS:
                (folder / name).mkdir(parents=True)
            write_json(folder / "holdout.json", {"format": 1, "tasks": {}})
            write_text(folder / SETTINGS_FILE, new_text(Settings()))
        except (OSError, UserError) as error:
            _remove_new(folder, existed)
            raise UserError("a folder that can be written", f"{folder}: {error}") from error
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path | str) -> Workspace:
        """Open a workspace.

        Raises
        ------
        UserError
            If the folder is none, or its ``ka2er.toml`` cannot be used.
        """
        folder = Path(folder).absolute()
        return cls(folder, read_settings(folder / SETTINGS_FILE))

    @property
    def tasks(self) -> Mapping[str, TaskRecord]:
        """The tasks by name, in the order in which they were added."""
        return self.settings.tasks

    @property
    def experts_folder(self) -> Path:
        """Where nnU-Net's results lie, in nnU-Net's own layout."""
        return self.folder / "experts"

    def record(self, task: str) -> TaskRecord:
        """Return a task's record.

        Raises
        ------
        UserError
            If the workspace has no such task.
        """
        if task not in self.tasks:
            known = ", ".join(self.tasks) or "none yet; ka2er task add adds one"
            raise UserError(f"a task of {self.folder} ({known})", repr(task))
        return self.tasks[task]

    def dataset_folder(self, task: str) -> Path:
        """Return the nnU-Net raw dataset of a task."""
        return self.folder / "datasets" / self.record(task).dataset

    def expert_folder(self, task: str) -> Path:
        """Return where the converted expert of a task is, or will be."""
        return self.experts_folder / "converted" / self.record(task).task.name

    def run_folder(self, name: str) -> Path:
        """Return the folder for the log and state of one piece of work; made if missing."""
        folder = self.folder / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def training_cases(self, task: str) -> list[Case]:
        """Return the labelled cases that experts and students may be trained on."""
        return self._cases(task, "training")

    def holdout_cases(self, task: str) -> list[Case]:
        """Return the labelled cases that no training may ever see."""
        return self._cases(task, "holdout")

    def held_cases(self, task: str) -> list[Case]:
        """Return the corrected cases that are kept from training for the gate."""
        return self._cases(task, "held")

    def unlabelled_cases(self, task: str) -> list[Case]:
        """Return the images without labels; empty if there are none."""
        return self._cases(task, "unlabelled")

    def holdout(self) -> dict[str, Any]:
        """Return the frozen hold-out: per task and case, patient and digests."""
        tasks: dict[str, Any] = read_json(self.folder / "holdout.json")["tasks"]
        return tasks

    def manifest(self, task: str) -> list[dict[str, Any]]:
        """Return id, patient, split and digests of every case; see `ka2er_training.ledger`."""
        cases: list[dict[str, Any]] = read_json(self.dataset_folder(task) / "cases.json")["cases"]
        return cases

    def lock(self, name: str, patience_s: float = 0) -> AbstractContextManager[object]:
        """Take a lock that the system frees when the process ends, however it ends.

        `patience_s` is how long to wait for another process.

        Raises
        ------
        UserError
            If another process holds it, or the system refuses to write it.
        """
        lock = FileLock(self.folder / "runs" / f"{name}.lock")
        try:
            return lock.acquire(timeout=patience_s)
        except Timeout as error:
            remedy = "wait for it to end or stop it"
            raise UserError(
                f"{name} to be idle in {self.folder}", "another process at work", remedy
            ) from error
        except OSError as error:
            got, remedy = error.strerror or f"{error}", "check permissions and free space"
            raise UserError(f"to write in {self.folder / 'runs'}", got, remedy) from error

    def _cases(self, task: str, split: str) -> list[Case]:
        """Return the cases of one split, in the order of their ids."""
        folder = self.dataset_folder(task)
        ending = read_json(folder / "dataset.json")["file_ending"]
        images, labels = SPLITS[split]
        return [
            Case(
                case["id"],
                folder / images / f"{case['id']}_0000{ending}",
                folder / labels / f"{case['id']}{ending}" if labels else None,
                case["patient"],
            )
            for case in self.manifest(task)
            if case["split"] == split
        ]


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON under a temporary name, then rename it."""
    write_text(path, json.dumps(data, indent=1, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file of ours, or of a dataset, says.

    Raises
    ------
    UserError
        If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the JSON file {path}", f"{error}") from error


def _remove_new(folder: Path, existed: bool) -> None:
    """Remove what `Workspace.create` made before it failed."""
    if folder.exists():
        for path in list(folder.iterdir()) if existed else [folder]:
            remove(path)
