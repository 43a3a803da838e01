"""The `history`, `promote`, `rollback` and `diff` commands."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    listed = add_command(
        commands, "history", run_history, "what happened to a workspace's students"
    )
    promote = add_command(commands, "promote", run_promote, "let a student be the one in use")
    back = add_command(commands, "rollback", run_rollback, "go back to the student before")
    diff = add_command(commands, "diff", run_diff, "compare two students on the hold-out")
    for command in (listed, promote, back, diff):
        command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    promote.add_argument("version", metavar="V", help="say v0002")
    promote.add_argument("--force", action="store_true", help="although the gate refused it")
    for command in (promote, back):
        command.add_argument("--reason", default="by hand", help="kept in the history")
    diff.add_argument("first", metavar="A", help="the earlier version")
    diff.add_argument("second", metavar="B", help="the later version")
    diff.add_argument("--mode", default="sparse", choices=["sparse", "full", "distilled"])
    diff.add_argument(
        "--cases", type=int, default=2, help="pictures of so many cases per task (%(default)s)"
    )
    add_device(diff)


def run_history(args: argparse.Namespace) -> dict[str, Any]:
    """List versions with their states, and what happened."""
    from dataclasses import asdict

    from ka2er_training.registry import history, state_of, versions
    from ka2er_training.workspace import Workspace

    workspace = Workspace.open(args.folder)
    states = {name: state_of(workspace, name) for name in versions(workspace)}
    events = [asdict(event) for event in history(workspace)]
    if not states and not events:
        logger.info("%s: no students so far", workspace.folder)
    if not args.json:
        for name, state in states.items():
            sys.stdout.write(f"{name}  {state}\n")
        for event in events:
            sys.stdout.write(_line(event) + "\n")
    return {"versions": states, "events": events}


def _line(event: dict[str, Any]) -> str:
    """Return an event as one line."""
    gate = {None: "", True: "; the gate let it pass", False: "; the gate refused it"}[event["gate"]]
    force = ", by force" if event["force"] else ""
    reason = f": {event['reason']}" if event["reason"] else ""
    return f"{event['time']}  {event['version']}  {event['event']}{gate}{force}{reason}"


def run_promote(args: argparse.Namespace) -> dict[str, Any]:
    """Let a version be the current one."""
    from ka2er_training.registry import current, promote
    from ka2er_training.workspace import Workspace

    workspace = Workspace.open(args.folder)
    before = current(workspace)
    promote(workspace, args.version, args.reason, force=args.force)
    return _told(args, before, args.version)


def run_rollback(args: argparse.Namespace) -> dict[str, Any]:
    """Go back to the version that was current before."""
    from ka2er_training.registry import current, rollback
    from ka2er_training.workspace import Workspace

    workspace = Workspace.open(args.folder)
    before = current(workspace)
    return _told(args, before, rollback(workspace, args.reason))


def _told(args: argparse.Namespace, before: str | None, after: str) -> dict[str, Any]:
    if not args.json:
        was = f" (before: {before})" if before not in (None, after) else ""
        sys.stdout.write(f"{after} is current{was}\n")
    return {"current": after, "previous": before}


def run_diff(args: argparse.Namespace) -> dict[str, Any]:
    """Compare two versions; write pictures of the cases that changed most."""
    from ka2er_training.progress import progress_bar
    from ka2er_training.version_diff import diff_versions
    from ka2er_training.workspace import Workspace
    from napari_ka2er.core.errors import UserError
    from napari_ka2er.model.device import resolve_device

    if args.cases < 0:
        raise UserError("--cases of at least 0", f"{args.cases}")
    workspace = Workspace.open(args.folder)
    with progress_bar() as progress:
        result: dict[str, Any] = diff_versions(
            workspace,
            args.first,
            args.second,
            n_cases=args.cases,
            mode=args.mode,
            device=str(resolve_device(args.device)),
            progress=progress,
        )
    if not args.json:
        sys.stdout.write("\n".join([result["table"], *result["pictures"]]) + "\n")
    return result
