"""The `sample` commands: make what ships in ``sample_data/`` from its sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ka2er_training.cli import add_command

if TYPE_CHECKING:
    import argparse


def add(commands: Any) -> None:
    """Add the commands of this group."""
    sample = commands.add_parser(
        "sample", help="make the sample student and volumes", description="Make what ships."
    )
    actions = sample.add_subparsers(required=True, metavar="ACTION")
    build = add_command(actions, "build", run_build, "train the sample student from scratch")
    build.add_argument("folder", type=Path, metavar="DIR", help="workspace; resumed if it exists")
    build.add_argument("--hippocampus", type=Path, required=True, help="MSD Task04 or nnU-Net raw")
    build.add_argument("--lungs", type=Path, required=True, help="CTs with lung masks, nnU-Net raw")
    build.add_argument("-o", "--out", type=Path, default=Path("sample_data/student"))
    build.add_argument("--seed", type=int, default=0)
    volumes = add_command(actions, "volumes", run_volumes, "make the sample volumes")
    volumes.add_argument("--pyradiomics", type=Path, required=True, help="pyradiomics-3.0.1.tar.gz")
    volumes.add_argument("-o", "--out", type=Path, default=Path("sample_data/volumes"))


def run_build(args: argparse.Namespace) -> dict[str, Any]:
    """Train experts and student; resumes where it was interrupted."""
    from ka2er_training.distributed import processes
    from ka2er_training.progress import progress_bar
    from ka2er_training.sample.build import SampleData, build_sample

    with processes("cpu"), progress_bar() as show:
        data = SampleData(args.hippocampus, args.lungs)
        return build_sample(args.folder, data, args.out, seed=args.seed, progress=show)


def run_volumes(args: argparse.Namespace) -> dict[str, Any]:
    """Make the sample volumes."""
    from ka2er_training.sample.volumes import make_sample_volumes

    return {"folder": str(make_sample_volumes(args.out, pyradiomics=args.pyradiomics))}
