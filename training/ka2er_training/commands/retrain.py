"""The `retrain` command."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import GateRefusedError, add_command, add_device, add_executor

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)

_SWITCHES = {
    "resume": "go on with a broken round",
    "abandon": "give a broken round up",
    "dry-run": "print plan and estimates, change nothing",
    "from-scratch": "train everything anew, for comparison",
    "with-refused": "also the packages of refused rounds",
    "to-holdout": "held-out cases may update the hold-out, new ones found a missing one",
    "keep-going": "train the student even if an expert lost by the corrections",
    "accept-labels": "train even if labels seem to belong to other images",
}


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(
        commands, "retrain", run_retrain, "make experts and student better by packages"
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="the workspace")
    command.add_argument("packages", type=Path, metavar="PACKAGE", nargs="*")
    for name, told in _SWITCHES.items():
        command.add_argument(f"--{name}", action="store_true", help=told)
    command.add_argument("--preset", help="tiny or base (default: that of the current student)")
    command.add_argument(
        "--mode", default="sparse", choices=["sparse", "full", "distilled"], help="of the gate"
    )
    for name in ("steps", "polish-steps", "click-steps", "expert-epochs", "checkpoint-every"):
        command.add_argument(f"--{name}", type=int, help="instead of the preset's share")
    command.add_argument("--seed", type=int, help="default: the number of the round")
    command.add_argument(
        "--progress", type=Path, metavar="FILE", help="keep the share done there, as JSON"
    )
    add_device(command)
    add_executor(command)


def run_retrain(args: argparse.Namespace) -> dict[str, Any]:
    """Retrain; a refusal by the gate is told with exit status 3."""
    from ka2er_training.progress import progress_bar
    from ka2er_training.progress_file import progress_in
    from ka2er_training.retrain import dry_run, retrain
    from ka2er_training.retrain_decision import abandon
    from ka2er_training.round_state import REFUSED, RoundOptions, refused_packages
    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.device import resolve_device

    if args.abandon:
        given_up = abandon(args.folder)
        n, again = len(given_up["withdrawn"]), "--with-refused brings its packages back"
        logger.info("round %d is given up; %d cases wait, %s", given_up["round"], n, again)
        return given_up
    names = RoundOptions.__dataclass_fields__
    options = RoundOptions(**{name: getattr(args, name) for name in names})
    packages = list(args.packages)
    if args.with_refused:
        packages += refused_packages(Workspace.open(args.folder))
    if args.dry_run:
        plan = dry_run(args.folder, packages, options)
        _tell(plan)
        return plan
    here = str(resolve_device(args.device))  # the gates work here, wherever is trained
    device = args.device if args.executor else here
    with progress_bar() as show, progress_in(args.progress, show) as tell:
        result = retrain(
            args.folder, packages, options, resume=args.resume, device=device,
            executor=args.executor or "", progress=tell,
        )  # fmt: skip
    if result["status"] == REFUSED:
        raise GateRefusedError(f"{result['reason']}; report: {result['report']}", result)
    logger.info("%s: %s", result["status"], result["reason"])
    return result


def _tell(plan: dict[str, Any]) -> None:
    """Print a plan for people."""
    told = plan["estimate"]
    for task, splits in plan["cases"].items():
        logger.info("%s: %s", task, ", ".join(f"{n} to {split}" for split, n in splits.items()))
    for note in plan["notes"]:
        logger.info("%s", note)
    for task, epochs in told["epochs"].items():
        logger.info("expert %s: %d epochs", task, epochs)
    logger.info("student: %s", ", ".join(f"{n} steps {part}" for part, n in told["steps"].items()))
    for stage, seconds in told["seconds"].items():
        logger.info("  %-9s %6.1f min", stage, seconds / 60)
    source = "measured" if all(p["measured"] for p in told["pace"].values()) else "partly rough"
    memory, minutes = told["memory_gib"], told["seconds_total"] / 60
    logger.info("about %.0f min (%s), %.1f GiB", minutes, source, memory)
