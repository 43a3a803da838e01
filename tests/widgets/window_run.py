"""The whole way through the Annotate widget in a real window, and napari without it.

    python -m tests.widgets.window_run plugin|alone ct_chest lungs FOLDER

prints how long the window's thread stopped, as JSON, of a process in which nothing was drawn yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.widgets.stall import Stall, StallMeter

from napari_ka2er.core.task import Label
from napari_ka2er.core.tools import FillBetween
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

N_STEPS = 10
DRAWN = 99  # a label of our own, so that every stroke changes something
ASIDE = (0, 9, 18)  # where strokes begin, in voxels from each other
PAUSE_MS = 300  # for what is drawn a moment later


class Clock:
    """Waits like pytest-qt's robot, in a process without pytest."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def wait(self, ms: int) -> None:
        """Let the event loop turn for a while."""
        self.waitUntil(lambda: False, ms, strict=False)

    def waitUntil(
        self, is_so: Callable[[], bool], timeout: int = 60_000, strict: bool = True
    ) -> None:
        """Let the event loop turn until something is so."""
        end = time.perf_counter() + timeout / 1000
        while not is_so():
            if time.perf_counter() > end:
                if strict:
                    raise TimeoutError(f"not so after {timeout} ms")
                return
            self._app.processEvents()
            time.sleep(0.001)


@dataclass
class Run:
    """A widget at work in a window, measured phase by phase where a meter is given."""

    widget: Any
    clock: Any
    meter: StallMeter | None = None
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.controller = self.widget.controller
        self.controller.failed.connect(self.failures.append)

    def do(self, phase: str, act: Callable[[], object]) -> None:
        """Do something and wait until it is done and drawn."""
        if self.meter:
            self.meter.begin(phase)
        act()
        settle(self.controller, self.clock)
        self.clock.wait(PAUSE_MS)
        if self.meter:
            self.meter.stop()
        assert not self.failures


def settle(controller: Any, clock: Any, timeout: int = 400_000) -> None:
    """Wait until nothing runs, nothing waits to be answered and everything is shown."""
    for _ in range(2):  # the end of one thing may start the next
        clock.wait(10)
        clock.waitUntil(lambda: controller.is_idle, timeout=timeout)
    clock.wait(10)


def paint(viewer: Any, labels: Any, middle: Any, value: int) -> None:
    """Paint a short stroke as the mouse does, in the slice that is shown."""
    viewer.layers.selection.active = labels
    labels.mode = "paint"
    labels.selected_label = value
    with labels.block_history():
        for step in range(6):
            labels.paint((*middle[:2], middle[2] + step), value)


def work(run: Run, viewer: Any, layer: Any, choice: Choice) -> None:
    """Open, segment, click three times, paint on two slices and fill between them."""
    controller = run.controller
    run.do("start", lambda: controller.start(layer, choice))
    run.do("segment", controller.segment)
    middle = np.array(controller.session.volume.shape) // 2
    for step in range(3):
        at = middle + np.array((0, 4 * step, 3))
        run.do("click", lambda at=at: controller.view.points.add(at))
    controller.define_label(Label(DRAWN, "drawn by hand"))
    settle(controller, run.clock)
    controller.set_label(DRAWN)
    controller.set_tool(Tool.BRUSH)
    labels = controller.view.labels
    free = free_place(controller.session.mask, middle[0])
    for depth in (-3, 3):
        for aside in ASIDE:
            centre = free + np.array((depth, aside, 0))
            run.do("brush", lambda centre=centre: paint(viewer, labels, centre, DRAWN))
    run.do("tool", lambda: controller.run_tool(FillBetween(DRAWN)))
    assert controller.session.mask[tuple(free + np.array((0, 0, 2)))] == DRAWN


def free_place(mask: Any, depth: int) -> Any:
    """Return where to draw so that a voxel between the strokes is background and gets filled."""
    rows, columns = mask.shape[1:]
    is_free = ~mask[depth - 3 : depth + 4].any(axis=0)
    is_free[:4] = is_free[rows - 24 :] = False
    is_free[:, :6] = is_free[:, columns - 14 :] = False
    y, x = np.argwhere(is_free)[0]
    return np.array((depth, y, x - 2))


def back_and_forth(run: Run) -> None:
    """Undo ten steps, redo them, and compare."""
    controller = run.controller
    done = controller.session.mask.copy()
    assert controller.session.state.history.n_done >= N_STEPS
    for _ in range(N_STEPS):
        run.do("undo", controller.undo)
    assert not np.array_equal(controller.session.mask, done)
    for _ in range(N_STEPS):
        run.do("redo", controller.redo)
    np.testing.assert_array_equal(controller.session.mask, done)
    np.testing.assert_array_equal(controller.view.labels.data, done)


