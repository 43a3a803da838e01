"""The `expert` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device, add_executor
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    import argparse

    from ka2er_training.workspace import Workspace


def add(commands: Any) -> None:
    """Add the commands of this group."""
    expert = commands.add_parser(
        "expert", help="the experts of a workspace", description="The experts of a workspace."
    )
    actions = expert.add_subparsers(required=True, metavar="ACTION")
    _add_train(actions)
    command = add_command(
        actions, "add", run_add, "take a trained nnU-Net v2 model folder as an expert"
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    command.add_argument("task", metavar="TASK")
    command.add_argument(
        "model_folder",
        type=Path,
        metavar="MODEL_FOLDER",
        help="<trainer>__<plans>__<configuration>",
    )
    command.add_argument(
        "--trust",
        action="store_true",
        help="run code in the checkpoint, if it cannot be read without",
    )


def _add_train(actions: Any) -> None:
    """Add `expert train`."""
    command = add_command(actions, "train", run_train, "train tasks' experts with nnU-Net")
    command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    command.add_argument("tasks", nargs="*", metavar="TASK")
    command.add_argument("--all", action="store_true", help="every task of the workspace")
    add_executor(command)
    command.add_argument(
        "--preset", help="tiny (CPU), standard, resenc-m or resenc-l (default: as ka2er.toml says)"
    )
    command.add_argument("--loss", help="dice_ce, or the paper's ce (default: as ka2er.toml says)")
    command.add_argument("--epochs", type=int, help="how many (default: as the preset says)")
    command.add_argument("--resume", action="store_true", help="go on from the latest checkpoint")
    command.add_argument("--seed", type=int, default=0)
    add_device(command)


def run_train(args: argparse.Namespace) -> dict[str, Any]:
    """Train one expert here, or several, each in turn or as a job."""
    from ka2er_training.experts import ExpertPlan, train_expert
    from ka2er_training.progress import progress_bar
    from ka2er_training.workspace import Workspace

    plan = ExpertPlan(args.preset, args.loss, args.resume, args.device, args.seed, args.epochs)
    workspace = Workspace.open(args.folder)
    tasks = _tasks(workspace, args)
    with progress_bar() as progress:
        if args.executor:
            from ka2er_training.executors import require_all
            from ka2er_training.scale import train_experts

            outcomes = train_experts(
                workspace, tasks, plan, executor=args.executor, progress=progress
            )
            return {"experts": require_all(outcomes)}
        trained = [train_expert(workspace, task, plan, progress=progress) for task in tasks]
    return trained[0] if len(trained) == 1 else {"experts": trained}


def _tasks(workspace: Workspace, args: argparse.Namespace) -> list[str]:
    """Return the tasks that are meant, each once."""
    if args.all == bool(args.tasks):
        got = "both" if args.all else "neither"
        raise UserError(f"names of tasks ({', '.join(workspace.tasks)}), or --all", got)
    chosen = list(dict.fromkeys(workspace.tasks if args.all else args.tasks))
    if not chosen:
        raise UserError(f"a task in {workspace.folder}", "none", "ka2er task add adds one")
    for task in chosen:
        workspace.record(task)
    return chosen


def run_add(args: argparse.Namespace) -> dict[str, Any]:
    """Convert an expert."""
    from ka2er_training.experts import add_expert
    from ka2er_training.workspace import Workspace

    return add_expert(Workspace.open(args.folder), args.task, args.model_folder, trust=args.trust)
