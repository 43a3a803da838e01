"""Volumes that are opened, and put in their right place, while the window is open."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
from tests.widgets.panelling import begin, idle, sections_of

from napari_ka2er.core.io import write_volume
from napari_ka2er.widgets import file_work, volume_panel
from napari_ka2er.widgets.layers import key_of


@pytest.fixture
def sections(controller, viewer, qtbot):
    sections = sections_of(controller, viewer, qtbot)
    idle(controller, qtbot)
    return sections


@pytest.fixture
def panel(sections):
    return sections.panel("Volume")


@pytest.fixture
def scan(viewer):
    return viewer.layers["scan"]


def text_of(panel):
    return panel.description.text().replace("\N{NO-BREAK SPACE}", " ")


def test_a_file_is_read_while_the_window_goes_on_and_is_then_chosen(
    panel, controller, viewer, small, tmp_path, qtbot, monkeypatch, failures
):
    path, gate, told = tmp_path / "next.nii.gz", threading.Event(), []
    write_volume(path, small)
    controller.told.connect(told.append)
    read = file_work.read_volume
    monkeypatch.setattr(file_work, "read_volume", lambda path: gate.wait(10) and read(path))
    panel.read(path)
    assert told == ["Reading next.nii.gz …"]
    assert len(viewer.layers) == 1
    gate.set()
    idle(controller, qtbot)
    assert [layer.name for layer in viewer.layers] == ["scan", "next"]
    assert panel.layer is viewer.layers["next"]
    assert told[-1] == "next.nii.gz is open."
    assert not failures


def test_what_cannot_be_read_is_told_in_a_line(
    panel, controller, viewer, tmp_path, qtbot, failures
):
    (tmp_path / "x.nii").write_bytes(b"no volume")
    panel.read(tmp_path / "x.nii")
    idle(controller, qtbot)
    assert len(failures) == 1
    assert panel.layer is viewer.layers["scan"]


def test_a_sample_is_chosen_too(panel, controller, viewer, qtbot):
    panel.sample.menu().actions()[0].trigger()
    assert panel.layer is viewer.layers[-1] is not viewer.layers["scan"]
    idle(controller, qtbot)


def move(layer, how):
    """Put a layer in another place, in each way that napari has."""
    match how:
        case "units":
            layer.units = ("um",) * 3
        case "affine":
            layer.affine = np.diag([5.0, 2.0, 2.0, 1.0])
        case "scale":
            layer.scale = (2, 1, 1)
        case "translate":
            layer.translate = (7, 0, 0)
        case _:
            layer.data = np.array(layer.data[:6])


@pytest.mark.parametrize("how", ["scale", "affine", "translate", "units", "data"])
def test_a_volume_that_is_put_right_is_looked_at_anew(
    sections, panel, scan, controller, tmp_path, qtbot, monkeypatch, how
):
    looked, card = [], sections.panel("Student").card
    real = volume_panel.source_of

    def look(layer):
        looked.append(layer)
        return real(layer)

    monkeypatch.setattr(volume_panel, "source_of", look)
    before, key = text_of(panel), key_of(scan)
    controller.earlier(scan)
    idle(controller, qtbot)
    assert (key, card.folder) in controller._fits
    move(scan, how)
    assert key_of(scan) != key
    qtbot.waitUntil(lambda: bool(looked), timeout=5000)
    idle(controller, qtbot)
    if how != "translate":
        assert text_of(panel) != before
    assert (key_of(scan), card.folder) in controller._fits
    assert key_of(scan) in controller._known
    assert panel.source.affine.tolist() == real(scan).affine.tolist()
    n_looked = len(looked)
    sections.refresh()
    assert len(looked) == n_looked, "once is enough"


def test_a_volume_that_is_dragged_is_looked_at_once_it_rests(panel, scan, qtbot, monkeypatch):
    looked, real = [], volume_panel.describe
    monkeypatch.setattr(
        volume_panel, "describe", lambda source: looked.append(source) or real(source)
    )
    for step in range(20):
        scan.translate = (step + 1, 0, 0)
    qtbot.waitUntil(lambda: bool(looked), timeout=5000)
    qtbot.wait(300)
    assert len(looked) == 1


def test_sessions_of_the_old_place_are_not_offered_for_the_new_one(
    sections, scan, controller, tmp_path, qtbot
):
    labels = sections.panel("Task and labels")
    session = begin(controller, scan, tmp_path / "sessions" / "first")
    controller.review(True)
    idle(controller, qtbot)
    session.close()
    controller._end_session()
    idle(controller, qtbot)  # until the session's files are let go
    controller._forget_earlier()
    qtbot.waitUntil(labels.restore.isVisible, timeout=5000)
    right, wrong = scan.affine, np.diag([5.0, 2.0, 2.0, 1.0])
    for affine, is_offered in ((wrong, False), (right, True)):
        scan.affine = affine
        is_seen = partial(lambda wanted: labels.restore.isVisible() == wanted, is_offered)
        qtbot.waitUntil(is_seen, timeout=5000)
