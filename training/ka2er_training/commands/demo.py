"""The `demo` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command, add_device, given

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the commands of this group."""
    command = add_command(commands, "demo", run_demo, "segment the volumes that come with it")
    command.add_argument(
        "--headless", action="store_true", help="without a window; the options below need it"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        help="for masks and pictures (default: %(default)s)",
    )
    command.add_argument("--mode", default="sparse", choices=["sparse", "full", "distilled"])
    command.add_argument("--cache-dir", type=Path, help="default: the user's cache folder")
    add_device(command)


def run_demo(args: argparse.Namespace) -> dict[str, Any] | None:
    """Segment the sample volumes, or open napari with one of them."""
    from napari_ka2er.core.errors import UserError

    ignored = given(args, "out", "mode", "cache_dir", "device")
    if ignored and not args.headless:
        raise UserError(f"--headless with {ignored[0]}", "none")
    from ka2er_training import demo  # seconds of imports
    from ka2er_training.progress import progress_bar
    from napari_ka2er.model.catalogue import find_student, sample_folder
    from napari_ka2er.model.checkpoint import load_student
    from napari_ka2er.model.device import resolve_device
    from napari_ka2er.model.predictor import Predictor

    volumes = [sample_folder() / "volumes" / f"{name}.nii.gz" for name in demo.VOLUMES]
    if not args.headless:
        demo.open_napari(volumes[0])
        return None
    loaded = load_student(find_student("sample"), resolve_device(args.device))
    predictor = Predictor(loaded, args.mode, args.cache_dir)
    with progress_bar() as progress:
        return demo.run_demo(predictor, volumes, args.out, progress)
