from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from tests.training.conftest import AFFINE, phantom, write_raw

from ka2er_training.cli import main
from ka2er_training.dataset import TaskOptions, _median_spacing, add_task
from ka2er_training.holdout import check_training_data, hold_out
from ka2er_training.integrity import ReadOptions, patient_of
from ka2er_training.sources import read_source, with_unlabelled
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.hashing import content_digest
from napari_ka2er.core.io import read_labels, read_volume, write_labels, write_volume
from napari_ka2er.core.volume import Volume


def everything(folder):
    """Every file of a folder with its bytes, but the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def add(workspace, raw, **options):
    add_task(workspace, read_source(raw), TaskOptions(**options))
    return Workspace.open(workspace.folder)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((5, 0.7421875, 0.7421875), (5.0, 0.742, 0.742)),
        ((2e-4, 6.512345e-5, 6.512345e-5), (2e-4, 6.512e-5, 6.512e-5)),  # a microscope's
    ],
)
def test_a_task_is_given_the_median_spacing_and_never_zero(spacing, expected):
    cases = [SimpleNamespace(spacing=spacing)] * 3
    assert _median_spacing(cases) == expected


def test_an_nnunet_dataset_becomes_a_task_split_by_patient(workspace, raw):
    workspace = add(workspace, raw)
    record = workspace.record("balls")
    assert [label.name for label in record.task.labels] == ["bright", "dim"]
    assert (record.kind, record.licence, record.spacing_mm) == ("nnunet", "CC0", (2.0, 1.0, 1.5))
    assert record.dataset == "Dataset001_balls"
    ids = {
        case.id for case in (*workspace.training_cases("balls"), *workspace.holdout_cases("balls"))
    }
    assert ids == {f"p{number}_a" for number in range(5)}
    case = workspace.holdout_cases("balls")[0]
    assert case.image.read_bytes() == (raw / "imagesTr" / f"{case.id}_0000.nii.gz").read_bytes()
    frozen = workspace.holdout()["balls"]["cases"]
    assert set(frozen) == {case.id}
    assert frozen[case.id]["image"] == content_digest(read_volume(case.image))


def test_nnunet_finds_only_the_training_cases(workspace, raw):
    workspace = add(workspace, raw)
    folder = workspace.dataset_folder("balls")
    description = json.loads((folder / "dataset.json").read_text("utf-8"))
    images = {path.name for path in (folder / "imagesTr").iterdir()}
    assert description["numTraining"] == len(images) == 4
    assert description["labels"] == {"background": 0, "bright": 1, "dim": 2}
    assert not {f"{case.id}_0000.nii.gz" for case in workspace.holdout_cases("balls")} & images


def test_an_msd_task_is_read_by_its_own_list(workspace, raw, edit_description):
    pairs = [
        {"image": f"./imagesTr/p{n}_a_0000.nii.gz", "label": f"./labelsTr/p{n}_a.nii.gz"}
        for n in range(5)
    ]
    edit_description(
        training=pairs,
        labels={"0": "background", "1": "bright", "2": "dim"},
        modality={"0": "MRI"},
        channel_names=None,
        file_ending=None,
    )
    (raw / "imagesTr" / "._p0_a.nii.gz").write_bytes(b"left by macOS")
    workspace = add(workspace, raw, name="msd")
    assert workspace.record("msd").kind == "msd"
    assert workspace.record("msd").task.modality == "MRI"
    assert len(workspace.training_cases("msd")) == 4


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".tif"])
def test_two_folders_of_any_format_become_a_task(workspace, tmp_path, ending):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(3):
        volume, labels = phantom(number)
        write_volume(tmp_path / "images" / f"case {number}{ending}", volume)
        write_labels(tmp_path / "labels" / f"case {number}{ending}", labels, volume)
    folders = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels")]
    names = ["--label", "1=bright", "--label", "2=dim", "--name", "two", "--modality", "CT"]
    assert main(["task", "add", str(workspace.folder), *folders, *names]) == 0
    workspace = Workspace.open(workspace.folder)
    record, cases = workspace.record("two"), workspace.training_cases("two")
    assert (record.kind, record.task.modality, len(cases)) == ("folders", "CT", 2)
    assert [label.name for label in record.task.labels] == ["bright", "dim"]
    for case in cases:
        volume, labels = phantom(int(case.id[-1]))
        np.testing.assert_array_equal(read_labels(case.label)[0], labels)
        np.testing.assert_allclose(read_volume(case.image).data, volume.data)
        np.testing.assert_allclose(read_volume(case.image).spacing, (2, 1, 1.5), atol=1e-5)


def test_labels_without_names_are_named_after_their_values(workspace, raw):
    folders = ["--images", str(raw / "imagesTr"), "--labels", str(raw / "labelsTr"), "--name", "n"]
    assert main(["task", "add", str(workspace.folder), *folders]) == 0
    task = Workspace.open(workspace.folder).record("n").task
    assert [label.name for label in task.labels] == ["label_1", "label_2"]


def test_patients_stay_together(workspace, raw):
    for number in range(5):
        volume, labels = phantom(number + 100)
        write_volume(raw / "imagesTr" / f"p{number}_b_0000.nii.gz", volume)
        write_labels(raw / "labelsTr" / f"p{number}_b.nii.gz", labels, volume)
    workspace = add(workspace, raw, read=ReadOptions(patient=r"^(p\d)_"))
    held, trained = workspace.holdout_cases("balls"), workspace.training_cases("balls")
    assert len(held) == 2
    assert len(trained) == 8
    assert not {case.patient for case in held} & {case.patient for case in trained}


def test_an_image_that_another_task_holds_out_is_held_out_here(workspace, raw):
    workspace = add(workspace, raw, name="first")
    held = workspace.holdout_cases("first")[0]
    for folder in ("imagesTr", "labelsTr"):  # other names, so another hash
        for path in (raw / folder).iterdir():
            path.rename(path.with_name(f"renamed_{path.name}"))
    second = add(workspace, raw, name="second")
    digests = {case["image"] for case in second.holdout()["second"]["cases"].values()}
    assert second.holdout()["first"]["cases"][held.id]["image"] in digests
    trained = {case["image"] for case in second.manifest("first") if case["split"] == "training"}
    assert not trained & digests


def test_a_patient_whom_other_tasks_both_hold_out_and_train_on_is_refused(workspace, raw):
    for number in range(5):
        volume, labels = phantom(number + 100)
        write_volume(raw / "imagesTr" / f"p{number}_b_0000.nii.gz", volume)
        write_labels(raw / "labelsTr" / f"p{number}_b.nii.gz", labels, volume)
    workspace = add(workspace, raw, name="first")  # every image is a patient
    before = everything(workspace.folder)
    with pytest.raises(UserError, match=r"got p\d, of whom images are held out .*--patient"):
        add(workspace, raw, name="second", read=ReadOptions(patient=r"^(p\d)_"))
    assert everything(workspace.folder) == before
    check_training_data(add(workspace, raw, name="second"), "first")


def test_an_image_that_waits_to_be_held_again_is_held_out_in_a_new_task(workspace, raw):
    workspace = add(workspace, raw, name="first")
    path = workspace.dataset_folder("first") / "cases.json"
    data = json.loads(path.read_text("utf-8"))
    chosen = next(case for case in data["cases"] if case["split"] == "training")
    chosen.update(split="queued", side="held")
    path.write_text(json.dumps(data))
    second = add(workspace, raw, name="second").manifest("second")
    assert {c["split"] for c in second if c["image"] == chosen["image"]} == {"holdout"}


def test_unlabelled_images_join_unless_their_patient_is_held_out(workspace, raw, tmp_path):
    (tmp_path / "more").mkdir()
    for number in range(5):
        write_volume(tmp_path / "more" / f"p{number}_c.nii.gz", phantom(number + 50)[0])
    source = with_unlabelled(read_source(raw), tmp_path / "more")
    add_task(workspace, source, TaskOptions(read=ReadOptions(patient=r"^(p\d)_")))
    workspace = Workspace.open(workspace.folder)
    cases = workspace.unlabelled_cases("balls")
    assert len(cases) == 4
    assert all(case.label is None and case.image.is_file() for case in cases)
    assert not {c.patient for c in cases} & {c.patient for c in workspace.holdout_cases("balls")}


def test_one_channel_of_several_is_taken_when_it_is_named(workspace, tmp_path, caplog):
    raw = write_raw(tmp_path / "two_channels", n_cases=3, n_channels=2)
    assert main(["task", "add", str(workspace.folder), str(raw)]) == 2
    assert "--channel" in caplog.text
    assert main(["task", "add", str(workspace.folder), str(raw), "--channel", "1"]) == 0
    case = Workspace.open(workspace.folder).training_cases("balls")[0]
    assert read_volume(case.image).n_channels == 1


def test_the_ignore_label_is_kept_for_nnunet_but_is_no_label(workspace, raw, edit_description):
    edit_description(labels={"background": 0, "bright": 1, "dim": 2, "ignore": 3})
    workspace = add(workspace, raw)
    assert workspace.record("balls").task.values == (1, 2)
    description = json.loads(
        (workspace.dataset_folder("balls") / "dataset.json").read_text("utf-8")
    )
    assert description["labels"]["ignore"] == 3


def test_the_split_depends_on_names_and_salt_only():
    patients = [f"p{number}" for number in range(20)]
    chosen = hold_out(patients, 0.2, "a")
    assert len(chosen) == 4
    assert hold_out(reversed(patients), 0.2, "a") == chosen
    assert hold_out(patients, 0.2, "b") != chosen


@pytest.mark.parametrize(
    ("n_patients", "share", "held"),
    [(0, 0.2, 0), (1, 0.2, 0), (2, 0.2, 1), (4, 0.2, 1), (4, 0.0, 0), (2, 0.9, 1)],
)
def test_never_every_patient_is_held_out_and_of_two_one_is(n_patients, share, held):
    assert len(hold_out([str(n) for n in range(n_patients)], share, "s")) == held


def test_equal_images_have_equal_digests_in_every_type_and_format(tmp_path):
    volume, _ = phantom(3)
    whole = Volume(np.round(volume.data).astype(np.int16), AFFINE)
    for name in ("a.nii.gz", "a.nrrd"):
        write_volume(tmp_path / name, whole)
        assert content_digest(read_volume(tmp_path / name)) == content_digest(whole)
    assert content_digest(replace(whole, data=whole.data[::-1])) != content_digest(whole)


def test_a_pattern_without_a_group_takes_its_whole_match():
    assert patient_of("sub-01_ses-2", r"sub-\d+") == "sub-01"


def break_geometry(raw, _):
    volume, labels = phantom(1)
    shifted = AFFINE.copy()
    shifted[0, 3] = 5
    write_labels(raw / "labelsTr" / "p1_a.nii.gz", labels, Volume(volume.data, shifted))


def break_shape(raw, _):
    volume, labels = phantom(1)
    cut = Volume(volume.data[:-1], AFFINE)
    write_labels(raw / "labelsTr" / "p1_a.nii.gz", labels[:-1], cut)


def break_values(raw, _):
    volume, labels = phantom(1)
    write_labels(raw / "labelsTr" / "p1_a.nii.gz", labels * 3, volume)


def break_finite(raw, _):
    volume, _labels = phantom(1)
    data = volume.data.copy()
    data[3, 3, 3] = np.nan
    write_volume(raw / "imagesTr" / "p1_a_0000.nii.gz", Volume(data, AFFINE))


def break_truncated(raw, _):
    path = raw / "imagesTr" / "p1_a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


def break_duplicate(raw, _):
    shutil.copy(raw / "imagesTr" / "p0_a_0000.nii.gz", raw / "imagesTr" / "p1_a_0000.nii.gz")


def break_slice(raw, _):
    volume, labels = phantom(1)
    one = Volume(volume.data[9:10], AFFINE)
    write_volume(raw / "imagesTr" / "p1_a_0000.nii.gz", one)
    write_labels(raw / "labelsTr" / "p1_a.nii.gz", labels[9:10], one)


BREAKS = {
    "geometry": (break_geometry, "elsewhere"),
    "shape": (break_shape, "lattice"),
    "values": (break_values, r"\[3, 6\]"),
    "nan": (break_finite, "finite"),
    "truncated": (break_truncated, "p1_a_0000"),
    "duplicate": (break_duplicate, "same in p0_a and p1_a"),
    "one slice": (break_slice, "slices"),
    "no label file": (lambda raw, _: (raw / "labelsTr" / "p1_a.nii.gz").unlink(), "no .*p1_a"),
    "no image file": (
        lambda raw, _: (raw / "imagesTr" / "p1_a_0000.nii.gz").unlink(),
        "p1_a without",
    ),
    "empty": (
        lambda raw, _: [p.unlink() for f in ("imagesTr", "labelsTr") for p in (raw / f).iterdir()],
        "labelled case",
    ),
    "no dataset.json": (lambda raw, _: (raw / "dataset.json").unlink(), r"dataset\.json"),
    "no JSON": (lambda raw, _: (raw / "dataset.json").write_text("{"), "JSON"),
    "a list": (lambda raw, _: (raw / "dataset.json").write_text("[]"), "complete"),
    "no labels key": (lambda _, edit: edit(labels=None), "labels"),
    "no channels key": (lambda _, edit: edit(channel_names=None), "modality"),
    "gap in labels": (lambda _, edit: edit(labels={"background": 0, "a": 1, "b": 3}), "gaps"),
    "regions": (lambda _, edit: edit(labels={"background": 0, "all": [1, 2], "dim": 2}), "overlap"),
    "names as values": (
        lambda _, edit: edit(labels={"0": "background", "1": "bright", "2": "dim"}),
        "whole number for every label name.*'0': 'background'.*names first",
    ),
    "half a value": (lambda _, edit: edit(labels={"background": 0, "bright": 1.5}), "1.5"),
    "too few files": (
        lambda _, edit: edit(dataset={"p0_a": {"images": [], "label": "x"}}),
        "IndexError",
    ),
    "label nowhere": (
        lambda _, edit: edit(labels={"background": 0, "bright": 1, "dim": 2, "lost": 3}),
        "lost",
    ),
    "ignore in the middle": (
        lambda _, edit: edit(labels={"background": 0, "ignore": 1, "a": 2}),
        "gaps",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_dataset_is_one_line_and_leaves_nothing(
    workspace, raw, edit_description, caplog, name
):
    breaking, words = BREAKS[name]
    breaking(raw, edit_description)
    before = everything(workspace.folder)
    assert main(["task", "add", str(workspace.folder), str(raw)]) == 2
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert re.search(words, record.getMessage()), record.getMessage()
    assert everything(workspace.folder) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "DATASET"),
        (["--images", "x"], "DATASET"),
        (["RAW", "--images", "x", "--labels", "y"], "DATASET"),
        (["RAW", "--spacing", "1,1"], "spacing"),
        (["RAW", "--spacing", "1,1,x"], "spacing"),
        (["RAW", "--spacing", "1,1,0"], "spacing"),
        (["RAW", "--spacing", "1,1,nan"], "spacing"),
        (["RAW", "--patient", "("], "regular expression"),
        (["RAW", "--patient", "sub"], "fits"),
        (["RAW", "--patient", "^p([01])_|^p([234])_"], "nothing in p2_a.*first group"),
        (["RAW", "--patient", "(zzz)?"], "nothing in p0_a"),
        (["RAW", "--patient", "z*"], "nothing in p0_a"),
        (["RAW", "--name", "n" * 300], "at most 100 bytes, got 300"),
        (["RAW", "--name", "é" * 51], "at most 100 bytes, got 102"),
        (["RAW", "--name", "a/b"], "task name"),
        (["RAW", "--channel", "1"], "channel"),
        (["RAW", "--unlabelled", "nowhere"], "folder"),
        (["nowhere"], "dataset.json"),
        (["--images", "nowhere", "--labels", "nowhere"], "folder"),
        (
            ["--images", "RAW/imagesTr", "--labels", "RAW/labelsTr", "--label", "bright"],
            "VALUE=NAME",
        ),
        (["--images", "RAW/imagesTr", "--labels", "RAW/labelsTr", "--label", "1=b"], r"\[2\]"),
    ],
)
def test_wrong_arguments_are_one_line(workspace, raw, caplog, arguments, words):
    before = everything(workspace.folder)
    given = [text.replace("RAW", str(raw)) for text in arguments]
    assert main(["task", "add", str(workspace.folder), *given]) == 2
    (record,) = caplog.records
    assert re.search(words, record.getMessage()), record.getMessage()
    assert everything(workspace.folder) == before


def test_a_name_that_is_taken_is_refused(balls, raw):
    with pytest.raises(UserError, match="--name"):
        add_task(balls, read_source(raw), TaskOptions())


def test_cancelling_leaves_nothing(workspace, raw):
    before = everything(workspace.folder)
    with pytest.raises(CancelledError):
        add_task(workspace, read_source(raw), TaskOptions(), cancelled=lambda: True)
    assert everything(workspace.folder) == before


def test_a_full_disk_leaves_nothing(workspace, raw, monkeypatch):
    def full(source, target):
        del source, target
        raise OSError(28, "No space left on device")

    before = everything(workspace.folder)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="No space left"):
        add(workspace, raw)
    assert everything(workspace.folder) == before
    assert [path.name for path in (workspace.folder / "datasets").iterdir()] == []


def test_what_a_killed_copy_left_is_removed_by_the_next(workspace, raw):
    (workspace.folder / "datasets" / ".0a1b2c3d-new").mkdir()
    workspace = add(workspace, raw)
    assert [path.name for path in (workspace.folder / "datasets").iterdir()] == ["Dataset001_balls"]


def test_killed_before_it_is_registered_a_task_can_be_added_again(workspace, raw, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ka2er_training.dataset._register", lambda *_: sys.exit(9))
        with pytest.raises(SystemExit):
            add(workspace, raw)
    workspace = add(workspace, raw)
    assert workspace.record("balls").dataset == "Dataset002_balls"
    check_training_data(workspace, "balls")


def test_data_sets_in_the_workspace_are_read_and_never_removed(workspace, raw):
    datasets = workspace.folder / "datasets"
    own, mine = datasets / "Dataset001_Foo", datasets / "Dataset002_Mine"
    shutil.copytree(raw, own)
    shutil.copytree(write_raw(raw.parent / "other", n_cases=2, first=20), mine)
    before = everything(datasets)
    added = [
        add(workspace, own, name="foo").record("foo").dataset,
        add(workspace, raw, name="far").record("far").dataset,
    ]
    assert added == ["Dataset003_foo", "Dataset004_far"]
    assert before.items() <= everything(datasets).items()


def test_two_processes_do_not_add_tasks_at_once(workspace, raw):
    with workspace.lock("task-add"), pytest.raises(UserError, match="another process"):
        add(workspace, raw)


def tilted(number):
    """A phantom and its labels; of the later ones slices are shifted along Y, as a tilted CT's."""
    volume, labels = phantom(number)
    affine = AFFINE.copy()
    affine[1, 0] = 0.5 * (number > 1)
    return replace(volume, affine=affine), labels


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd"])
def test_nnunet_reads_every_case_of_a_task_with_some_sheared_ones(workspace, tmp_path, ending):
    registry = pytest.importorskip("nnunetv2.imageio.reader_writer_registry")
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(4):
        volume, labels = tilted(number)
        write_volume(tmp_path / "images" / f"p{number}{ending}", volume)
        write_labels(tmp_path / "labels" / f"p{number}{ending}", labels, volume)
    folders = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels")]
    assert main(["task", "add", str(workspace.folder), *folders, "--name", "tilted"]) == 0
    workspace = Workspace.open(workspace.folder)
    check_training_data(workspace, "tilted")
    description = json.loads((workspace.dataset_folder("tilted") / "dataset.json").read_text())
    cases = [*workspace.training_cases("tilted"), *workspace.holdout_cases("tilted")]
    choose = registry.determine_reader_writer_from_dataset_json
    reader = choose(description, str(cases[0].image), verbose=False)()
    for case in cases:
        volume, labels = tilted(int(case.id[1:]))
        data, properties = reader.read_images((str(case.image),))
        np.testing.assert_array_equal(data[0], volume.data)
        np.testing.assert_allclose(properties["spacing"], volume.spacing, rtol=1e-5)
        np.testing.assert_array_equal(reader.read_seg(str(case.label))[0][0], labels)
        np.testing.assert_allclose(read_volume(case.image).affine, volume.affine, atol=1e-5)


