"""The whole way in a real window, on the volumes that ship, and how long it ever stops."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Labels, Points, Shapes
from tests.widgets.conftest import settle
from tests.widgets.stall import StallMeter

from napari_ka2er._sample_data import sample_volume
from napari_ka2er.core.package import check_package
from napari_ka2er.core.sessions import replay
from napari_ka2er.core.task import Label
from napari_ka2er.core.tools import FillBetween
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.tools import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.gl, pytest.mark.timeout(1200)]
logger = logging.getLogger(__name__)  # --log-cli-level=INFO shows the longest stalls
CASES = [("ct_chest", "lungs"), ("icbm_t1", "brain_tissue"), ("phantom", "lungs")]
N_STEPS = 10
DRAWN = 99  # a label of our own, so that every stroke changes something
OWN_MS = 50.0


@dataclass
class Run:
    """A widget at work in a window, measured phase by phase."""

    widget: Any
    qtbot: Any
    failures: list[str] = field(default_factory=list)
    meter: StallMeter = field(default_factory=StallMeter)

    def __post_init__(self) -> None:
        self.controller = self.widget.controller
        self.controller.failed.connect(self.failures.append)

    def do(self, phase: str, act: Callable[[], object]) -> None:
        """Do something and wait until it is done and drawn."""
        self.meter.begin(phase)
        act()
        settle(self.controller, self.qtbot)
        self.qtbot.wait(300)
        self.meter.stop()
        assert not self.failures


def napari_alone(viewer, image, qtbot) -> StallMeter:
    """Measure what the same layers and strokes cost without the plugin.

    The layers stay: vispy 0.17 leaves vertex attributes enabled whose buffers go with a layer, and
    Mesa's software drivers crash at the next drawing, with the plugin or without.
    """
    meter = StallMeter()
    place = {"affine": image.affine, "scale": image.scale}
    mask = np.zeros(image.data.shape, np.uint8)
    labels = Labels(mask, **place)
    for layer in (labels, Shapes(ndim=3, **place), Points(ndim=3, **place)):
        meter.begin("start")
        viewer.add_layer(layer)
        qtbot.wait(500)
    points = viewer.layers[-1]
    middle = np.array(mask.shape) // 2
    meter.begin("segment")
    mask[:] = 1
    labels.refresh()
    qtbot.wait(300)
    meter.begin("click")
    points.add(middle)
    labels.refresh()
    qtbot.wait(300)
    meter.begin("brush")
    paint(viewer, labels, middle, 2)
    qtbot.wait(300)
    meter.stop()
    return meter


def paint(viewer, labels, middle, value):
    """Paint a short stroke as the mouse does, in the slice that is shown."""
    viewer.layers.selection.active = labels
    labels.mode = "paint"
    labels.selected_label = value
    with labels.block_history():
        for step in range(6):
            labels.paint((*middle[:2], middle[2] + step), value)


def work(run: Run, viewer, layer, choice) -> None:
    """Open, segment, click three times, paint on two slices and fill between them."""
    controller = run.controller
    run.do("start", lambda: controller.start(layer, choice))
    run.do("segment", controller.segment)
    middle = np.array(controller.session.volume.shape) // 2
    for step in range(3):
        at = middle + np.array((0, 4 * step, 3))
        run.do("click", lambda at=at: controller.view.points.add(at))
    controller.define_label(Label(DRAWN, "drawn by hand"))
    settle(controller, run.qtbot)
    controller.set_label(DRAWN)
    controller.set_tool(Tool.BRUSH)
    labels = controller.view.labels
    free = free_place(controller.session.mask, middle[0])
    for depth in (-3, 3):
        for aside in (0, 9, 18):
            centre = free + np.array((depth, aside, 0))
            run.do("brush", lambda centre=centre: paint(viewer, labels, centre, DRAWN))
    run.do("tool", lambda: controller.run_tool(FillBetween(DRAWN)))
    assert controller.session.mask[tuple(free + np.array((0, 0, 2)))] == DRAWN


def free_place(mask, depth):
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


def same_header(written, original):
    """Compare what tells where an image lies."""
    first, second = nib.load(written), nib.load(original)
    np.testing.assert_array_equal(first.affine, second.affine)
    for key in ("qform_code", "sform_code", "pixdim", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(first.header[key], second.header[key])


@pytest.mark.parametrize(("name", "task"), CASES)
def test_from_a_volume_to_a_package_with_quick_clicks_and_strokes(
    make_napari_viewer_proxy, tmp_path, qtbot, monkeypatch, name, task
):
    monkeypatch.setattr(
        "napari_ka2er.widgets.controller.user_data_path", lambda name: tmp_path / "data"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1280, 800)
    [layer] = viewer.open_sample("napari-ka2er", name)
    before = np.array(layer.data)
    _, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate (KA2ER)")
    run, controller = Run(widget, qtbot), widget.controller
    work(run, viewer, layer, Choice(sample_folder() / "student", task, "distilled", "cpu"))
    back_and_forth(run)
    run.do("review", lambda: controller.review(True))
    controller.save_labels(tmp_path / "labels.nii.gz")
    run.do("export", lambda: controller.export(tmp_path / "Dataset001_one"))
    controller.close()
    alone = napari_alone(viewer, layer, qtbot)
    logger.info(
        "%s, napari alone:\n%s\nwith the plugin:\n%s", name, alone.table(), run.meter.table()
    )

    assert check_package(tmp_path / "Dataset001_one") == []
    same_header(tmp_path / "labels.nii.gz", sample_volume(name))
    saved = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj).transpose()
    np.testing.assert_array_equal(saved, controller.session.mask)
    np.testing.assert_array_equal(replay(controller._started.folder).mask, saved)
    np.testing.assert_array_equal(layer.data, before)
    # Not start and segment: the first session of a process compiles shaders in them and stops the
    # window for about a second and 0.1 s, above the 50 ms that are wanted; the log has the figures.
    for phase in ("click", "brush"):
        own = run.meter.longest(phase).work_ms - alone.longest(phase).work_ms
        assert own <= OWN_MS, f"{phase}: {own:.0f} ms longer than napari alone"
