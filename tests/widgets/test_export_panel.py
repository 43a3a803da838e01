"""How far an export is, and that it can be stopped; a real session without a student."""

from __future__ import annotations

import threading

import pytest
from tests.widgets.panelling import begin, idle, sections_of, write

from napari_ka2er.core.package import check_package
from napari_ka2er.widgets import files

CUBE = (slice(1, 4),) * 3


@pytest.fixture
def gate(monkeypatch):
    """Holds every export before it writes an image, until it is set."""
    gate, export_package = threading.Event(), files.export_package

    def held(path, cases, *, progress):
        def waiting(share, what):
            progress(share, what)
            if what == "image":
                assert gate.wait(20)

        return export_package(path, cases, progress=waiting)

    monkeypatch.setattr(files, "export_package", held)
    yield gate
    gate.set()


@pytest.fixture
def panel(controller, viewer, qtbot, tmp_path, gate):
    """The panel of a session that is being exported and has come to its image."""
    sections = sections_of(controller, viewer, qtbot)
    begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "one")
    write(controller, qtbot, CUBE, 1)
    controller.review(True)
    idle(controller, qtbot)
    panel = sections.panel("Export")
    assert not panel.bar.isVisibleTo(panel)
    assert not panel.cancel.isVisibleTo(panel)
    controller.export(tmp_path / "out" / "Dataset001_organs")
    qtbot.waitUntil(lambda: panel.bar.format().startswith("image"), timeout=20_000)
    qtbot.wait(10)
    return panel


def test_how_far_an_export_is_is_shown_while_it_lasts(panel, controller, qtbot, gate, tmp_path):
    assert panel.bar.isVisibleTo(panel)
    assert 0 < panel.bar.value() < 100
    assert panel.cancel.isEnabled()
    assert panel.summary() == "writing the package"
    assert not panel.export.isEnabled()
    gate.set()
    idle(controller, qtbot)
    assert not panel.bar.isVisibleTo(panel)
    assert not panel.cancel.isVisibleTo(panel)
    assert panel.summary() == ""
    assert check_package(tmp_path / "out" / "Dataset001_organs") == []


def test_an_export_is_stopped_and_leaves_nothing_and_can_be_begun_again(
    panel, controller, qtbot, gate, tmp_path, failures
):
    told = []
    controller.told.connect(told.append)
    panel.cancel.click()
    qtbot.wait(20)
    assert "present file" in panel.cancel.toolTip()
    gate.set()
    idle(controller, qtbot)
    assert told[-1] == "Export stopped; no package was written."
    assert list((tmp_path / "out").iterdir()) == []
    assert not failures
    assert not controller.is_exported
    assert not (tmp_path / "sessions" / "one" / "finished.json").exists()
    assert panel.export.isEnabled()
    controller.export(tmp_path / "out" / "Dataset001_organs")
    idle(controller, qtbot)
    assert check_package(tmp_path / "out" / "Dataset001_organs") == []
    assert controller.is_exported
    assert not failures
