"""The `export` command."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import STUDENT_HELP, add_command

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(
        commands, "export", run_export, "write a student for other programs: MONAI bundle or ONNX"
    )
    command.add_argument("student", metavar="STUDENT", help=STUDENT_HELP)
    command.add_argument("--to", required=True, choices=["monai-bundle", "onnx"])
    command.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="a folder")
    command.add_argument("--task", default="", help="of the student; needed if it has several")
    command.add_argument(
        "--mode",
        choices=["sparse", "full", "distilled"],
        help="default: sparse for a bundle, distilled for ONNX, which has no other",
    )


def run_export(args: argparse.Namespace) -> dict[str, Any]:
    """Export a student."""
    from ka2er_training.export import export_student
    from napari_ka2er.core.student_card import student_in
    from napari_ka2er.model.catalogue import find_student

    folder = student_in(find_student(args.student))
    result = export_student(folder, args.to, args.out, task=args.task, mode=args.mode)
    size = sum(result["files"].values()) / 2**20
    logger.info("%s, %s: %s, %.1f MiB", result["task"], result["mode"], args.out, size)
    return result
