"""The `evaluate` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device

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
    command.add_argument("--cases", type=int, default=6, help="with --clicks: of each task at most")
    add_device(command)


def run_evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a student or the experts, print the table, and keep it in ``reports``."""
    from ka2er_training.evaluate_workspace import evaluate_workspace
    from ka2er_training.progress import progress_bar
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.errors import UserError
    from napari_ka2er.model.device import resolve_device

    workspace = Workspace.open(args.folder)
    device = str(resolve_device(args.device))
    if args.perfect_mm is not None and not (args.clicks and args.perfect_mm > 0):
        raise UserError("--clicks N with --perfect-mm, and more than 0 mm", f"{args.perfect_mm:g}")
    if args.unnamed and args.clicks is None:
        raise UserError("--clicks N with --unnamed", "none")
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


def _clicks(args: argparse.Namespace, workspace: Workspace, device: str) -> dict[str, Any]:
    """Print what clicks add."""
    from ka2er_training.evaluate_clicks import ClickPlan, evaluate_clicks
    from napari_ka2er.core.errors import UserError

    if args.experts:
        remedy = "leave one out, as experts answer no clicks"
        raise UserError("--clicks or --experts", "both", remedy)
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
