"""What `predict` and `prompt` read and where they write, checked before they segment."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from pydicom.uid import generate_uid
from tests.core.io.conftest import ct_slice
from tests.model.folders import blob

from ka2er_training.cli import main
from ka2er_training.inputs import (
    beside,
    case_names,
    list_inputs,
    overwritten,
    target_of,
    without_results,
)
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume, write_labels, write_volume
from napari_ka2er.model.predictor import Predictor


@pytest.fixture
def write_series(tmp_path):
    """A function that writes the blob as a CT series of .dcm files."""

    def write(name):
        folder, data, uid = tmp_path / name, blob().data.astype("<i2"), generate_uid()
        folder.mkdir(parents=True)
        for number, plane in enumerate(data):
            dataset = ct_slice(number, uid)
            dataset.Rows, dataset.Columns = plane.shape
            dataset.PixelData = plane.tobytes()
            dataset.save_as(folder / f"slice{number:03d}.dcm", enforce_file_format=True)
        return folder

    return write


@pytest.fixture
def pyramid(tmp_path):
    """The blob as an OME-Zarr, with a second level of half the size."""
    path = tmp_path / "blob.ome.zarr"
    write_volume(path, blob())
    group = zarr.open_group(path)
    group.create_array("1", data=np.ascontiguousarray(blob().data[::2, ::2, ::2]))
    ome = group.attrs["ome"]
    scale, shift = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    half = {"type": "scale", "scale": [2 * s for s in scale["scale"]]}
    level = {"path": "1", "coordinateTransformations": [half, shift]}
    ome["multiscales"][0]["datasets"].append(level)
    group.attrs["ome"] = ome
    return path


@pytest.fixture
def image(tmp_path):
    write_volume(tmp_path / "blob.nii.gz", blob())
    return tmp_path / "blob.nii.gz"


@pytest.fixture
def run(student_folder, tmp_path, capsys, caplog):
    """Run a command on the student; return exit status, its JSON and the errors it logged."""

    def call(command, *args):
        caplog.clear()
        words = [command, student_folder, "--cache-dir", tmp_path / "cache", "--json", *args]
        status = main([*map(str, words)])
        text = capsys.readouterr().out
        errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        return status, json.loads(text) if text else None, errors

    return call


@pytest.fixture
def no_work(monkeypatch):
    """Nothing is segmented."""

    def refuse(*_, **__):
        raise AssertionError("segmented before the arguments were checked")

    monkeypatch.setattr(Predictor, "set_volume", refuse)


def test_a_dicom_folder_is_segmented_once_and_named_after_the_folder(run, write_series, tmp_path):
    folder = write_series("ct")
    assert list_inputs([folder]) == [folder]
    out = tmp_path / "out"
    status, results, _ = run("predict", folder, "-o", out, "--task", "one", "--mode", "distilled")
    assert status == 0
    assert [result["input"] for result in results] == [str(folder)]
    assert [path.name for path in out.iterdir()] == ["ct_one.nii.gz"]
    assert read_labels(out / "ct_one.nii.gz")[1].is_close(read_volume(folder).geometry)


def test_series_in_a_folder_are_taken_once_each(write_series, tmp_path):
    a, b = write_series("study/a"), write_series("study/b")
    assert list_inputs([tmp_path / "study"]) == [a, b]
    write_volume(tmp_path / "study" / "c.nii.gz", blob())
    assert list_inputs([tmp_path / "study"]) == [a, b, tmp_path / "study" / "c.nii.gz"]
    assert list_inputs(sorted(a.iterdir())) == [a / "slice000.dcm"]
    assert list_inputs([a, *sorted(a.iterdir()), b]) == [a, b]


@pytest.mark.parametrize("name", ["out", "a.nii.gz"])
def test_the_label_map_has_the_voxels_of_the_chosen_level(run, pyramid, tmp_path, name):
    arguments = ("--task", "one", "--mode", "distilled", "--level", "1")
    status, (result,), _ = run("predict", pyramid, "-o", tmp_path / name, *arguments)
    assert status == 0
    labels, geometry = read_labels(result["labels"])
    expected = read_volume(pyramid, level=1)
    assert labels.shape == expected.shape != read_volume(pyramid).shape
    np.testing.assert_allclose(geometry.affine, expected.affine, atol=1e-6)


def test_a_click_is_in_voxels_of_the_chosen_level(run, pyramid, tmp_path):
    arguments = ("--task", "one", "--point", "2,2,2", "--level", "1")
    assert run("prompt", pyramid, "-o", tmp_path / "a.mha", *arguments)[0] == 0
    assert read_labels(tmp_path / "a.mha")[0].shape == read_volume(pyramid, level=1).shape


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", ["predict", "prompt"])
@pytest.mark.parametrize(
    ("level", "words"), [("2", "a level from 0 to 1"), ("-1", "a level from 0 to 1")]
)
def test_a_level_that_is_not_there_is_one_line(run, pyramid, tmp_path, command, level, words):
    arguments = ["--task", "one", "--level", level, "-o", tmp_path / "a.mha"]
    arguments += ["--point", "1,1,1"] if command == "prompt" else []
    status, _, (line,) = run(command, pyramid, *arguments)
    assert status == 2
    assert words in line


@pytest.mark.usefixtures("no_work")
def test_other_formats_have_no_levels(run, image, tmp_path):
    status, _, (line,) = run("predict", image, "-o", tmp_path, "--task", "one", "--level", "1")
    assert status == 2
    assert "level 0, the only one" in line


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("command", "out", "words"),
    [
        ("predict", "file", "which is a file"),
        ("predict", "file/below", "which is a file"),
        ("predict", "file/below/a.nii.gz", "which is a file"),
        ("predict", "/proc/x", "wanted to write in /proc/x"),
        ("predict", "folder.nii.gz", "a folder with something else"),
        ("prompt", "file/a.nii.gz", "which is a file"),
        ("prompt", "/proc/x/a.nii.gz", "wanted to write in /proc/x"),
        ("prompt", "a.txt", "a file name that ends with"),
        ("predict", "a.nhdr", "a file name that ends with"),
        ("predict", "a.mgz", "a file name that ends with"),
    ],
)
def test_what_cannot_be_written_is_one_line_before_any_work(
    run, image, tmp_path, command, out, words
):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder.nii.gz").mkdir()
    before = sorted(tmp_path.rglob("*"))
    points = ("--point", "1,1,1") if command == "prompt" else ()
    status, _, (line,) = run(command, image, "-o", tmp_path / out, "--task", "one", *points)
    assert status == 2
    assert words in line
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("command", "source", "out"),
    [
        ("predict", "blob.nii.gz", "blob.nii.gz"),
        ("predict", "blob.nii.gz", "x/../blob.nii.gz"),
        ("predict", "blob.nii.gz", "link/blob.nii.gz"),
        ("predict", "blob.nii.gz", "other.nii.gz"),
        ("predict", "ct", "ct/mask.nii.gz"),
        ("predict", "ct", "ct/deep"),
        ("predict", "blob.ome.zarr", "blob.ome.zarr"),
        ("predict", "blob.ome.zarr", "blob.ome.zarr/labels/a.zarr"),
        ("prompt", "blob.nii.gz", "blob.nii.gz"),
        ("prompt", "ct", "ct/mask.nii.gz"),
    ],
)
def test_an_input_is_never_overwritten(
    run, image, pyramid, write_series, tmp_path, command, source, out
):
    write_series("ct")
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other.nii.gz").symlink_to(image)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    points = ("--point", "1,1,1") if command == "prompt" else ()
    arguments = ("-o", tmp_path / out, "--task", "one", *points)
    status, _, (line,) = run(command, tmp_path / source, *arguments)
    assert status == 2
    assert f"where the input {tmp_path / source} lies" in line
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert {p: after[p] for p in after if "cache" not in p.parts} == before


def test_a_folder_around_an_input_is_never_overwritten(tmp_path):
    plate, image = tmp_path / "plate.zarr", tmp_path / "plate.zarr" / "well" / "0"
    assert list(overwritten([plate], [image])) == [(plate, image)]
    assert list(overwritten([tmp_path / "a.zarr"], [image])) == []


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("blob_one.nii.gz", ()),
        ("blob_one_uncertainty.nii.gz", ("--save-uncertainty",)),
        ("blob_one_experts.nii.gz", ("--save-expert-map",)),
    ],
)
def test_an_image_of_the_folder_that_is_named_like_a_result_is_kept(run, tmp_path, name, extra):
    (tmp_path / "in").mkdir()
    for one in ("blob.nii.gz", name):
        write_volume(tmp_path / "in" / one, blob())
    folder = tmp_path / "in"
    status, _, (line,) = run("predict", folder, "-o", folder, "--task", "one", *extra)
    assert status == 2
    assert f"where the input {folder / name} lies" in line


def test_results_beside_the_images_are_not_segmented_by_the_next_run(run, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "in"
    folder.mkdir()
    write_volume(folder / "blob.nii.gz", blob())
    given = ("predict", folder, "-o", folder, "--mode", "distilled", "--task")
    for tasks in (("one",), ("one",), ("two",), ("two", "--task", "two")):
        status, results, _ = run(*given, *tasks)
        assert (status, len(results)) == (0, 1)
        assert results[0]["input"] == str(folder / "blob.nii.gz")
    assert f"{folder / 'blob_one.nii.gz'}: left out, as it is a label map" in caplog.messages
    written = {path.name for path in folder.iterdir()}
    assert written == {"blob.nii.gz", "blob_one.nii.gz", "blob_two.nii.gz"}
    (folder / "blob.nii.gz").unlink()
    status, _, (line,) = run(*given, "one")
    assert status == 2
    assert "only label maps" in line
    named = run("predict", folder / "blob_one.nii.gz", "-o", tmp_path / "o", "--task", "one")
    assert named[0] == 0


def planned(folder, task, inputs=None):
    """The volumes that a run into the inputs' own folder segments, and where it writes."""
    inputs = inputs or [folder]
    names = case_names(list_inputs(inputs, folder))
    targets = [target_of(folder, path, name, task) for path, name in names.items()]
    kept = without_results(names, inputs, targets)
    return [(path, target_of(folder, path, name, task)) for path, name in kept.items()]


