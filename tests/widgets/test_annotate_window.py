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
    panel = widget.sections.panel
    assert not panel("Task and labels").start.isEnabled()
    assert "Open a volume" in widget.sections.next_step.text()

    viewer.open(tmp_path / "scan.nii.gz", plugin="napari-ka2er")
    panel("Student").set_student(student_folder)
    assert panel("Task and labels").task.count() == 2
    panel("Student").mode.setCurrentText("distilled")
    failures = []
    widget.controller.failed.connect(failures.append)
    panel("Task and labels").start.click()
    wait(widget, qtbot)
    session, view = widget.controller.session, widget.controller.view
    assert not failures
    assert session is not None
    assert panel("Prompt").tools[Tool.POSITIVE].isChecked()

    panel("Segment").segment.click()
    wait(widget, qtbot)
    segmented = session.mask.copy()
    assert segmented.any()

    view.points.add(np.array(small.shape) // 2)
    wait(widget, qtbot)
    panel("Correct").brush.click()
    view.labels.paint((5, 3, 3), 1)
    corrected = session.mask.copy()
    assert corrected[5, 3, 3] == 1

    for _ in range(3):
        widget.sections.undo.click()
    wait(widget, qtbot)
    assert not session.mask.any()
    assert not widget.sections.undo.isEnabled()
    for _ in range(3):
        widget.sections.redo.click()
    wait(widget, qtbot)
    np.testing.assert_array_equal(view.labels.data, corrected)

    assert not panel("Export").export.isEnabled()
    panel("Review").whole.click()
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
