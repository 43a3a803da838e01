"""The panels to choose a volume, a student and a task."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from napari.layers import Image
from tests.widgets.panelling import begin, idle, sections_of

from napari_ka2er.core.student_card import StudentCard, read_student_card, student_in
from napari_ka2er.core.task import Label, Task
from napari_ka2er.model.catalogue import sample_folder
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.layers import source_of
from napari_ka2er.widgets.student_panel import StudentPanel, introduce
from napari_ka2er.widgets.volume_panel import VolumePanel, describe


def rotated(degrees, scale):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(scale)
    return affine


def test_spacing_orientation_and_tilt_are_told_as_read():
    straight = Image(np.zeros((4, 6, 8)), affine=np.diag([2.5, -1.0, 0.5, 1.0]))
    text = describe(source_of(straight))
    assert text == "4 × 6 × 8 voxels of 2.5 × 1 × 0.5 mm (Z × Y × X), axes SPR"
    tilted = Image(np.zeros((4, 6, 8)), affine=rotated(12, (3.0, 1.0, 1.0)))
    assert describe(source_of(tilted)).endswith("tilted by 12°")


def test_the_numbers_of_a_size_stay_in_one_line(controller, viewer, qtbot):
    panel = VolumePanel(controller, viewer)
    qtbot.addWidget(panel)
    words = panel.description.text().split(" ")  # where a line may end
    assert (
        "12\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}40\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}30" in words
    )


def test_layers_come_go_and_are_renamed(controller, viewer, qtbot):
    panel = VolumePanel(controller, viewer)
    qtbot.addWidget(panel)
    chosen = []
    panel.chosen.connect(lambda: chosen.append(panel.layer))
    other = viewer.add_image(np.zeros((3, 4, 5)), name="other")
    assert [panel.volume.itemText(n) for n in range(panel.volume.count())] == ["scan", "other"]
    panel.volume.setCurrentIndex(1)
    other.name = "renamed"
    assert panel.volume.currentText() == "renamed"
    assert panel.summary() == "renamed"
    viewer.layers.move(1, 0)
    assert panel.layer is other
    viewer.layers.remove(other)
    assert panel.layer is viewer.layers["scan"]
    assert chosen[-1] is viewer.layers["scan"]
    viewer.layers.clear()
    assert panel.layer is None
    assert "open a volume" in panel.obstacle()


def test_what_is_no_volume_is_told_and_cannot_be_started_on(controller, viewer, qtbot):
    panel = VolumePanel(controller, viewer)
    qtbot.addWidget(panel)
    viewer.add_image(np.zeros((2, 3, 4, 5)), name="film")
    panel.volume.setCurrentIndex(1)
    assert "film of 4 axes" in panel.description.text()
    assert "3D image" in panel.obstacle()


def test_our_own_maps_are_no_volumes(controller, viewer, qtbot):
    panel = VolumePanel(controller, viewer)
    qtbot.addWidget(panel)
    viewer.add_image(np.zeros((3, 4, 5)), metadata={"napari_ka2er": {"map": "uncertainty"}})
    assert panel.volume.count() == 1


def dicom_slice(path):
    """Write one slice of 4 x 4 voxels."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    made.SOPInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2"
    made.Modality, made.PhotometricInterpretation, made.SamplesPerPixel = "CT", "MONOCHROME2", 1
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored = 4, 4, 16, 16
    made.HighBit, made.PixelRepresentation, made.PixelSpacing = 15, 1, [1, 1]
    made.ImageOrientationPatient, made.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    made.PixelData = np.zeros((4, 4), np.int16).tobytes()
    made.save_as(path, enforce_file_format=True)