def napari_alone(viewer: Any, image: Any, clock: Any) -> StallMeter:
    """Measure what the same layers, tools, points, strokes and redraws cost without the plugin."""
    meter = StallMeter(viewer)
    layers = _layers_alone(viewer, image, clock, meter)
    labels, _, points = layers
    mask, middle = labels.data, np.array(labels.data.shape) // 2

    def do(phase: str, act: Callable[[], object]) -> None:
        meter.begin(phase)
        act()
        clock.wait(PAUSE_MS)
        meter.stop()

    def fill(value: int) -> None:
        mask[:] = value
        labels.refresh()

    do("segment", lambda: fill(1))
    for step in range(3):
        at = middle + np.array((0, 4 * step, 3))
        do("click", lambda at=at, value=2 + step: (points.add(at), fill(value)))
    for aside in ASIDE:
        centre = middle + np.array((0, aside, 0))
        do("brush", lambda centre=centre: paint(viewer, labels, centre, DRAWN))
    for value in range(N_STEPS):
        do("redraw", lambda value=value: fill(value % 2))
    do("finish", lambda: [viewer.layers.remove(layer) for layer in layers])
    return meter


def _layers_alone(viewer: Any, image: Any, clock: Any, meter: StallMeter) -> list[Any]:
    """Add the layers that the plugin adds, as it adds them: one in a turn of the event loop."""
    from napari.layers import Labels, Points, Shapes
    from qtpy.QtCore import QTimer

    place = {"affine": image.affine, "scale": image.scale, "units": image.units}
    mask = np.zeros(image.data.shape, np.uint8)
    layers = [Labels(mask, **place), Shapes(ndim=3, **place), Points(ndim=3, **place)]
    waiting = list(layers)

    def add_next() -> None:
        if waiting:
            viewer.add_layer(waiting.pop(0))
            timer.start()
        else:
            viewer.layers.selection.active = layers[-1]
            layers[-1].mode = "add"

    timer = QTimer(singleShot=True, interval=0)
    timer.timeout.connect(add_next)
    meter.begin("start")
    timer.start()
    clock.waitUntil(lambda: layers[-1].mode == "add")
    clock.wait(1000)
    meter.stop()
    return layers


def main(kind: str, name: str, task: str, folder: Path) -> list[dict[str, Any]]:
    """Run in a window of this process, and return its stalls as plain data."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    clock = Clock(QApplication.instance())
    [layer] = viewer.open_sample("napari-ka2er", name)
    clock.wait(1000)
    if kind == "alone":
        meter = napari_alone(viewer, layer, clock)
    else:
        meter = _plugin(viewer, layer, clock, task, folder)
    return [asdict(stall) for stall in meter.stalls]


def _plugin(viewer: Any, layer: Any, clock: Any, task: str, folder: Path) -> StallMeter:
    meter = StallMeter(viewer)
    meter.begin("widget")
    _, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate")
    clock.wait(1000)
    meter.stop()
    run = Run(widget, clock, meter)
    work(run, viewer, layer, Choice(sample_folder() / "student", task, "distilled", "cpu"))
    back_and_forth(run)
    run.do("review", lambda: run.controller.review(True))
    run.do("export", lambda: run.controller.export(folder / "Dataset001_one"))
    run.do("finish", run.controller.finish)  # its layers go, and what is left is drawn again
    run.do("drawing", layer.refresh)
    assert list(viewer.layers) == [layer]
    run.controller.close()
    return meter


def read_stalls(kind: str, name: str, task: str, folder: Path) -> list[Stall]:
    """Return the stalls of a run in a process of its own."""
    home = folder / kind
    home.mkdir()
    places = {"XDG_DATA_HOME": str(home / "data"), "XDG_CACHE_HOME": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.widgets.window_run", kind, name, task, str(home)],
        check=True, capture_output=True, text=True, timeout=600,
        cwd=Path(__file__).parents[2], env={**os.environ, **places},
    )  # fmt: skip
    return [Stall(**stall) for stall in json.loads(done.stdout.splitlines()[-1])]


if __name__ == "__main__":
    stalls = main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    sys.stdout.write(json.dumps(stalls) + "\n")
    sys.stdout.flush()
    os._exit(0)  # Mesa's drivers may crash when napari's window goes: not what is measured
