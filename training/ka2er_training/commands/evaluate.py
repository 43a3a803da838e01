"""The `evaluate` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device, given

if TYPE_CHECKING:
    import argparse

    from ka2er_training.workspace import Workspace


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(
        commands, "evaluate", run_evaluate, "Dice, NSD and HD95 on a workspace's hold-out"
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    command.add_argument(
        "--student",
        metavar="V",
        help="version (default: the current one); with --clicks also a folder, or 'sample'",
    )
    command.add_argument("--mode", default="sparse", choices=["sparse", "full", "distilled"])
    command.add_argument("--experts", action="store_true", help="the experts instead of a student")
    command.add_argument("--clicks", type=int, metavar="N", help="Dice after 0 to N clicks instead")
    command.add_argument(
        "--perfect-mm",
        type=float,
        metavar="R",
        help="with --clicks: not the student but the truth answers, within R mm of each click",
    )
    command.add_argument(
        "--unnamed",
        action="store_true",
        help="with --clicks: every piece of a label from nothing, and the student, who need not "
        "know the task, is not told what it is",
    )
    command.add_argument(
        "--boxed",
        action="store_true",
        help="with --unnamed: every piece is first boxed, in its first and its last slice",
    )
    command.add_argument(
        "--cases",
        type=int,
        default=6,
        help="with --clicks: of each task at most (default: %(default)s)",
    )
    add_device(command)


def run_evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a student or the experts, print the table, and keep it in ``reports``."""
    from ka2er_training.evaluate_workspace import evaluate_workspace
    from ka2er_training.progress import progress_bar
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.device import resolve_device

    _refuse_ignored(args)
    workspace = Workspace.open(args.folder)
    device = str(resolve_device(args.device))
    if args.clicks is not None:
        return _clicks(args, workspace, device)
    with progress_bar() as progress:
        result: dict[str, Any] = evaluate_workspace(
            workspace,
            args.student,
            mode=args.mode,
            experts=args.experts,
            device=device,
            progress=progress,
        )
    if not args.json:
        sys.stdout.write(result["table"] + "\n")
    return result


def _refuse_ignored(args: argparse.Namespace) -> None:
    """Refuse options that would not count."""
    from napari_ka2er.core.errors import UserError

    of_clicks = given(args, "perfect_mm", "unnamed", "boxed", "cases")
    if of_clicks and args.clicks is None:
        raise UserError(f"--clicks N with {of_clicks[0]}", "none")
    if args.perfect_mm is not None and not args.perfect_mm > 0:
        raise UserError("--perfect-mm of more than 0 mm", f"{args.perfect_mm:g}")
    of_students = given(args, "clicks", "student", "mode")
    if of_students and args.experts:
        raise UserError(f"{of_students[0]} or --experts", "both", "leave one out")


def _clicks(args: argparse.Namespace, workspace: Workspace, device: str) -> dict[str, Any]:
    """Print what clicks add."""
    from ka2er_training.evaluate_clicks import ClickPlan, evaluate_clicks

    plan = ClickPlan(
        args.clicks,
        args.cases,
        args.perfect_mm,
        is_named=not args.unnamed,
        is_boxed=args.boxed,
        mode=args.mode,
    )
    result = evaluate_clicks(workspace, plan, args.student, device=device)
    if not args.json:
        sys.stdout.write(result["table"] + "\n")
    return result