def test_a_folder_and_a_slice_without_suffix_are_opened_or_told_in_a_line(
    controller, viewer, qtbot, tmp_path, monkeypatch, failures
):
    panel = VolumePanel(controller, viewer)
    qtbot.addWidget(panel)
    a_file, a_folder = panel.open.menu().actions()
    dialogs = "napari_ka2er.widgets.volume_panel.QFileDialog"
    series = tmp_path / "series"
    series.mkdir()
    dicom_slice(series / "IM00000")
    monkeypatch.setattr(f"{dialogs}.getOpenFileName", lambda *_: (str(series / "IM00000"), ""))
    a_file.trigger()
    idle(controller, qtbot)
    source = source_of(viewer.layers[-1])
    assert source.data.shape == (1, 4, 4)
    assert source.path == series / "IM00000"
    for folder in (series, sample_folder()):
        monkeypatch.setattr(f"{dialogs}.getExistingDirectory", lambda *_, at=folder: str(at))
        a_folder.trigger()
    idle(controller, qtbot)
    assert panel.volume.count() == 3
    assert len(failures) == 1
    assert "a folder with a DICOM series or OME-Zarr" in failures[0]


def test_the_sample_student_tells_its_tasks_and_what_it_reached(controller, qtbot):
    panel = StudentPanel(controller)
    qtbot.addWidget(panel)
    card = read_student_card(sample_folder() / "student")
    for task in card.tasks:
        assert f"{task.name} {card.dice['sparse'][task.name]:.2f}" in panel.description.text()
    assert panel.mode.currentText() == "sparse"
    assert panel.mode.count() == 3
    assert "\n" in panel.mode.toolTip(), "each mode is explained"


def test_a_workspace_stands_for_its_current_student(controller, qtbot, tmp_path):
    student = tmp_path / "students" / "v0002"
    student.mkdir(parents=True)
    text = (sample_folder() / "student" / "student.json").read_text(encoding="utf-8")
    (student / "student.json").write_text(text, encoding="utf-8")
    panel = StudentPanel(controller)
    qtbot.addWidget(panel)
    panel.set_student(tmp_path)
    assert panel.card is None
    assert "current student" in panel.description.text()
    (tmp_path / "students" / "current").write_text("v0002\n", encoding="utf-8")
    panel.set_student(tmp_path)
    assert panel.card is not None
    assert panel.card.folder == student == student_in(tmp_path)
    assert [panel.mode.itemText(n) for n in range(panel.mode.count())] == ["distilled"]
    assert "Experts are missing" in panel.description.text()


@pytest.fixture
def workspace(tmp_path):
    """A workspace with two versions, of which v0001 is current."""
    text = (sample_folder() / "student" / "student.json").read_text(encoding="utf-8")
    for version in ("v0001", "v0002"):
        student = tmp_path / "work" / "students" / version
        student.mkdir(parents=True)
        (student / "student.json").write_text(text, encoding="utf-8")
    (student.parent / "current").write_text("v0001\n", encoding="utf-8")
    return tmp_path / "work"


def test_the_next_window_begins_with_the_workspace_chosen_last(controller, qtbot, workspace):
    def chosen_at_first():
        panel = StudentPanel(controller)
        qtbot.addWidget(panel)
        return panel

    panel = chosen_at_first()
    assert panel.card.folder == sample_folder() / "student"
    panel.folder.setText(str(workspace))
    panel.folder.editingFinished.emit()
    assert chosen_at_first().card.folder == workspace / "students" / "v0001"
    (workspace / "students" / "current").write_text("v0002\n", encoding="utf-8")
    assert chosen_at_first().card.folder == workspace / "students" / "v0002", "a round's student"
    panel.set_student(workspace / "nothing")
    panel = chosen_at_first()
    assert panel.folder.text() == str(workspace), "what cannot be read is not remembered"
    panel.take_sample()
    assert chosen_at_first().card.folder == sample_folder() / "student"


def test_a_student_that_went_away_is_told_and_no_other_takes_its_place(
    controller, qtbot, workspace
):
    panel = StudentPanel(controller)
    qtbot.addWidget(panel)
    panel.set_student(workspace)
    workspace.rename(workspace.with_name("moved"))
    again = StudentPanel(controller)
    qtbot.addWidget(again)
    assert again.obstacle()
    assert "no folder" in again.description.text()


