"""The `bench` commands."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import require_writable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    bench = commands.add_parser(
        "bench", help="measure quality and cost", description="Measure quality and cost."
    )
    actions = bench.add_subparsers(required=True, metavar="BENCHMARK", dest="benchmark")
    _add_amalgamation(actions)
    _add_speed(actions)
    _add_clicks(actions)
    _add_loop(actions)


def _add_amalgamation(actions: Any) -> None:
    summary = "compare experts, baselines and students on real volumes; resumable, takes long"
    names = "full, four_tasks, two_cores, small"
    _add_cells(add_command(actions, "amalgamation", run_amalgamation, summary), names)


def _add_loop(actions: Any) -> None:
    summary = "corrections, retraining and the gate on real volumes; resumable, takes long"
    _add_cells(add_command(actions, "loop", run_loop, summary), "full, two_cores, small")


def _add_cells(command: argparse.ArgumentParser, names: str) -> None:
    """Add the options of a benchmark that is made of cells."""
    command.add_argument("data", type=Path, metavar="DATA", help="folder of nnU-Net raw data sets")
    command.add_argument("--out", type=Path, required=True, help="cells, features and the report")
    command.add_argument(
        "--settings",
        default="full",
        help=f"{names} or a TOML file (default: %(default)s)",
    )
    command.add_argument(
        "--max-minutes", type=float, help="begin no cell after this time; the running one ends"
    )
    command.add_argument("--list", action="store_true", help="only print which cells are missing")
    command.add_argument("--report", action="store_true", help="only write the report")
    command.add_argument("--only", default="", help="only cells named like this, and needs")
    add_device(command)


def run_amalgamation(args: argparse.Namespace) -> dict[str, Any]:
    """Run, list or report the amalgamation benchmark."""
    from ka2er_training.bench import report, run

    require_writable(args.out)
    plan, store = run.open_benchmark(args.data, args.out, args.settings)
    return _run_cells(args, plan, store, run.RUNNERS, report)


def run_loop(args: argparse.Namespace) -> dict[str, Any]:
    """Run, list or report the loop's benchmark."""
    from ka2er_training.bench import loop, loop_report

    require_writable(args.out)
    plan, store = loop.open_loop(args.data, args.out, args.settings)
    return _run_cells(args, plan, store, loop.RUNNERS, loop_report)


def _run_cells(
    args: argparse.Namespace, plan: Any, store: Any, runners: Any, report: Any
) -> dict[str, Any]:
    """List or run what is missing, and write the report, as was asked."""
    from ka2er_training.bench.running import listing, run_missing

    if args.list:
        lines = listing(plan.cells(), store, args.only)
        if not args.json:
            sys.stdout.writelines(line + "\n" for line in lines)
        listed: dict[str, Any] = report.summary(plan, store)
        return listed
    failed: Mapping[str, str] = {}
    if not args.report:
        chosen = {"device": args.device, "max_minutes": args.max_minutes, "only": args.only}
        failed = run_missing(plan.cells(), store, runners, args.data, **chosen).failed
    command = f"ka2er bench {args.benchmark} DATA --out DIR --settings {args.settings}"
    logger.info("%s", report.write_report(plan, store, args.out / "report", command))
    result: dict[str, Any] = report.summary(plan, store)
    for reason in failed.values():
        logger.error("failed: %s", reason)
    if failed:
        raise UserError("every cell to end", f"{len(failed)} that failed, see above", result=result)
    return result


def _add_speed(actions: Any) -> None:
    command = add_command(
        actions, "speed", run_speed, "CPU time, wall time and memory of passes and clicks"
    )
    command.add_argument("--student", default="sample", help="a student (default: %(default)s)")
    command.add_argument("--volume", type=Path, help="an image (default: a sample volume)")
    command.add_argument("--task", default="", help="of the student (default: the one that fits)")
    command.add_argument(
        "--out",
        type=Path,
        help="folder for the table and the raw numbers; goes on where it stopped",
    )
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument(
        "--only", action="append", default=[], help="only these measurements; repeatable"
    )


def run_speed(args: argparse.Namespace) -> dict[str, Any]:
    """Measure speed."""
    from ka2er_training.bench.speed import measure_speed, write_speed

    _require_repeats(args)
    chosen = tuple(args.only)
    result = measure_speed(args.student, args.volume, args.task, args.repeats, chosen, out=args.out)
    sys.stdout.write("" if args.json else write_speed(result, args.out) + "\n")
    return result


def _require_repeats(args: argparse.Namespace) -> None:
    if args.repeats < 1:
        raise UserError("--repeats of at least 1", f"{args.repeats}")


def _add_clicks(actions: Any) -> None:
    command = add_command(
        actions, "clicks", run_clicks, "what a click takes, beside a ResEnc-L 192³ forward pass"
    )
    command.add_argument("--student", default="sample", help="a student (default: %(default)s)")
    command.add_argument(
        "--volume", type=Path, help="an image (default: the sample T1, cut and padded to 192³)"
    )
    command.add_argument("--task", default="", help="of the student (default: the one that fits)")
    command.add_argument("--out", type=Path, help="folder for the table and the raw numbers")
    command.add_argument(
        "--repeats", type=int, default=50, help="how many clicks (default: %(default)s)"
    )
    command.add_argument(
        "--no-reference",
        action="store_true",
        help="leave the ResEnc-L pass out, which takes 7 GB and more than a minute",
    )


def run_clicks(args: argparse.Namespace) -> dict[str, Any]:
    """Measure clicks."""
    from ka2er_training.bench.click_speed import clicks_table, measure_clicks

    _require_repeats(args)
    result = measure_clicks(
        args.student,
        args.volume,
        args.task,
        args.repeats,
        args.out,
        has_reference=not args.no_reference,
    )
    sys.stdout.write("" if args.json else clicks_table(result).markdown() + "\n")
    return result