@pytest.mark.parametrize("suffix", [".nii.gz", ".zarr", ".ome.zarr", ".nrrd"])
def test_a_second_run_into_the_inputs_folder_is_as_the_first(tmp_path, suffix):
    volume = blob()
    scans = [tmp_path / name / f"ct_1{suffix}" for name in ("p1", "p2")]
    scans.append(tmp_path / f"ct_1_late{suffix}")  # named like a result of the others
    for scan in scans:
        scan.parent.mkdir(exist_ok=True)
        write_volume(scan, volume)
    first = planned(tmp_path, "some_task")
    assert {path for path, _ in first} == set(scans)
    for _, target in first:
        write_labels(target, np.ones(volume.shape, np.uint8), volume)
        for what in ("uncertainty", "experts"):
            write_volume(beside(target, what), volume)
    assert planned(tmp_path, "some_task") == first
    assert [path for path, _ in planned(tmp_path, "other")] == [path for path, _ in first]


def test_a_result_that_is_named_by_itself_is_a_volume(tmp_path):
    volume = blob()
    write_volume(tmp_path / "a.nii.gz", volume)
    write_labels(tmp_path / "a_one.nii.gz", np.ones(volume.shape, np.uint8), volume)
    with pytest.raises(UserError, match="over them"):
        planned(tmp_path, "one", [tmp_path, tmp_path / "a_one.nii.gz"])
    both = planned(tmp_path, "two", [tmp_path, tmp_path / "a_one.nii.gz"])
    assert [path.name for path, _ in both] == ["a.nii.gz", "a_one.nii.gz"]


