"""The commands about sessions and packages: `replay`, `package check`, `package show`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    replay = add_command(commands, "replay", run_replay, "write the mask that a session leads to")
    replay.add_argument("session", type=Path, metavar="SESSION", help="the session's folder")
    replay.add_argument("-o", "--out", type=Path, required=True, help="label map, e.g. mask.nii.gz")
    replay.add_argument("--like", type=Path, help="image whose header the label map gets")
    package = commands.add_parser("package", help="look into packages of corrections")
    actions = package.add_subparsers(required=True, metavar="ACTION")
    check = add_command(actions, "check", run_check, "tell what is wrong with a package")
    show = add_command(actions, "show", run_show, "tell what is in a package")
    for command in (check, show):
        command.add_argument("package", type=Path, metavar="PACKAGE", help="the package's folder")
    check.add_argument(
        "--workspace", type=Path, metavar="DIR", help="also whether this can take it"
    )
    check.add_argument(
        "--to-holdout",
        action="store_true",
        help="cases of held-out patients may update the hold-out",
    )


def run_replay(args: argparse.Namespace) -> dict[str, Any]:
    """Write the mask and return what it contains."""
    from ka2er_training.replay import write_replay

    result = write_replay(args.session, args.out, args.like)
    logger.info("%s: %d actions, %d steps", args.out, result["n_actions"], result["n_steps"])
    return result


def run_check(args: argparse.Namespace) -> dict[str, Any]:
    """Return that the package is sound, or raise with the reasons why not."""
    from napari_ka2er.core.errors import UserError
    from napari_ka2er.core.package import check_package

    if args.workspace is None:
        problems = check_package(args.package)
    else:
        from ka2er_training.package_check import check_for_workspace
        from ka2er_training.workspace import Workspace

        workspace = Workspace.open(args.workspace)
        problems = check_for_workspace(workspace, args.package, to_holdout=args.to_holdout)
    result = {"package": str(args.package), "problems": problems}
    for problem in problems:
        logger.error("%s: %s", args.package, problem)
    if problems:
        n = len(problems)
        got = f"{n} problem{'s' * (n > 1)} in {args.package}"
        raise UserError("a sound package", got, result=result)
    logger.info("%s: sound", args.package)
    return result


def run_show(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is in a package."""
    from napari_ka2er.core.package import summarise_package

    summary = summarise_package(args.package)
    logger.info("%s: task %s, %d cases", args.package, summary["task"], summary["n_cases"])
    for case in summary["cases"]:
        share, seconds = 100 * case["reviewed_share"], case["seconds"] or 0
        logger.info(
            "  %s: %.1f %% reviewed, %d prompts, %.0f s, %s",
            *(case["case"], share, case["n_prompts"], seconds, case["reviewer"] or "no reviewer"),
        )
    return summary
