"""The keys on our layers do what the table says."""

from __future__ import annotations

import pytest
from app_model.types import KeyBinding
from napari.utils.key_bindings import coerce_keybinding
from tests.widgets.panelling import begin, idle, write

from napari_ka2er.core.review import Status
from napari_ka2er.widgets.keys import KEYS, KeysHelp, bindings, markdown, table
from napari_ka2er.widgets.session_view import Tool


@pytest.fixture
def session(controller, viewer, tmp_path, qtbot):
    controller.keys = bindings(controller)
    session = begin(controller, viewer.layers["scan"], tmp_path / "session")
    idle(controller, qtbot)
    return session


@pytest.fixture
def press(controller, qtbot):
    """Presses a key of the table while one of our layers is selected."""

    def press(text, layer=None):
        key = next(key for key in KEYS if key.text == text)
        layer = layer if layer is not None else controller.view.labels
        layer.keymap[coerce_keybinding(key.code)](layer)
        idle(controller, qtbot)

    return press


def test_every_key_is_bound_on_each_of_our_layers(session, controller):
    for layer in (controller.view.labels, controller.view.points, controller.view.shapes):
        for key in KEYS:
            assert coerce_keybinding(key.code) in layer.keymap, (layer, key.text)


def test_no_key_is_used_twice():
    codes = [KeyBinding.from_int(int(key.code)) for key in KEYS]
    assert len({str(code) for code in codes}) == len(KEYS)


def test_labels_are_chosen_by_number_and_in_turn(session, controller, press):
    for key, label in (("2", 2), ("3", 5), ("7", 5), ("W", 1), ("Q", 5), ("Q", 2)):
        press(key)
        assert controller.label == label, key


def test_signs_flags_and_the_mask_are_switched(session, controller, press):
    controller.set_tool(Tool.POSITIVE)
    press("G", controller.view.points)
    assert controller.view.tool == Tool.NEGATIVE
    press("J")
    assert session.state.statuses[controller.label] == Status.FLAGGED
    press("J")
    assert session.state.statuses[controller.label] == Status.IN_PROGRESS
    press("H")
    assert not controller.view.labels.visible


def test_the_shown_slice_is_marked_and_unmarked(session, controller, viewer, press):
    viewer.dims.set_point(0, controller.view.labels.data_to_world((7, 0, 0))[0])
    press("Shift+K")
    assert session.state.reviewed.slices[0] == {7}
    press("Shift+K")
    assert session.state.reviewed.slices[0] == set()


def test_of_a_reviewed_volume_the_shown_slice_is_taken_back(session, controller, viewer, press):
    controller.review(True)
    viewer.dims.set_point(0, controller.view.labels.data_to_world((7, 0, 0))[0])
    press("Shift+K")
    assert not session.state.reviewed.whole
    assert session.state.reviewed.slices[0] == set(range(session.volume.shape[0])) - {7}
    press("Shift+K")
    assert session.state.reviewed.is_whole(session.volume.shape)


def test_without_the_labels_layer_a_mark_is_refused_in_one_line(
    session, controller, viewer, press, failures
):
    viewer.layers.remove(controller.view.labels)
    press("Shift+K", controller.view.points)
    assert len(failures) == 1
    assert "show the layers again" in failures[0]
    assert session.state.reviewed.is_empty()


def test_undo_and_redo_are_the_session_s(session, controller, press, qtbot):
    write(controller, qtbot, (slice(2, 5),) * 3, 1)
    press("Ctrl+Z")
    assert not session.mask.any()
    press("Ctrl+Shift+Z")
    assert session.mask.any()


def test_the_rest_calls_the_controller(session, controller, press, monkeypatch):
    called = []
    for name in ("accept", "new_object", "next_uncertain_slice"):
        monkeypatch.setattr(controller, name, lambda name=name: called.append(name))
    for key in ("K", "N", "U"):
        press(key)
    assert called == ["accept", "new_object", "next_uncertain_slice"]


def test_help_and_docs_show_every_key(qtbot, qapp):
    from qtpy.QtWidgets import QLabel, QWidget

    parent = QWidget()
    qtbot.addWidget(parent)
    shown = KeysHelp(parent).findChild(QLabel).text()
    for key, what in table():
        assert key in shown
        assert f"| {key} | {what} |" in markdown()
    assert {key.text for key in KEYS if not key.text.isdigit()} <= {key for key, _ in table()}
