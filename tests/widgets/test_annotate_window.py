"""The whole way in a real window, on the volumes that ship, and how long it ever stops."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.widgets import panelling
from tests.widgets.stall import Stall, table
from tests.widgets.window_run import Run, back_and_forth, read_stalls, work

from napari_ka2er._sample_data import sample_volume
from napari_ka2er.core.package import check_package
from napari_ka2er.core.sessions import replay
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.widgets.jobs import Choice

pytestmark = [pytest.mark.gl, pytest.mark.timeout(1200)]
logger = logging.getLogger(__name__)  # -n 0 -o log_cli=true --log-cli-level=INFO shows the stalls
CASES = [("ct_chest", "lungs"), ("icbm_t1", "brain_tissue"), ("phantom", "lungs")]
OWN_MS = 50.0
RUNS = 3
# What napari alone does in a phase of the same name is taken off it; elsewhere, a redraw.
LIKE = {phase: phase for phase in ("start", "segment", "click", "finish")}


def same_header(written, original):
    """Compare what tells where an image lies."""
    first, second = nib.load(written), nib.load(original)
    np.testing.assert_array_equal(first.affine, second.affine)
    for key in ("qform_code", "sform_code", "pixdim", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        np.testing.assert_array_equal(first.header[key], second.header[key])


def plan_with_nnunet(package: Path, folder: Path) -> str:
    """Let nnU-Net itself check, plan and preprocess a package; return what it printed."""
    (folder / "raw").mkdir()
    (folder / "raw" / package.name).symlink_to(package)
    number = package.name.removeprefix("Dataset").split("_")[0]
    tool = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
    options = ("--verify_dataset_integrity", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    places = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [tool, "-d", number, *options],
        check=True, capture_output=True, text=True, timeout=600, env={**os.environ, **places},
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(("name", "task"), CASES)
def test_from_a_volume_to_a_package(
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
    _, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate")
    run, controller = Run(widget, qtbot), widget.controller
    work(run, viewer, layer, Choice(sample_folder() / "student", task, "distilled", "cpu"))
    back_and_forth(run)
    run.do("review", lambda: controller.review(True))
    controller.save_labels(tmp_path / "labels.nii.gz")
    run.do("export", lambda: controller.export(tmp_path / "Dataset001_one"))
    controller.close()

    assert check_package(tmp_path / "Dataset001_one") == []
    told = plan_with_nnunet(tmp_path / "Dataset001_one", tmp_path)
    assert "verify_dataset_integrity Done" in told
    assert "Error" not in told
    same_header(tmp_path / "labels.nii.gz", sample_volume(name))
    saved = np.asarray(nib.load(tmp_path / "labels.nii.gz").dataobj).transpose()
    np.testing.assert_array_equal(saved, controller.session.mask)
    np.testing.assert_array_equal(replay(controller._started.folder).mask, saved)
    np.testing.assert_array_equal(layer.data, before)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_the_plugin_never_stops_the_window(tmp_path, name, task):
    """In processes of their own, in which nothing was drawn yet; in pytest napari finds no icons.

    The widget's first opening is left out: imports, and napari's reading of plugins' settings.
    What the plugin does stops the same phase each time it is done; a busy machine stops any phase,
    once.  Hence a phase fails that is too long in every one of several runs, and there is one run
    as long as nothing is too long.
    """
    always: set[str] | None = None
    told = []
    for attempt in range(RUNS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        alone, plugin = (read_stalls(kind, name, task, folder) for kind in ("alone", "plugin"))
        told.append(f"{name}, napari alone:\n{table(alone)}\nwith the plugin:\n{table(plugin)}")
        logger.info(told[-1])
        long = too_long(alone, plugin)
        always = long if always is None else always & long
        if not always:
            return
    pytest.fail(f"over {OWN_MS:.0f} ms in {RUNS} runs: {sorted(always)}\n" + "\n".join(told))


def too_long(alone: list[Stall], plugin: list[Stall]) -> set[str]:
    """Return the phases in which the plugin stops the window much longer than napari alone."""
    return {
        phase
        for phase in {stall.phase for stall in plugin} - {"widget"}
        if longest(plugin, phase) - longest(alone, LIKE.get(phase, "redraw")) > OWN_MS
    }


def longest(stalls: list[Stall], phase: str) -> float:
    """Return the longest work of a phase beside napari's drawing and layers, in ms."""
    return max((stall.own_ms for stall in stalls if stall.phase == phase), default=0.0)


def test_a_panel_that_is_closed_takes_its_layers_along_and_can_be_opened_again(
    make_napari_viewer_proxy, tmp_path, qtbot, monkeypatch
):
    monkeypatch.setattr(
        "napari_ka2er.widgets.controller.user_data_path", lambda name: tmp_path / "data"
    )
    viewer = make_napari_viewer_proxy(show=True)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[0.94, -0.342], [0.342, 0.94]]
    image = viewer.add_image(np.ones((12, 40, 30), np.float32), name="scan", affine=turned)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate")
    controller = widget.controller
    controller.set_filling(False)
    panelling.begin(controller, image, tmp_path / "data" / "sessions" / "one")
    panelling.idle(controller, qtbot)
    controller.view.labels.paint((6, 10, 10), 1)
    del widget, controller
    dock.destroyOnClose()  # the X of the dock
    del dock
    qtbot.waitUntil(lambda: list(viewer.layers) == [image], timeout=5000)
    assert image.visible
    assert replay(tmp_path / "data" / "sessions" / "one").mask.any()
    _, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate")
    panelling.idle(widget.controller, qtbot)
    [summary] = widget.controller.restorable(image)
    assert summary.folder.name == "one"
