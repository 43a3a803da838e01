"""The `info` and `cache` commands."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import STUDENT_HELP, add_command

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(commands, "info", run_info, "say what a student or a volume is")
    command.add_argument(
        "path",
        metavar="PATH",
        help=f"a volume, an exported student, or {STUDENT_HELP}",
    )
    cache = commands.add_parser(
        "cache", help="what is kept of volumes", description="What is kept of volumes."
    )
    actions = cache.add_subparsers(required=True, metavar="ACTION")
    listed = add_command(actions, "ls", run_cache_ls, "list what is kept")
    removed = add_command(actions, "rm", run_cache_rm, "remove entries, or everything")
    removed.add_argument("key", nargs="*", metavar="KEY", help="as shown by ls, or its beginning")
    removed.add_argument("--all", action="store_true", help="remove everything")
    for command in (listed, removed):
        command.add_argument("--cache-dir", type=Path, help="default: the user's cache folder")


def run_info(args: argparse.Namespace) -> dict[str, Any]:
    """Describe a student or a volume."""
    from ka2er_training.description import describe
    from ka2er_training.description_text import text_of

    result = describe(args.path)
    if not args.json:
        sys.stdout.write(text_of(result) + "\n")
    return result


def run_cache_ls(args: argparse.Namespace) -> list[dict[str, Any]]:
    """List what is kept."""
    from datetime import datetime

    from napari_ka2er.model.cache import Cache

    rows, cache = [], Cache(args.cache_dir)
    for entry in cache.entries():
        rows.append(
            {
                "key": entry.key,
                "name": entry.name,
                "mode": entry.mode,
                "spacing_mm": list(entry.spacing_mm),
                "filled": f"{entry.n_filled}/{entry.n_tiles}",
                "mib": round(entry.size_bytes / 2**20, 1),
                "used": datetime.fromtimestamp(entry.used).isoformat(timespec="seconds"),
            }
        )
    if not rows:
        logger.info("%s: nothing is kept there", cache.folder)
    if not args.json:
        for row in rows:
            sys.stdout.write("  ".join(str(value) for value in row.values()) + "\n")
    return rows


def run_cache_rm(args: argparse.Namespace) -> dict[str, Any]:
    """Remove entries."""
    from napari_ka2er.core.errors import UserError
    from napari_ka2er.model.cache import Cache

    if bool(args.key) == args.all:
        raise UserError("keys to remove, or --all", "both" if args.key else "neither")
    freed = Cache(args.cache_dir).remove(None if args.all else args.key)
    logger.info("%.1f MiB freed", freed / 2**20)
    return {"freed_mib": round(freed / 2**20, 1)}
