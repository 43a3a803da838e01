"""The `tool` command: the widget's correction tools without a window."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)

# Written out, as importing the tools for --help would take half a second.
NAMES = (
    *("fill-between", "keep-largest", "remove-small", "split", "fill-holes"),
    *("smooth", "grow", "shrink", "copy-slice", "merge"),
)
_PARAMETERS = ("mm", "ml", "axis", "keys", "source", "target", "into", "other", "keep", "split")
# What has no sensible default; a guess would change the wrong label or slice.
_NEEDED = {"split": ("into",), "merge": ("other",), "copy-slice": ("source", "target")}


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(commands, "tool", run_tool, "correct a label map with one tool")
    command.add_argument("name", metavar="NAME", help=", ".join(NAMES))
    command.add_argument("labels", type=Path, metavar="LABELS", help="label map")
    command.add_argument("-o", "--out", type=Path, required=True, metavar="OUT")
    command.add_argument("--label", type=int, default=1, help="its value (default: %(default)s)")
    command.add_argument("--mm", type=float, help="smooth, grow, shrink: how far (default: 1)")
    command.add_argument("--ml", type=float, help="remove-small: smaller islands go (default: 0.1)")
    command.add_argument(
        "--axis",
        type=int,
        choices=(0, 1, 2),
        help="slices across Z, Y or X (default: 0; fill-holes: in 3D)",
    )
    command.add_argument("--keys", type=int, nargs="+", help="fill-between: the slices to keep")
    command.add_argument("--source", type=int, help="copy-slice: from this slice")
    command.add_argument("--target", type=int, help="copy-slice: to this slice")
    command.add_argument("--into", type=int, help="split: the new label")
    command.add_argument("--other", type=int, help="merge: the label that goes")
    command.add_argument("--keep", type=_voxel, metavar="z,y,x", help="split: a voxel that stays")
    command.add_argument("--split", type=_voxel, metavar="z,y,x", help="split: a voxel that goes")
    command.add_argument("--image", type=Path, help="grow: with --intensity, the image")
    command.add_argument(
        "--intensity", type=float, nargs=2, metavar=("LOW", "HIGH"), help="grow: only within these"
    )


def run_tool(args: argparse.Namespace) -> dict[str, Any]:
    """Apply the tool, write the label map and return what changed."""
    from ka2er_training.tool_work import apply_to_file
    from napari_ka2er.core.errors import UserError
    from napari_ka2er.core.tools import tool_from_json

    given = {key: getattr(args, key) for key in (*_PARAMETERS, "intensity")}
    given = {key: value for key, value in given.items() if value is not None}
    if lacking := [f"--{key}" for key in _NEEDED.get(args.name, ()) if key not in given]:
        raise UserError(f"{' and '.join(lacking)} for {args.name}", "none")
    call = tool_from_json({"tool": args.name, "label": args.label, **given})
    result = apply_to_file(call, args.labels, args.out, args.image)
    logger.info("%s: %d voxels changed", args.out, result["n_changed"])
    return result


def _voxel(text: str) -> tuple[int, int, int]:
    """Return the index that the text stands for."""
    import argparse

    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"wanted a voxel z,y,x, got {text!r}") from error
    return z, y, x