def test_without_sheared_cases_nnunet_chooses_the_reader_itself(balls):
    text = (balls.dataset_folder("balls") / "dataset.json").read_text("utf-8")
    assert "overwrite_image_reader_writer" not in json.loads(text)


def test_sheared_cases_in_micrometres_are_millimetres_to_nnunet(workspace, raw):
    nibabel_io = pytest.importorskip("nnunetv2.imageio.nibabel_reader_writer").NibabelIO
    for path in raw.glob("*/*.nii.gz"):
        image = nib.load(path)
        affine = image.affine @ np.diag([1000, 1000, 1000, 1])
        affine[0, 1] = 300
        made = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        made.header.set_xyzt_units("micron")
        made.to_filename(path)
    workspace = add(workspace, raw)
    case = workspace.training_cases("balls")[0]
    _, properties = nibabel_io().read_images((str(case.image),))
    np.testing.assert_allclose(properties["spacing"], workspace.record("balls").spacing_mm, 1e-3)


def test_a_file_put_into_the_training_folder_by_hand_is_refused(balls, tmp_path):
    shutil.copytree(balls.folder, tmp_path / "copy")
    workspace = Workspace.open(tmp_path / "copy")
    check_training_data(workspace, "balls")
    held = workspace.holdout_cases("balls")[0]
    shutil.copy(held.image, workspace.dataset_folder("balls") / "imagesTr")
    with pytest.raises(UserError, match=held.id):
        check_training_data(workspace, "balls")


def test_a_held_out_image_among_the_training_cases_is_refused(balls, tmp_path):
    shutil.copytree(balls.folder, tmp_path / "copy")
    workspace = Workspace.open(tmp_path / "copy")
    path = workspace.folder / "holdout.json"
    data = json.loads(path.read_text("utf-8"))
    digest = next(c["image"] for c in workspace.manifest("balls") if c["split"] == "training")
    data["tasks"]["other"] = {"cases": {"x": {"patient": "x", "image": digest, "label": ""}}}
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="hold-out"):
        check_training_data(workspace, "balls")


@pytest.mark.parametrize("named", [None, "", "Dataset012_Spleen"])
def test_a_task_is_called_like_its_data_set_without_the_number(
    workspace, raw, edit_description, named
):
    edit_description(name=named)
    folder = raw.rename(raw.with_name("Dataset012_Spleen"))
    assert list(add(workspace, folder).tasks) == ["Spleen"]
    assert list(add(workspace, folder, name="spleen").tasks) == ["Spleen", "spleen"]
