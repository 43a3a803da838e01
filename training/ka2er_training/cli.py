"""The `ka2er` command.

Heavy libraries are imported only by the command that runs, and nearly all others by `main`, so
that Ctrl-C is answered in one line from the start.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

logger = logging.getLogger("ka2er_training")

# Each module has `add(commands)`, which adds its commands; a command sets `run`, a function of the
# parsed arguments that returns what `--json` prints (or None), or raises.
GROUPS = (
    "demo",
    "predict",
    "workspace",
    "experts",
    "amalgamate",
    "evaluate",
    "student",
    "export",
    "sample",
    "bench",
    "session",
    "registry",
    "retrain",
    "tool",
)

STUDENT_HELP = "a student's folder, a workspace (its current student), or 'sample'"

# Libraries whose log would stand among our results: threads found, fonts listed.
_TALKATIVE = ("matplotlib", "numexpr")

DONE, USER_ERROR, REFUSED, INTERRUPTED = 0, 2, 3, 130
READER_GONE = 141  # as a shell says of a program that a closed pipe ended


class GateRefusedError(RuntimeError):
    """The gate found a task that got worse; the current student stays.

    Parameters
    ----------
    reason : str
        Why.
    result : dict, optional
        What `--json` prints all the same.
    """

    def __init__(self, reason: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.result = result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # not at the very end, where nobody can catch what goes wrong
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return READER_GONE


def _run(argv: Sequence[str] | None) -> int:
    from napari_ka2er.core.errors import CancelledError, UserError

    args = parse(build_parser(), argv)
    logging.basicConfig(level=args.log_level, format="%(message)s", stream=sys.stderr)
    if args.log_level != "DEBUG":
        for library in _TALKATIVE:
            logging.getLogger(library).setLevel(logging.WARNING)
    try:
        result = args.run(args)
    except UserError as error:
        logger.error("error: %s", error)
        _print_json(args, error.result)
        return USER_ERROR
    except GateRefusedError as error:
        logger.error("refused: %s", error)
        _print_json(args, error.result)
        return REFUSED
    except CancelledError:
        return _interrupted()
    _print_json(args, result)
    return DONE


def _interrupted() -> int:
    logger.error("interrupted; nothing half-written is left")
    return INTERRUPTED


def _reader_has_gone() -> bool:
    """Tell whether a broken pipe was our output's, as with `| head`; if so, nothing goes there."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _print_json(args: argparse.Namespace, result: Any) -> None:
    import json

    if args.json and result is not None:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with the commands of every group."""
    import argparse
    import importlib

    parser = argparse.ArgumentParser(
        prog="ka2er",
        description="Segment volumes, train experts and amalgamate them into a student.",
    )
    parser.set_defaults(json=False, log_level="INFO")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in GROUPS:
        importlib.import_module(f"ka2er_training.commands.{group}").add(commands)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of a command; wrong ones end the program with the command's usage.

    A command's list, or its last argument that may be left out, may stand behind options: argparse
    itself takes it for empty as soon as it has read the argument before it.
    """
    args, left = parser.parse_known_args(argv)
    if left and not _taken(args, left):
        args.parser.error(f"unrecognized arguments: {' '.join(left)}")
    return args


def _taken(args: argparse.Namespace, left: list[str]) -> bool:
    """Give what argparse left to the command's argument that may take it; tell if there is one."""
    if any(text.startswith("-") for text in left):
        return False
    for action in (a for a in args.parser._actions if not a.option_strings):
        values = [args.parser._get_value(action, text) for text in left]
        there = getattr(args, action.dest)
        if action.nargs in ("*", "+"):
            setattr(args, action.dest, [*there, *values])
            return True
        if action.nargs == "?" and there is None and len(values) == 1:
            setattr(args, action.dest, values[0])
            return True
    return False


def add_command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """Return the parser of a new command that every command's common options are added to."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING"])
    command.set_defaults(run=run, parser=command)
    return command


def given(args: argparse.Namespace, *names: str) -> list[str]:
    """Return those of the options `names` that have other values than by default, as typed."""
    differ = [name for name in names if getattr(args, name) != args.parser.get_default(name)]
    return [f"--{name.replace('_', '-')}" for name in differ]


def add_device(command: argparse.ArgumentParser) -> None:
    """Add the `--device` option."""
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)"
    )


def add_executor(command: argparse.ArgumentParser) -> None:
    """Add the `--executor` option."""
    command.add_argument(
        "--executor",
        choices=["local", "slurm"],
        help="run as jobs: processes here, or on Slurm, as [executor] in ka2er.toml says",
    )
