"""The `predict` and `prompt` commands."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import STUDENT_HELP, add_command, add_device
from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from napari_ka2er.core.prompts import Position, Prompt
    from napari_ka2er.core.volume import Geometry
    from napari_ka2er.model.loaded import LoadedStudent
    from napari_ka2er.model.predictor import Predictor

logger = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(commands, "predict", run_predict, "segment volumes automatically")
    _add_common(command)
    command.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="file or folder")
    command.add_argument(
        "--task", action="append", default=[], help="repeatable; default: all that fit"
    )
    _add_level(command)
    command.add_argument("--save-uncertainty", action="store_true")
    command.add_argument("--save-expert-map", action="store_true")
    _add_order(commands)
    command = add_command(commands, "prompt", run_prompt, "segment one object by clicks or boxes")
    _add_common(command)
    command.add_argument("input", type=Path, metavar="INPUT")
    command.add_argument("--task", required=True)
    _add_level(command)
    command.add_argument("--label", help="name or value (default: any structure)")
    _add_prompts(command)


def _add_prompts(command: argparse.ArgumentParser) -> None:
    """Add the kinds of prompts, which keep the order in which they are given."""
    kinds: dict[str, Any] = {"action": "append", "dest": "prompts", "default": []}
    command.add_argument(
        "--point",
        type=lambda text: (parse_point, text),
        metavar="z,y,x[,-]",
        help="voxel of the image, in the object, or out of it with ',-'; repeatable",
        **kinds,
    )
    command.add_argument(
        "--box",
        type=lambda text: (parse_box, text),
        metavar="z,y,x:z,y,x",
        help="two opposite voxels, between which the object lies; repeatable",
        **kinds,
    )


def _add_order(commands: Any) -> None:
    command = add_command(commands, "order", run_order, "which volumes to correct first")
    command.add_argument("student", metavar="STUDENT", help=STUDENT_HELP)
    command.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="file or folder")
    command.add_argument("--task", required=True)
    command.add_argument(
        "--by",
        default="random",
        choices=["random", "disagreement"],
        help="disagreement: of student and expert, most first (default: %(default)s)",
    )
    command.add_argument("--mode", default="sparse", choices=["sparse", "full", "distilled"])
    add_device(command)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("student", metavar="STUDENT", help=STUDENT_HELP)
    command.add_argument("-o", "--out", type=Path, required=True, metavar="OUT")
    command.add_argument("--mode", default="sparse", choices=["sparse", "full", "distilled"])
    command.add_argument("--cache-dir", type=Path, help="default: the user's cache folder")
    add_device(command)


def _add_level(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--level",
        type=int,
        default=0,
        metavar="N",
        help="of an OME-Zarr pyramid, whose voxels the label map has (default: 0, the finest)",
    )


def _loaded(args: argparse.Namespace) -> LoadedStudent:
    from napari_ka2er.core.student_card import student_in
    from napari_ka2er.model.catalogue import find_student

    folder = student_in(find_student(args.student))  # before seconds of imports
    from napari_ka2er.model.checkpoint import load_student
    from napari_ka2er.model.device import resolve_device

    return load_student(folder, resolve_device(args.device))


def _predictor(args: argparse.Namespace) -> Predictor:
    loaded = _loaded(args)
    from napari_ka2er.model.predictor import Predictor

    return Predictor(loaded, args.mode, args.cache_dir)


def run_predict(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Segment volumes."""
    from ka2er_training.prediction import Wanted, predict_files
    from ka2er_training.progress import progress_bar

    wanted = Wanted(tuple(args.task), args.save_uncertainty, args.save_expert_map, args.level)
    predictor = _predictor(args)
    with progress_bar() as progress:
        return predict_files(predictor, args.inputs, args.out, wanted, progress)


def run_order(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Say in which order to correct volumes."""
    from ka2er_training.ordering import order_files
    from ka2er_training.progress import progress_bar

    loaded = _loaded(args)
    with progress_bar() as progress:
        found = order_files(
            loaded, args.task, args.inputs, by=args.by, mode=args.mode, progress=progress
        )
    for item in found:
        score = f"{item['disagreement']:.3f}  " if "disagreement" in item else ""
        logger.info("%s%s", score, item["input"])
    return found


def run_prompt(args: argparse.Namespace) -> dict[str, Any]:
    """Segment one object by clicks or boxes."""
    from ka2er_training.inputs import refuse_overwriting
    from ka2er_training.prompted import Clicks, prompt_volume
    from napari_ka2er.core.io import read_volume

    refuse_overwriting([args.out], [args.input])
    volume = read_volume(args.input, args.level)
    prompts = [parse(text, volume.geometry) for parse, text in args.prompts]
    return prompt_volume(_predictor(args), volume, args.out, Clicks(args.task, args.label, prompts))


def parse_point(text: str, geometry: Geometry) -> Prompt:
    """Return the click that ``z,y,x`` or ``z,y,x,-`` stands for, in voxels of the image.

    Raises
    ------
    UserError
        If the text is not of that form.
    """
    from napari_ka2er.core.prompts import Point

    parts = text.split(",")
    sign = parts.pop().strip() if len(parts) == 4 else "+"
    position = _position(parts, geometry)
    if position is None or sign not in ("+", "-"):
        raise UserError("a point z,y,x or z,y,x,-", repr(text))
    return Point(position, positive=sign != "-")


def parse_box(text: str, geometry: Geometry) -> Prompt:
    """Return the box that ``z,y,x:z,y,x`` stands for, in voxels of the image.

    Raises
    ------
    UserError
        If the text is not of that form.
    """
    from napari_ka2er.core.prompts import Box

    corners = [_position(corner.split(","), geometry) for corner in text.split(":")]
    if len(corners) != 2 or corners[0] is None or corners[1] is None:
        raise UserError("a box z,y,x:z,y,x", repr(text))
    return Box(corners[0], corners[1])


def _position(parts: Sequence[str], geometry: Geometry) -> Position | None:
    """Return the world position of a voxel, or None if the texts are not three numbers."""
    try:
        index = [float(part) for part in parts]
    except ValueError:
        return None
    if len(index) != 3 or not all(map(math.isfinite, index)):
        return None
    z, y, x = (float(p) for p in geometry.to_world(index))
    return z, y, x
