"""The panels for labels, prompts, tools, review and export, on a real session without a student."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from napari.layers import Layer
from qtpy.QtCore import Qt
from tests.widgets.panelling import TASK, begin, idle, sections_of, write

from napari_ka2er._sample_data import sample_layer, sample_volume
from napari_ka2er.core import tools
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels
from napari_ka2er.core.metrics import volumes_ml
from napari_ka2er.core.package import check_package, summarise_package
from napari_ka2er.core.prompts import Point
from napari_ka2er.core.review import Reviewed, Status
from napari_ka2er.core.sessions import restore_session
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.tools import tool_from_json
from napari_ka2er.core.volume import Geometry
from napari_ka2er.widgets.label_sizes import counting
from napari_ka2er.widgets.label_table import COLOR, LOCKED, NAME, SIZE, STATUS, VISIBLE
from napari_ka2er.widgets.layers import source_of
from napari_ka2er.widgets.review_panel import describe, reviewed_share
from napari_ka2er.widgets.session_view import Tool
from napari_ka2er.widgets.slice_tools import copied_slice

CUBE = (slice(3, 7), slice(10, 20), slice(8, 18))


@pytest.fixture
def sections(controller, viewer, qtbot):
    return sections_of(controller, viewer, qtbot)


@pytest.fixture
def session(sections, controller, viewer, tmp_path, qtbot):
    session = begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "one")
    idle(controller, qtbot)
    return session


# ------------------------------------------------------------------- labels


def test_the_table_shows_the_labels_and_follows_the_chosen_one(
    sections, session, controller, qtbot
):
    table = sections.panel("Task and labels").table
    assert [table.item(row, NAME).text() for row in range(3)] == ["liver", "spleen", "vessel"]
    assert [table.item(row, COLOR).text() for row in range(3)] == ["1", "2", "3"]
    controller.set_label(5)
    idle(controller, qtbot)
    assert table.currentRow() == 2
    table.setCurrentCell(1, NAME)
    assert controller.label == 2


def test_what_is_done_in_the_table_reaches_the_session(sections, session, controller, qtbot):
    table = sections.panel("Task and labels").table
    table.item(1, NAME).setText("spleen, cut")
    idle(controller, qtbot)
    assert session.task.label(2).name == "spleen, cut"
    assert session.task.label(2).color == TASK.label(2).color
    table.item(0, LOCKED).setCheckState(Qt.CheckState.Checked)
    table.item(2, VISIBLE).setCheckState(Qt.CheckState.Unchecked)
    table.cellDoubleClicked.emit(1, STATUS)
    idle(controller, qtbot)
    assert session.state.locked == {1}
    assert controller.view.hidden == {5}
    assert session.state.statuses[2] == Status.IN_PROGRESS
    assert table.item(1, STATUS).text() == "in progress"
    for expected in ("done", "flagged", "not started"):
        table.cellDoubleClicked.emit(1, STATUS)
        idle(controller, qtbot)
        assert table.item(1, STATUS).text() == expected


def test_a_name_that_is_taken_is_refused_and_goes_back(
    sections, session, controller, failures, qtbot
):
    table = sections.panel("Task and labels").table
    table.item(1, NAME).setText("liver")
    idle(controller, qtbot)
    assert len(failures) == 1
    assert session.task.label(2).name == "spleen"
    assert table.item(1, NAME).text() == "spleen"


@pytest.mark.parametrize("typed", ["", "  ", "spleen "])
def test_a_name_that_says_nothing_goes_back_and_the_table_goes_on(
    sections, session, controller, qtbot, typed
):
    table = sections.panel("Task and labels").table
    table.item(1, NAME).setText(typed)
    assert table.item(1, NAME).text() == "spleen"
    table.setCurrentCell(2, NAME)
    assert controller.label == 5
    table.item(0, LOCKED).setCheckState(Qt.CheckState.Checked)
    idle(controller, qtbot)
    assert session.state.locked == {1}


def test_a_label_is_added_by_its_name_and_chosen(sections, session, controller, qtbot):
    panel = sections.panel("Task and labels")
    panel.new_name.setText("tumour")
    panel.add_label.click()
    idle(controller, qtbot)
    assert session.task.label(6).name == "tumour"
    assert panel.table.rowCount() == 4
    assert panel.new_name.text() == ""
    assert controller.label == 6  # the next click or stroke is for it


def test_labels_added_in_quick_succession_are_two(sections, session, controller, qtbot):
    panel, gate = sections.panel("Task and labels"), threading.Event()
    controller._act(lambda session: gate.wait(10))  # a tool at work
    for name in ("tumour", "cyst"):
        panel.new_name.setText(name)
        panel.add_label.click()
    gate.set()
    idle(controller, qtbot)
    assert [label.name for label in session.task.labels[-2:]] == ["tumour", "cyst"]
    assert session.task.values[-2:] == (6, 7)
    assert controller.label == 7


def test_a_lock_that_was_refused_is_not_ticked(
    sections, session, controller, failures, qtbot, monkeypatch
):
    def refuse(record):
        raise UserError("room for one more action", "no space left")

    monkeypatch.setattr(session._log, "append", refuse)
    table = sections.panel("Task and labels").table
    idle(controller, qtbot)
    table.item(0, LOCKED).setCheckState(Qt.CheckState.Checked)
    idle(controller, qtbot)
    assert len(failures) == 1
    assert table.item(0, LOCKED).checkState() == Qt.CheckState.Unchecked


def test_sizes_are_counted_anew_only_if_labels_changed(sections, session, controller, qtbot):
    panel = sections.panel("Task and labels")
    counted = []
    submit = panel._runner.submit
    panel._runner.submit = lambda job: counted.append(job) or submit(job)
    panel._timer.setInterval(1)

    def n_counted(act):
        before = len(counted)
        act()
        idle(controller, qtbot)
        qtbot.wait(30)
        return len(counted) - before

    n_counted(lambda: None)
    for tool in (Tool.BRUSH, Tool.ERASER, Tool.POSITIVE):
        assert n_counted(lambda tool=tool: controller.set_tool(tool)) == 0
    assert n_counted(lambda: write(controller, qtbot, CUBE, 2)) == 1
    assert n_counted(lambda: controller.add_label("cyst")) >= 1, "it has a size, too"
    assert n_counted(lambda: controller.set_label(1)) == 0
    assert n_counted(lambda: controller.view.labels.paint((1, 1, 1), 1)) == 1


def test_volumes_are_counted_in_the_background(sections, session, controller, qtbot):
    write(controller, qtbot, CUBE, 2)
    table = sections.panel("Task and labels").table
    qtbot.waitUntil(lambda: table.item(1, SIZE).text() not in ("", "0"), timeout=10_000)
    expected = volumes_ml(session.mask, session.volume.geometry, [2])[2]
    assert float(table.item(1, SIZE).text()) == pytest.approx(expected, rel=5e-3)
    assert table.item(0, SIZE).text() == "0"


@pytest.mark.parametrize("at_once", [1, 25, 1 << 19])
def test_sizes_are_those_of_the_whole_map_however_it_is_cut(monkeypatch, at_once):
    monkeypatch.setattr("napari_ka2er.widgets.label_sizes._VOXELS_AT_ONCE", at_once)
    labels = np.random.default_rng(3).integers(0, 9, (5, 4, 6)).astype(np.uint16)
    labels[2] = 700  # no label of the task: painted on while it was counted
    lattice, values = Geometry(labels.shape, np.diag([2.5, -1.0, 0.5, 1.0])), (1, 2, 8)
    found = counting(labels, lattice, values)(lambda share, what: None, lambda: False)
    assert found == pytest.approx(volumes_ml(labels, lattice, values))
    assert counting(labels, lattice, values)(lambda share, what: None, lambda: True) == {}


# ------------------------------------------------------------------ prompts


def test_buttons_choose_what_the_mouse_does(sections, session, controller, qtbot):
    prompt, correct = sections.panel("Prompt"), sections.panel("Correct")
    buttons = {**prompt.tools, Tool.BRUSH: correct.brush, Tool.ERASER: correct.eraser}
    for tool, made in buttons.items():
        made.click()
        idle(controller, qtbot)
        assert controller.view.tool == tool
        assert [t for t, b in buttons.items() if b.isChecked()] == [tool]


def test_objects_are_listed_and_can_be_gone_back_to(sections, session, controller, qtbot):
    panel = sections.panel("Prompt")
    assert not panel.objects.isVisibleTo(panel)
    assert "give a prompt first" in panel.accept.toolTip()
    index = session.volume.geometry.to_world
    controller._model = lambda *_: None  # there is no student to answer
    for label, at in ((1, (3, 10, 9)), (2, (5, 20, 12))):
        controller.set_label(label)
        controller.add_prompt(Point(tuple(float(v) for v in index(at))))
        qtbot.waitUntil(lambda n=label: panel.objects.count() == n, timeout=5000)
    assert panel.objects.item(0).text() == "1  liver, 1 prompt"
    panel.objects.setCurrentRow(0)
    qtbot.waitUntil(lambda: controller.current_object == 1, timeout=5000)
    assert controller.label == 1
    qtbot.waitUntil(panel.delete.isEnabled, timeout=5000)
    panel.delete.click()
    qtbot.waitUntil(lambda: panel.objects.count() == 1, timeout=5000)
    assert panel.objects.item(0).text() == "2  spleen, 1 prompt"


def test_layers_that_were_removed_are_brought_back(sections, session, controller, viewer, qtbot):
    panel = sections.panel("Prompt")
    viewer.layers.remove(controller.view.labels)
    idle(controller, qtbot)
    assert panel.show_layers.isVisibleTo(panel)
    assert "Show layers again" in sections.next_step.text()
    assert "removed" in panel.tools[Tool.POSITIVE].toolTip()
    panel.show_layers.click()
    idle(controller, qtbot)
    assert controller.view.is_complete
    assert not panel.show_layers.isVisibleTo(panel)


# -------------------------------------------------------------------- tools


def prepared(controller, qtbot):
    """Two islands and a hole of label 1, a block of label 2, painted slices."""
    write(controller, qtbot, CUBE, 1)
    write(controller, qtbot, (slice(4, 6), slice(13, 15), slice(11, 13)), 0)
    write(controller, qtbot, (slice(9, 10), slice(30, 33), slice(20, 23)), 1)
    write(controller, qtbot, (slice(1, 2), slice(30, 33), slice(20, 23)), 2)
    controller.set_label(1)
    idle(controller, qtbot)


EXPECTED = {
    "fill-between": tools.FillBetween(1, 0),
    "fill-painted": tools.FillBetween(1, 0, (3, 9)),
    "keep-largest": tools.KeepLargest(1),
    "remove-small": tools.RemoveSmall(1, 0.5),
    "fill-holes": tools.FillHoles(1),
    "fill-holes-2d": tools.FillHoles(1, 0),
    "smooth": tools.Smooth(1, 3.0),
    "grow": tools.Grow(1, 3.0),
    "shrink": tools.Shrink(1, 3.0),
    "copy-before": tools.CopySlice(1, 0, 6, 7),
    "copy-after": tools.CopySlice(1, 0, 4, 3),
    "split": tools.Split(1, 2),
    "merge": tools.Merge(1, 2),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_tool_is_one_step_and_is_what_the_log_says(
    sections, session, controller, viewer, failures, qtbot, name
):
    prepared(controller, qtbot)
    if name == "fill-painted":
        write(controller, qtbot, (slice(3, 4), slice(5, 6), slice(5, 6)), 1)
    panel, call = sections.panel("Correct"), EXPECTED[name]
    panel.distance.setValue(3.0)
    panel.smallest.setValue(0.5)
    shown = {"copy-before": 7, "copy-after": 3}.get(name, 5)
    viewer.dims.set_point(0, controller.view.labels.data_to_world((shown, 0, 0))[0])
    before, n_done = session.mask.copy(), session.state.history.n_done
    region, values = call.apply(before, session.volume.channels[0], session.volume.geometry)
    wanted = before.copy()
    wanted[region] = values
    assert (wanted != before).any(), "the example must show the tool"
    panel.tools[name].click()
    idle(controller, qtbot)
    assert not failures
    np.testing.assert_array_equal(session.mask, wanted)
    assert session.state.history.n_done == n_done + 1
    assert tool_from_json(json.loads(json.dumps(session.state.history.last.detail))) == call
    sections.undo.click()
    idle(controller, qtbot)
    np.testing.assert_array_equal(session.mask, before)


def test_every_tool_button_has_an_example(sections):
    assert set(sections.panel("Correct").tools) == set(EXPECTED)


def test_two_selected_points_say_where_to_split(sections, session, controller, viewer, qtbot):
    write(controller, qtbot, CUBE, 1)
    points = viewer.add_points(np.array([(5, 15, 9), (5, 15, 17)]), affine=session.volume.affine)
    points.selected_data = {0, 1}
    sections.panel("Correct").tools["split"].click()
    idle(controller, qtbot)
    assert session.mask[5, 15, 9] == 1
    assert session.mask[5, 15, 17] == 2


def test_what_a_tool_cannot_do_is_told(sections, session, controller, viewer, failures, qtbot):
    write(controller, qtbot, (slice(0, 1), slice(5, 9), slice(5, 9)), 1, "automatic")
    panel = sections.panel("Correct")
    panel.tools["fill-painted"].click()
    idle(controller, qtbot)
    viewer.dims.set_point(0, controller.view.labels.data_to_world((0, 0, 0))[0])
    panel.tools["copy-before"].click()
    idle(controller, qtbot)
    assert len(failures) == 2
    assert "painted" in failures[0]
    assert "before" in failures[1]
    assert copied_slice(session, 1, 0, 0, 1) == tools.CopySlice(1, 0, 1, 0)


def disc_mm(controller, qtbot):
    """Paint once in the middle and return how far the disc reaches along (Z, Y, X), in mm."""
    labels, session = controller.view.labels, controller.session
    labels.paint(tuple(np.array(session.volume.shape) // 2), controller.label)
    idle(controller, qtbot)
    voxels = np.argwhere(session.mask == controller.label)
    controller.undo()
    idle(controller, qtbot)
    return np.ptp(voxels, axis=0) * session.volume.spacing


@pytest.mark.parametrize("width_mm", [9.0, 21.0])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_the_brush_is_a_circle_of_its_width_in_every_plane(
    sections, session, controller, viewer, qtbot, order, width_mm
):
    sections.panel("Correct").brush_width.mm.setValue(width_mm)
    viewer.dims.order = order
    spacing = np.array(session.volume.spacing)
    reach = disc_mm(controller, qtbot)
    across, *plane = order
    assert reach[across] == 0
    # From the first voxel's centre to the last one's: less than the width by up to a voxel, and
    # napari rounds to whole voxels of the finer spacing.
    assert (reach[plane] <= width_mm + spacing[plane].min()).all()
    assert (reach[plane] >= width_mm - spacing[plane].min() - 2 * spacing[plane]).all()


def test_the_brush_stays_as_wide_when_another_plane_is_shown(sections, session, controller, viewer):
    labels = controller.view.labels
    sections.panel("Correct").brush_width.mm.setValue(19.0)
    assert labels.brush_size == 9  # of 2.1 mm, in (Y, X)
    viewer.dims.order = (1, 0, 2)
    assert labels.brush_size == 7  # of 2.7 mm, in (Z, X)
    labels.n_edit_dimensions = 3
    assert labels.brush_size == 9
    viewer.dims.ndisplay = 3
    assert labels.brush_size == 9


def test_the_brushs_width_is_shown_when_napari_changes_it(sections, session, controller, qtbot):
    field, labels = sections.panel("Correct").brush_width.mm, controller.view.labels
    field.setValue(21.0)
    labels.brush_size = 21  # by the keys or napari's own control
    assert field.value() == pytest.approx(21 * min(session.volume.spacing))
    controller.set_label(2)
    idle(controller, qtbot)
    assert labels.brush_size == 21
    assert "paints 44.1 mm" in field.toolTip()


def test_a_brush_that_comes_back_is_as_wide_as_before(sections, session, controller, viewer, qtbot):
    field = sections.panel("Correct").brush_width.mm
    field.setValue(15.0)
    before = controller.view.labels.brush_size
    viewer.layers.remove(controller.view.labels)
    idle(controller, qtbot)
    field.setValue(18.0)
    field.setValue(15.0)
    controller.show_layers()
    idle(controller, qtbot)
    assert controller.view.labels.brush_size == before


def test_the_brush_is_limited_to_intensities_and_a_label(sections, session, controller, qtbot):
    limits = sections.panel("Correct").limits
    image = np.asarray(session.volume.channels[0])
    middle = float(np.median(image))
    assert not limits.low.isEnabled()
    assert "tick Intensity" in limits.low.toolTip()
    limits.by_intensity.click()
    idle(controller, qtbot)
    ends = image[len(image) // 2].min(), image[len(image) // 2].max()
    assert (limits.low.value(), limits.high.value()) == pytest.approx(ends, abs=0.05)
    limits.low.setValue(middle)
    limits.high.setValue(float(image.max()) + 1)
    limits.over.setCurrentIndex(limits.over.findData(0))
    idle(controller, qtbot)
    labels = controller.view.labels
    labels.n_edit_dimensions, labels.brush_size = 3, 9
    labels.paint((6, 20, 15), 1)
    idle(controller, qtbot)
    assert session.mask.any()
    assert image[session.mask != 0].min() >= limits.low.value()
    limits.by_intensity.click()
    limits.over.setCurrentIndex(limits.over.findData(1))
    idle(controller, qtbot)
    was = session.mask != 0
    labels.paint((6, 20, 15), 2)
    idle(controller, qtbot)
    np.testing.assert_array_equal(session.mask != 0, was)
    assert (session.mask == 2).any()


def test_a_limit_to_a_label_that_is_no_more_ends(
    sections, session, controller, viewer, qtbot, tmp_path
):
    limits = sections.panel("Correct").limits
    limits.over.setCurrentIndex(limits.over.findData(5))
    assert controller._limits.only_over == 5
    other = Task("lungs", (Label(1, "lung"),))
    begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "two", other)
    idle(controller, qtbot)
    assert limits.only_over is None
    assert controller._limits.only_over is None
    controller.view.labels.paint((3, 10, 10), 1)
    idle(controller, qtbot)
    assert controller.session.mask[3, 10, 10] == 1


def test_intensities_are_limited_in_the_images_own_scale(
    sections, session, controller, viewer, qtbot, tmp_path
):
    limits = sections.panel("Correct").limits
    limits.by_intensity.click()  # in the scale of the first volume
    values = np.random.default_rng(0).random((6, 20, 20)) * 3e-3  # as in a map of diffusion
    layer = viewer.add_image(values.astype(np.float32), name="diffusion")
    begin(controller, layer, tmp_path / "sessions" / "two")
    idle(controller, qtbot)
    low, high = values[3].min(), values[3].max()
    assert limits.intensity_range == pytest.approx((low, high), abs=3e-6)
    assert limits.low.value() <= low
    assert high <= limits.high.value()
    assert controller._limits.intensity_range == limits.intensity_range
    limits.low.setValue(0.0015)
    assert limits.low.value() == 0.0015


def test_lengths_are_of_the_scale_of_a_microscopes_volume(
    sections, session, controller, viewer, qtbot, tmp_path
):
    panel = sections.panel("Correct")
    layer = viewer.add_image(np.zeros((30, 64, 64), np.uint8), scale=(0.001, 0.0005, 0.0005))
    begin(controller, layer, tmp_path / "sessions" / "two")
    idle(controller, qtbot)
    assert 1 < controller.view.labels.brush_size < 16
    assert panel.distance.value() == pytest.approx(0.001)
    panel.brush_width.mm.setValue(0.0025)
    assert controller.view.labels.brush_size == 5
    panel.brush_width.mm.setValue(0)
    assert controller.view.labels.brush_size == 1


# ------------------------------------------------------------------- review


def test_slices_are_marked_and_counted(sections, session, controller, viewer, qtbot):
    panel = sections.panel("Review")
    n = session.volume.shape[0]
    for index in (2, 5):
        viewer.dims.set_point(0, controller.view.labels.data_to_world((index, 0, 0))[0])
        assert panel.slice.text() == f"Slice Z {index} is right"
        assert not panel.slice.isChecked()
        panel.slice.click()
        idle(controller, qtbot)
    assert session.state.reviewed.slices[0] == {2, 5}
    assert panel.share.text() == f"{100 * 2 / n:.0f} % reviewed: slices 2 of {n} Z."
    viewer.dims.set_point(0, controller.view.labels.data_to_world((2, 0, 0))[0])
    assert panel.slice.isChecked()
    panel.slice.click()
    idle(controller, qtbot)
    assert session.state.reviewed.slices[0] == {5}
    panel.whole.click()
    idle(controller, qtbot)
    assert session.state.reviewed.whole
    assert panel.slice.isChecked()
    assert panel.summary() == "100 % reviewed"


def test_a_slice_and_the_volume_are_taken_back(sections, session, controller, viewer, qtbot):
    panel = sections.panel("Review")
    panel.whole.click()
    idle(controller, qtbot)
    viewer.dims.set_point(0, controller.view.labels.data_to_world((2, 0, 0))[0])
    panel.slice.click()
    idle(controller, qtbot)
    assert not panel.slice.isChecked()
    assert not panel.whole.isChecked()
    n = session.volume.shape[0]
    assert session.state.reviewed.mask(session.volume.shape)[:, 0, 0].tolist() == [
        index != 2 for index in range(n)
    ]
    panel.slice.click()
    idle(controller, qtbot)
    assert panel.whole.isChecked()
    panel.whole.click()
    idle(controller, qtbot)
    assert session.state.reviewed.is_empty()


def test_steps_that_damage_took_are_told_once(sections, controller, viewer, tmp_path, qtbot):
    folder = tmp_path / "sessions" / "one"
    begin(controller, viewer.layers["scan"], folder)
    write(controller, qtbot, CUBE, 1)
    controller.finish()
    idle(controller, qtbot)
    log = folder / "actions.jsonl"
    log.write_bytes(log.read_bytes()[:-3])
    failures = []
    controller.failed.connect(failures.append)
    session = restore_session(folder, source_of(viewer.layers["scan"]).read())
    begin(controller, viewer.layers["scan"], folder, session=session)
    idle(controller, qtbot)
    controller.review(True)
    idle(controller, qtbot)
    assert len(failures) == 1
    assert "1 set aside in its folder" in failures[0]


@pytest.mark.parametrize(
    "slices",
    [((), (), ()), ((0, 2), (), ()), ((1,), (0, 1, 2), (7,)), (tuple(range(4)), (), ())],
)
def test_the_reviewed_share_is_that_of_the_mask(slices):
    shape = (4, 6, 8)
    reviewed = Reviewed(False, tuple(frozenset(s) for s in slices))
    assert reviewed_share(reviewed, shape) == pytest.approx(reviewed.mask(shape).mean())
    assert describe(reviewed, shape).endswith(".")


# ------------------------------------------------------------------- export


def test_a_package_has_the_reviewed_cases_and_who_vouches(
    sections, session, controller, viewer, qtbot, tmp_path, monkeypatch, failures
):
    panel = sections.panel("Export")
    assert "reviewed first" in panel.export.toolTip()
    write(controller, qtbot, CUBE, 1)
    controller.review(True)
    idle(controller, qtbot)
    assert panel.export.isEnabled()
    panel.reviewer.setText("Dr. K")
    panel.patient.setText("p017")
    panel.case.setText("case_a")
    path = tmp_path / "Dataset001_organs"
    monkeypatch.setattr(
        "napari_ka2er.widgets.export_panel.QFileDialog.getSaveFileName",
        lambda *args, **kwargs: (str(path), ""),
    )
    panel.export.click()
    idle(controller, qtbot)
    assert not failures
    assert check_package(path) == []
    [case] = summarise_package(path)["cases"]
    assert case["case"].startswith("case_a")
    assert case["reviewer"] == "Dr. K"


def test_what_was_reviewed_before_is_offered_for_the_same_package(
    sections, session, controller, viewer, qtbot, tmp_path
):
    panel = sections.panel("Export")
    controller.review(True)
    idle(controller, qtbot)
    begin(controller, viewer.layers["scan"], tmp_path / "sessions" / "two")
    idle(controller, qtbot)
    assert panel.more_sessions == (tmp_path / "sessions" / "one",)
    panel.others.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert panel.more_sessions == ()


def test_another_session_begins_without_the_patient_and_what_its_package_cannot_take(
    sections, session, controller, viewer, qtbot, tmp_path
):
    panel, scan = sections.panel("Export"), viewer.layers["scan"]
    panel.patient.setText("p017")
    panel.case.setText("baseline")
    controller.review(True)
    idle(controller, qtbot)
    brain = Task("brain", (Label(1, "grey"),))
    begin(controller, scan, tmp_path / "sessions" / "two", brain)
    idle(controller, qtbot)
    assert panel.patient.text() == panel.case.text() == ""
    assert panel.others.count() == 1, "it is offered"
    assert panel.more_sessions == (), "but it is of another task"
    panel.others.clear()
    controller.review(True)
    idle(controller, qtbot)
    controller.export(tmp_path / "Dataset001_brain")
    idle(controller, qtbot)
    begin(controller, scan, tmp_path / "sessions" / "three", brain)
    idle(controller, qtbot)
    assert panel.others.count() == 1
    assert panel.more_sessions == (), "it is in a package already"


def test_what_a_package_took_is_not_ticked_for_the_next(
    sections, session, controller, viewer, qtbot, tmp_path
):
    panel = sections.panel("Export")
    panel.add_more(tmp_path / "sessions" / "one")
    assert len(panel.more_sessions) == 1
    controller._packed.add((tmp_path / "sessions" / "one").resolve())
    controller.exported.emit(tmp_path / "Dataset001_organs")
    assert panel.more_sessions == ()


def test_the_file_of_a_sample_is_known(viewer):
    [layer] = (Layer.create(*sample_layer("phantom")),)
    assert source_of(layer).path == sample_volume("phantom")


def test_how_far_an_export_is_does_not_look_like_preparing(sections, session, controller, qtbot):
    prepared = sections.panel("Segment").prepared
    controller.export_progressed.emit(0.4, "image")
    assert prepared.text() == ""
    controller.progressed.emit(0.4, "encoded")
    assert prepared.text() == "40 % prepared"


def test_a_folder_that_is_no_session_is_told(sections, session, controller, failures, tmp_path):
    sections.panel("Export").add_more(tmp_path)
    assert len(failures) == 1
    assert sections.panel("Export").more_sessions == ()


def test_labels_and_volumes_are_saved_where_asked(
    sections, session, controller, qtbot, tmp_path, monkeypatch, failures
):
    panel = sections.panel("Export")
    write(controller, qtbot, CUBE, 5)
    for made, name in ((panel.save, "labels.nrrd"), (panel.volumes, "volumes.json")):
        monkeypatch.setattr(
            "napari_ka2er.widgets.export_panel.QFileDialog.getSaveFileName",
            lambda *args, name=name: (str(tmp_path / name), ""),
        )
        made.click()
        idle(controller, qtbot)
    assert not failures
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nrrd")[0], session.mask)
    told = json.loads((tmp_path / "volumes.json").read_text(encoding="utf-8"))
    expected = volumes_ml(session.mask, session.volume.geometry, [5])[5]
    assert told["labels"]["vessel"] == pytest.approx(expected, abs=1e-3)
