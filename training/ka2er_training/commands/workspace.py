"""The `init` and `task` commands."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    import argparse

    from ka2er_training.sources import Source
    from ka2er_training.workspace import Workspace

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(commands, "init", run_init, "make a workspace in a new or empty folder")
    command.add_argument("folder", type=Path, metavar="DIR")
    task = commands.add_parser(
        "task", help="the tasks of a workspace", description="The tasks of a workspace."
    )
    _add_task_add(task.add_subparsers(required=True, metavar="ACTION"))


def _add_task_add(actions: Any) -> None:
    """Add `task add`."""
    command = add_command(actions, "add", run_task_add, "add a data set as a task")
    command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    command.add_argument(
        "dataset", type=Path, metavar="DATASET", nargs="?", help="nnU-Net raw or MSD task folder"
    )
    command.add_argument(
        "--name", default="", help="name of the task (default: as the data set says)"
    )
    command.add_argument(
        "--spacing", default="", metavar="Z,Y,X", help="grid in mm (default: median of the images)"
    )
    command.add_argument("--images", type=Path, help="folder of images, instead of DATASET")
    command.add_argument("--labels", type=Path, help="folder of label maps with the same names")
    command.add_argument("--unlabelled", type=Path, help="folder of images without labels")
    command.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="VALUE=NAME",
        help="with --labels; repeatable",
    )
    command.add_argument(
        "--modality", default="MR", help="with --images: CT, MR … (default: %(default)s)"
    )
    command.add_argument("--channel", type=int, help="which channel, where images have several")
    command.add_argument(
        "--patient",
        default="",
        metavar="REGEX",
        help="finds the patient in a case id (default: all of it)",
    )
    command.add_argument(
        "--licence", default="", help="of the data (default: as the data set says)"
    )
    command.add_argument("--source", default="", help="where the data come from")


def run_init(args: argparse.Namespace) -> dict[str, Any]:
    """Make a workspace."""
    from ka2er_training.workspace import Workspace

    folder = Workspace.create(args.folder).folder
    logger.info("workspace %s, without tasks so far", folder)
    return {"workspace": str(folder)}


def run_task_add(args: argparse.Namespace) -> dict[str, Any]:
    """Add a task."""
    from ka2er_training.dataset import TaskOptions, add_task
    from ka2er_training.integrity import ReadOptions
    from ka2er_training.progress import progress_bar
    from ka2er_training.workspace import Workspace

    workspace = Workspace.open(args.folder)
    read = ReadOptions(args.channel, args.patient)
    options = TaskOptions(args.name, _spacing(args.spacing), args.licence, args.source, read)
    with progress_bar() as progress:
        add_task(workspace, _source(args), options, progress=progress)
    workspace = Workspace.open(args.folder)
    result = _described(workspace, list(workspace.tasks)[-1])
    logger.info(
        "task %s: %d training, %d held-out and %d unlabelled cases, spacing %s mm",
        *(result[key] for key in ("task", "training", "holdout", "unlabelled")),
        " x ".join(f"{mm:g}" for mm in result["spacing_mm"]),
    )
    return result


def _described(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return what a workspace knows about a task, and how many cases it has."""
    return {
        "task": name,
        **workspace.tasks[name].to_table(),
        "training": len(workspace.training_cases(name)),
        "holdout": len(workspace.holdout_cases(name)),
        "unlabelled": len(workspace.unlabelled_cases(name)),
    }


def _source(args: argparse.Namespace) -> Source:
    """Return the source that the arguments name."""
    from ka2er_training.sources import read_folders, read_source, with_unlabelled

    if (args.images is None) != (args.labels is None) or (args.dataset is None) == (
        args.images is None
    ):
        raise UserError("DATASET, or --images and --labels", "something else")
    if args.dataset:
        source = read_source(args.dataset, args.channel)
    else:
        source = read_folders(args.images, args.labels, args.label, args.modality)
    return with_unlabelled(source, args.unlabelled) if args.unlabelled else source


def _spacing(text: str) -> tuple[float, float, float] | None:
    """Return three lengths above 0 from ``"z,y,x"``, None from nothing."""
    if not text:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError("--spacing like 1,1,1 (z,y,x in mm)", repr(text)) from error
    return z, y, x
