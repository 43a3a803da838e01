"""The whole way in a real window."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_ka2er.core.io import write_volume
from napari_ka2er.core.package import check_package
from napari_ka2er.widgets.session_view import Tool

pytestmark = pytest.mark.gl


def wait(widget, qtbot):
    """Wait until nothing runs and nothing waits to be answered."""
    qtbot.wait(50)
    controller = widget.controller
    qtbot.waitUntil(lambda: not controller.work and not controller.is_saving, timeout=120_000)
    qtbot.wait(50)


def test_from_a_file_to_a_package(
    make_napari_viewer_proxy, student_folder, small, tmp_path, qtbot, monkeypatch
):
    monkeypatch.setattr(
        "napari_ka2er.widgets.controller.user_data_path", lambda name: tmp_path / "data"
    )
    write_volume(tmp_path / "scan.nii.gz", small)
    viewer = make_napari_viewer_proxy(show=True)
    _, widget = viewer.window.add_plugin_dock_widget("napari-ka2er", "Annotate (KA2ER)")
    assert not widget.start_panel.start.isEnabled()
    assert "Open a volume" in widget.next_step.text()

    viewer.open(tmp_path / "scan.nii.gz", plugin="napari-ka2er")
    widget.start_panel.set_student(student_folder)
    assert widget.start_panel.task.count() == 2
    widget.start_panel.mode.setCurrentText("distilled")
    failures = []
    widget.controller.failed.connect(failures.append)
    widget.start_panel.start.click()
    wait(widget, qtbot)
    session, view = widget.controller.session, widget.controller.view
    assert not failures
    assert session is not None
    assert widget.edit_panel.tools[Tool.POSITIVE].isChecked()

    widget.edit_panel.segment.click()
    wait(widget, qtbot)
    segmented = session.mask.copy()
    assert segmented.any()

    view.points.add(np.array(small.shape) // 2)
    wait(widget, qtbot)
    widget.edit_panel.tools[Tool.BRUSH].click()
    view.labels.paint((5, 3, 3), 1)
    corrected = session.mask.copy()
    assert corrected[5, 3, 3] == 1

    for _ in range(3):
        widget.edit_panel.undo.click()
    wait(widget, qtbot)
    assert not session.mask.any()
    assert not widget.edit_panel.undo.isEnabled()
    for _ in range(3):
        widget.edit_panel.redo.click()
    wait(widget, qtbot)
    np.testing.assert_array_equal(view.labels.data, corrected)

    assert not widget.edit_panel.export.isEnabled()
    widget.edit_panel.reviewed.click()
    widget.controller.export(tmp_path / "Dataset001_one")
    wait(widget, qtbot)
    assert check_package(tmp_path / "Dataset001_one") == []
    widget.controller.save_labels(tmp_path / "labels.nii.gz")
    wait(widget, qtbot)
    assert not failures
    image, labels = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("scan", "labels"))
    np.testing.assert_array_equal(labels.affine, image.affine)
    for key in ("qform_code", "sform_code", "pixdim", "qoffset_x", "srow_x"):
        np.testing.assert_array_equal(labels.header[key], image.header[key])
    np.testing.assert_array_equal(np.asarray(labels.dataobj).transpose(), corrected)
