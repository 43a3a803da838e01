"""The `amalgamate` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device, add_executor
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(
        commands, "amalgamate", run_amalgamate, "amalgamate a workspace's experts into a student"
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    command.add_argument("--preset", default="tiny", help="tiny or base (default: %(default)s)")
    command.add_argument("--task", action="append", default=[], help="only these; repeatable")
    command.add_argument(
        "--foundation", type=Path, metavar="FILE", help="pre-trained Swin weights, model_swinvit.pt"
    )
    command.add_argument(
        "--from",
        dest="parent",
        metavar="STUDENT",
        help="begin with another student's weights instead: a folder, a workspace or sample",
    )
    command.add_argument("--steps", type=int, help="instead of the preset's")
    command.add_argument("--polish-steps", type=int, help="instead of the preset's")
    command.add_argument("--click-steps", type=int, help="instead of the preset's")
    command.add_argument(
        "--sparse-threshold",
        type=float,
        metavar="WEIGHT",
        help="in sparse mode experts of less weight are not run; instead of the preset's",
    )
    command.add_argument(
        "--alone",
        type=float,
        metavar="SHARE",
        help="of the training windows that have no experts, from the first step on: more make "
        "distilled mode better, and want more steps (default: 0.25, from half of the steps on)",
    )
    command.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="compute the foundation's features twice and keep none: less memory, more time",
    )
    command.add_argument("--checkpoint-every", type=int, help="steps; instead of the preset's")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--resume", action="store_true", help="go on where a broken run stopped")
    add_device(command)
    add_executor(command)
    command.add_argument(
        "--processes", type=int, default=1, help="of the student's job, per node (default: 1)"
    )


def run_amalgamate(args: argparse.Namespace) -> dict[str, Any]:
    """Amalgamate."""
    from dataclasses import replace

    from ka2er_training.distributed import processes
    from ka2er_training.progress import progress_bar
    from ka2er_training.students import AmalgamationPlan, amalgamate_workspace
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.student_card import student_in
    from napari_ka2er.model.catalogue import find_student
    from napari_ka2er.model.device import resolve_device

    plan = AmalgamationPlan(
        preset=args.preset,
        tasks=tuple(args.task),
        foundation=args.foundation,
        parent=student_in(find_student(args.parent)) if args.parent else None,
        steps=args.steps,
        polish_steps=args.polish_steps,
        click_steps=args.click_steps,
        checkpoint_every=args.checkpoint_every,
        sparse_threshold=args.sparse_threshold,
        alone=args.alone,
        saves_memory=args.gradient_checkpointing,
        seed=args.seed,
        device=args.device if args.executor else str(resolve_device(args.device)),
        resume=args.resume,
    )
    workspace = Workspace.open(args.folder)
    if args.executor:
        from ka2er_training.scale import amalgamate_in_jobs

        with progress_bar() as show:
            return amalgamate_in_jobs(
                workspace, plan, executor=args.executor, processes=args.processes, progress=show
            )
    if args.processes != 1:
        raise UserError("--executor with --processes", "none", "or use torchrun")
    with processes(plan.device) as device, progress_bar() as show:
        return amalgamate_workspace(workspace, replace(plan, device=device), progress=show)