def test_nothing_is_written_into_an_earlier_result(tmp_path):
    volume = blob()
    write_volume(tmp_path / "a.zarr", volume)
    write_labels(tmp_path / "a_one.zarr", np.ones(volume.shape, np.uint8), volume)
    names = case_names(list_inputs([tmp_path]))
    with pytest.raises(UserError, match=r"a_one\.zarr lies"):
        without_results(names, [tmp_path], [tmp_path / "a_one.zarr" / "a_one.zarr"])


def test_folders_of_patients_are_opened_and_told_apart(write_series, tmp_path):
    folder = tmp_path / "scans"
    series = [write_series("scans/p1/ct"), write_series("scans/p2/ct"), write_series("scans/p3/mr")]
    for place in (".hidden", "p1/ct/below", "p3/nifti", "a/b/c/d", "a/b/c/d/e", "out"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        write_volume(folder / place / f"{place[-1]}.nii.gz", blob())
    (folder / "p3" / "back").symlink_to(folder)
    found = list_inputs([folder], folder / "out")
    nested = [folder / "a/b/c/d/d.nii.gz", folder / "p3/nifti/i.nii.gz"]
    assert sorted(found) == sorted([*series, *nested])
    assert set(case_names(found).values()) == {"p1_ct", "p2_ct", "mr", "d", "i"}
    assert list(case_names(series[:2]).values()) == ["p1_ct", "p2_ct"]
    assert list(case_names(series[::2]).values()) == ["ct", "mr"]


def test_a_click_is_told_in_one_line(run, image, tmp_path, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "a.nii.gz"
    arguments = ("-o", out, "--task", "one", "--label", "b", "--point", "15,25,14")
    status, result, _ = run("prompt", image, *arguments)
    labels, geometry = read_labels(out)
    size_ml = (labels == 2).sum() * abs(np.linalg.det(geometry.affine[:3, :3])) / 1000
    assert status == 0
    assert result["volume_ml"] == pytest.approx(size_ml, abs=1e-3)
    assert f"{out}: b, {(labels == 2).sum()} voxels, {size_ml:.2f} ml" in caplog.messages


@pytest.mark.usefixtures("no_work")
def test_points_out_of_an_object_do_not_say_where_it_is(run, image, tmp_path):
    arguments = ("-o", tmp_path / "a.mha", "--task", "one", "--point", "1,1,1,-")
    status, _, (line,) = run("prompt", image, *arguments)
    assert status == 2
    assert "at least one --point in the object" in line
