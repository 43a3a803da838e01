"""Go the whole way through the Annotate widget with whatever napari and Qt run this.

    QT_API=pyqt6 xvfb-run -a -s "-screen 0 1920x1080x24" python tools/check_napari.py

opens the CT sample, adds the widget, starts a session with the sample student, segments, clicks
and paints with the mouse, undoes, redoes, exports, closes; prints a line per step, and which
versions it was.  The exit status is 0 if all was as it should be.  See docs/developer.md.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 600.0
REACH_MM = 6.0  # how far from where the mouse was a prompt may be: a pixel, and half a slice


@dataclass
class Check:
    """A window, its Annotate widget, and what was told to have failed."""

    viewer: Any
    widget: Any
    folder: Path
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.controller = self.widget.controller
        self.controller.failed.connect(self.failures.append)
        self.controller.set_filling(False)

    def step(self, name: str, act: Callable[[], object], is_so: Callable[[], bool]) -> None:
        """Do something, wait until it is done, and see that it came to what it should."""
        begun = time.perf_counter()
        act()
        self.settle()
        if self.failures or not is_so():
            raise SystemExit(f"{name}: failed. {' '.join(self.failures)}")
        say(f"{name}: ok, {time.perf_counter() - begun:.1f} s")

    def settle(self) -> None:
        """Wait until nothing runs."""
        for _ in range(2):
            turn(0.3)
            end = time.perf_counter() + PATIENCE_S
            while not self.controller.is_idle:
                if time.perf_counter() > end:
                    raise SystemExit(f"{self.controller.work or 'something'} took too long")
                turn(0.02)

    @property
    def mask(self) -> Any:
        """The session's labels."""
        return self.controller.session.mask

    def n_prompts(self) -> int:
        """Return how many prompts there are."""
        return sum(len(thing.prompts) for thing in self.controller.objects())


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def turn(seconds: float) -> None:
    """Let the window live for a while."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def canvas(viewer: Any) -> Any:
    """Return the Qt widget that is drawn on."""
    return viewer.window._qt_viewer.canvas.native


def click(viewer: Any, aside: int = 0) -> None:
    """Press and release the mouse, `aside` pixels right of the canvas' middle."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    native = canvas(viewer)
    at = native.rect().center() + QPoint(aside, 0)
    QTest.mouseMove(native, at)
    turn(0.1)
    QTest.mouseClick(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)
    turn(0.2)


def is_under_the_mouse(check: Check) -> bool:
    """Return whether the newest prompt lies where the middle of the canvas looks."""
    from napari_ka2er.widgets.looking import centre_of_view

    geometry = check.controller.session.volume.geometry
    seen = geometry.to_world(centre_of_view(check.viewer, check.controller.view.labels))
    prompts = check.controller.objects()[-1].prompts
    newest = prompts[max(prompts)]
    return bool(np.linalg.norm(np.subtract(newest.position_mm, seen)) <= REACH_MM)


def opened(folder: Path) -> Check:
    """Return a window with the sample and the widget."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    turn(0.5)
    viewer.open_sample("napari-ka2er", "ct_chest")
    _, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate")
    check = Check(viewer, widget, folder)
    check.settle()
    return check


def begin(check: Check) -> None:
    """Start and segment with the buttons, as a user does."""
    panel = check.widget.sections.panel
    labels, controller = panel("Task and labels"), check.controller
    student = panel("Student")
    student.mode.setCurrentText("distilled")
    student.device.setCurrentText("cpu")
    check.step("sample and widget", lambda: None, lambda: labels.task.name == "lungs")
    check.step("start", labels.start.click, lambda: controller.view.is_complete)
    check.step("segment", panel("Segment").segment.click, lambda: check.mask.any())


def correct(check: Check) -> None:
    """Click, paint, undo and redo."""
    from napari_ka2er.widgets.tools import Tool

    controller, panel = check.controller, check.widget.sections.panel
    press = lambda tool: panel("Prompt").tools[tool].click()  # noqa: E731
    press(Tool.NEGATIVE)
    check.step("click", lambda: click(check.viewer), lambda: is_under_the_mouse(check))
    press(Tool.POSITIVE)
    check.step("second click", lambda: click(check.viewer, 60), lambda: check.n_prompts() == 2)
    panel("Correct").brush.click()
    controller.define_label(label_of(99))
    check.settle()
    controller.set_label(99)
    check.step("stroke", lambda: click(check.viewer), lambda: (check.mask == 99).any())
    done = np.array(check.mask)
    steps = controller.session.state.history.n_done
    check.step("undo", lambda: repeat(controller.undo, steps), lambda: not check.mask.any())
    check.step(
        "redo", lambda: repeat(controller.redo, steps), lambda: np.array_equal(check.mask, done)
    )


def label_of(value: int) -> Any:
    """Return a label to paint with."""
    from napari_ka2er.core.task import Label

    return Label(value, "drawn by hand")


def repeat(act: Callable[[], object], times: int) -> None:
    """Do something several times."""
    for _ in range(times):
        act()


def keep(check: Check) -> None:
    """Review and export; the package and the labels must be as they should."""
    from napari_ka2er.core.io import read_labels
    from napari_ka2er.core.package import check_package

    package, labels = check.folder / "Dataset001_one", check.folder / "labels.nii.gz"
    controller = check.controller
    controller.review(True)
    check.settle()
    check.step("export", lambda: controller.export(package), lambda: check_package(package) == [])
    check.step("save labels", lambda: controller.save_labels(labels), labels.is_file)
    values, geometry = read_labels(labels)
    is_same = np.array_equal(values, check.mask) and np.array_equal(
        geometry.affine, controller.session.volume.affine
    )
    check.step("labels on disk", lambda: None, lambda: bool(is_same))


def display(check: Check) -> None:
    """Show it in 3D, and in another plane."""
    dims = check.viewer.dims
    for ndisplay, order in ((3, (0, 1, 2)), (2, (1, 0, 2)), (2, (0, 1, 2))):
        dims.ndisplay, dims.order = ndisplay, order
        check.settle()
    check.step("3D and other planes", lambda: None, lambda: check.controller.view.is_complete)


def main() -> None:
    """Go all the way."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_DATA_HOME"] = str(folder / "data")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        import napari
        from qtpy import API_NAME, QT_VERSION

        say(f"napari {napari.__version__}, {API_NAME}, Qt {QT_VERSION}")
        check = opened(folder)
        begin(check)
        correct(check)
        display(check)
        keep(check)
        say("closing")
        check.viewer.close()
        turn(0.5)
        say("all as it should be")
    os._exit(0)  # Mesa's drivers may crash when the interpreter ends: not what is checked


if __name__ == "__main__":
    main()