def test_a_student_that_is_gone_on_with_stands_for_its_workspace_while_it_is_current(
    controller, qtbot, workspace
):
    panel = StudentPanel(controller)
    qtbot.addWidget(panel)
    students = workspace / "students"
    for version, shown in (("v0001", workspace), ("v0002", students / "v0002")):
        controller.student_changed.emit(Choice(students / version, "lungs", "distilled", "cpu"))
        assert panel.folder.text() == str(shown)


def test_scores_of_one_label_and_of_all_labels_are_both_found(tmp_path):
    rows = [
        {"task": "a", "label": "left", "dice": {"mean": 0.5}},
        {"task": "a", "label": "all", "dice": {"mean": 0.6}},
        {"task": "b", "label": "only", "dice": {"mean": 0.7}},
        {"task": "c", "label": "absent", "dice": {"mean": float("nan")}},
        {"task": "d", "label": "odd", "dice": None},
    ]
    text = json.loads((sample_folder() / "student" / "student.json").read_text(encoding="utf-8"))
    for metrics, expected in (
        ({"sparse": rows}, {"sparse": {"a": 0.6, "b": 0.7}}),
        (None, {}),
        ({"sparse": None}, {}),
    ):
        text["card"]["metrics"] = metrics
        (tmp_path / "student.json").write_text(json.dumps(text), encoding="utf-8")
        assert read_student_card(tmp_path).dice == expected


def test_a_student_nobody_measured_is_introduced_without_figures(tmp_path):
    card = StudentCard(tmp_path, "", (Task("organs", (Label(1, "liver"),)),), ("a", "b"), ("b",))
    text = introduce(card)
    assert text.startswith("No version, 1 of 2 experts. Tasks: organs.")


def test_without_experts_the_figures_are_those_without_experts():
    card = read_student_card(sample_folder() / "student")
    assert "(Dice on the hold-out, sparse)" in introduce(replace(card, missing=()))
    assert "(Dice on the hold-out, distilled)" in introduce(replace(card, missing=("lungs",)))


@pytest.fixture
def sections(controller, viewer, qtbot):
    return sections_of(controller, viewer, qtbot)


def test_start_says_why_it_cannot_be_pressed_and_starts_what_was_chosen(
    sections, controller, viewer, monkeypatch
):
    labels, student = sections.panel("Task and labels"), sections.panel("Student")
    scan = viewer.layers["scan"]
    viewer.layers.clear()
    assert not labels.start.isEnabled()
    assert "open a volume first" in labels.start.toolTip()
    viewer.add_layer(scan)
    assert labels.start.isEnabled()
    student.set_student(sample_folder())
    assert "student's folder" in labels.start.toolTip()
    assert labels.choice is None
    student.take_sample()
    student.mode.setCurrentText("full")
    student.device.setCurrentText("cpu")
    labels.task.choose("lungs")
    started = []
    monkeypatch.setattr(controller, "start", lambda *given: started.append(given))
    labels.start.click()
    [(layer, choice)] = started
    assert layer is viewer.layers["scan"]
    assert (choice.student, choice.task) == (sample_folder() / "student", "lungs")
    assert (choice.mode, choice.device) == ("full", "cpu")


def test_earlier_work_on_the_same_volume_is_offered(sections, controller, viewer, qtbot, tmp_path):
    labels, layer = sections.panel("Task and labels"), viewer.layers["scan"]
    idle(controller, qtbot)
    assert not labels.restore.isVisible()
    session = begin(controller, layer, tmp_path / "sessions" / "first")
    controller.review(True)
    idle(controller, qtbot)
    assert not labels.restore.isVisible(), "not while a session runs"
    session.close()
    controller._end_session()
    controller._known = {}
    controller._note()
    idle(controller, qtbot)
    assert labels.restore.isVisible()
    assert "organs, 1 steps" in labels.earlier.currentText()
    restored = []
    controller.restore = lambda *given: restored.append(given)
    labels.restore.click()
    assert restored[0][:2] == (layer, tmp_path / "sessions" / "first")
