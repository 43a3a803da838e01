r"""Take screenshots of the Annotate widget at each step of a real run, for the guide.

    XDG_CACHE_HOME=$(mktemp -d) XDG_DATA_HOME=$(mktemp -d) \
    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/make_screenshots.py \
        --size 1280x800 --structure 24,36,95

The student is the one that ships, the window is real; nothing is drawn by hand.  The corrections
are of what it gets wrong in the CT of a chest, the default volume.  With a cache that knows the
volume, segmenting is over before its picture is taken.  With --workspace, a copy of a workspace
that has the task, a round of training is begun with what was exported, and stopped.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtWidgets import QApplication

from napari_ka2er.widgets.session_view import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 1800.0
# What the sample student gets wrong in the CT of a chest, in sparse mode (z, y, x): it takes a
# bronchus for lung, and misses the tip of the lung behind the sternum.
BRONCHUS = (23, 60, 97)
MISSED = [(94, 94), (95, 93), (96, 93), (97, 92), *((98, x) for x in range(92, 102))]
STROKE_MM = 4.5  # three voxels: wider would paint on the wall of the chest


class Run:
    """A window, its Annotate widget, and where its pictures go."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = args.theme
        width, height = (int(n) for n in args.size.split("x"))
        self.viewer.window.resize(width, height)
        self.folder, self.ending = args.out, f"{args.theme}_{args.size}"
        found = self.viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate")
        self.widget: Any = found[1]
        self.controller = self.widget.controller
        self.controller.set_filling(False)  # for pictures that do not depend on the machine

    def wait(self, until: Callable[[], bool] = lambda: True, at_least_s: float = 0.5) -> None:
        """Let the window live until something is true."""
        start = time.monotonic()
        while time.monotonic() - start < at_least_s or not until():
            if time.monotonic() - start > PATIENCE_S:
                raise TimeoutError(f"{self.controller.work or 'nothing'} took too long")
            QApplication.processEvents()
            time.sleep(0.01)

    def settle(self) -> None:
        """Wait until nothing runs."""
        self.wait(lambda: bool(self.controller.is_idle))
        self.wait(lambda: bool(self.controller.is_idle), 1.0)

    def panel(self, title: str) -> Any:
        """Return a panel of the widget."""
        return self.widget.sections.panel(title)

    def shoot(self, name: str, after_s: float = 0.5) -> None:
        """Save a picture of the window."""
        self.wait(at_least_s=after_s)
        path = self.folder / f"{name}_{self.ending}.png"
        self.viewer.screenshot(path=str(path), canvas_only=False, flash=False)


def main() -> None:
    """Run through all steps and save a picture of each."""
    args = parse()
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    run.shoot("1_nothing")
    run.viewer.open_sample("napari-ka2er", args.volume)
    run.settle()  # until it is known which tasks fit
    run.panel("Task and labels").task.choose(args.task)
    run.shoot("2_volume")
    run.panel("Task and labels").start.click()
    run.wait(lambda: run.controller.session is not None)
    run.settle()
    run.shoot("3_started")
    run.panel("Segment").segment.click()
    run.wait(lambda: run.panel("Segment").bar.value() > 0 or not run.controller.work, 0.0)
    run.shoot("4_segmenting", 0.05)
    run.settle()
    run.shoot("5_segmented")
    correct(run)
    run.panel("Review").next.click()
    run.settle()
    run.widget.sections.parts["Review"].open(True)
    for title in ("Prompt", "Correct"):
        run.widget.sections.parts[title].open(False)
    run.shoot("7_uncertain")
    run.controller.review(True)
    run.settle()
    run.shoot("8_reviewed")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"Dataset001_{args.task}"
        run.controller.export(package, reviewer="A. Reader")
        run.settle()
        run.shoot("9_exported")
        if args.workspace is not None:
            train(run, args.workspace, package)
    if args.structure is not None:
        add_structure(run, args.structure)
    run.widget.close()
    run.viewer.close()


def train(run: Run, workspace: Path, package: Path) -> None:
    """Begin a round with a package, and stop it."""
    panel = run.panel("Train")
    for title, part in run.widget.sections.parts.items():
        part.open(title == "Train")
    run.shoot("10_train")
    panel.set_workspace(workspace)
    panel.take_package(package)
    run.shoot("11_train_ready")
    panel.start.click()
    run.wait(lambda: panel._status.share > 0 or not panel._status.is_running, 2.0)
    run.shoot("12_training")
    panel.stop.click()
    run.wait(lambda: not panel._status.is_running)


def correct(run: Run) -> None:
    """Click once on what is no lung, and paint once where lung is missing."""
    shown = BRONCHUS[0]
    run.viewer.dims.current_step = (shown, *run.viewer.dims.current_step[1:])
    run.panel("Prompt").tools[Tool.NEGATIVE].click()
    run.controller.view.points.add(BRONCHUS)
    run.settle()
    run.panel("Correct").brush.click()
    run.panel("Correct").brush_width.mm.setValue(STROKE_MM)
    with run.controller.view.labels.block_history():  # a stroke, as a drag of the mouse
        for row, column in MISSED:
            run.controller.view.labels.paint((shown, row, column), run.controller.label)
    run.settle()
    run.shoot("6_corrected")


def add_structure(run: Run, voxel: tuple[int, int, int]) -> None:
    """Add a label that the student has not learned, and click into it once."""
    for title, part in run.widget.sections.parts.items():
        part.open(title in ("Task and labels", "Prompt"))
    panel = run.panel("Task and labels")
    panel.new_name.setText("vertebra")
    panel.add_label.click()
    run.settle()
    run.viewer.dims.current_step = (voxel[0], *run.viewer.dims.current_step[1:])
    run.panel("Prompt").tools[Tool.POSITIVE].click()
    run.controller.view.points.add(voxel)
    run.settle()
    run.shoot("13_added")


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1280x800", help="of the window")
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--volume", default="ct_chest", help="key of a sample volume")
    parser.add_argument("--task", default="lungs")
    parser.add_argument(
        "--structure",
        type=lambda text: tuple(int(n) for n in text.split(",")),
        help="z,y,x of a voxel in a vertebra: for the picture of an added label",
    )
    parser.add_argument("--workspace", type=Path, help="for the pictures of training")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    return parser.parse_args()


if __name__ == "__main__":
    main()
