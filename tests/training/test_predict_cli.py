import json
import pickle
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.model.folders import blob

from ka2er_training.cli import main
from ka2er_training.inputs import list_inputs, stem_of
from napari_ka2er.core.io import read_labels, read_volume, write_volume
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.fingerprints import fingerprint, task_fingerprint
from napari_ka2er.model.predictor import Predictor


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "in" / "blob.nii.gz"
    path.parent.mkdir()
    write_volume(path, blob())
    return path


@pytest.fixture
def run(student_folder, cache, capsys, caplog):
    """Run a command on the student; return exit status, its JSON and the lines it logged."""

    def call(command, *args, student=student_folder):
        caplog.clear()
        words = [command, str(student), "--cache-dir", str(cache), "--json", *map(str, args)]
        status = main(words)
        text = capsys.readouterr().out
        errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        return status, json.loads(text) if text else None, errors

    return call


def test_a_label_map_is_written_in_the_images_geometry(run, image, tmp_path):
    status, (result,), _ = run("predict", image, "-o", tmp_path / "out", "--task", "one")
    assert status == 0
    labels, geometry = read_labels(tmp_path / "out" / "blob_one.nii.gz")
    assert result["labels"] == str(tmp_path / "out" / "blob_one.nii.gz")
    assert geometry.is_close(read_volume(image).geometry)
    sizes = {name: ml for name, ml in result["volumes_ml"].items() if ml}
    voxel_ml = abs(np.linalg.det(geometry.affine[:3, :3])) / 1000
    for value, name in ((1, "a"), (2, "b")):
        assert sizes.get(name, 0) == pytest.approx((labels == value).sum() * voxel_ml, abs=0.01)


def test_a_folder_is_segmented_file_by_file_in_its_own_formats(run, image, tmp_path):
    write_volume(image.parent / "other.mha", blob())
    (image.parent / "notes.txt").write_text("no image")
    arguments = ("--task", "one", "--task", "two", "--mode", "distilled")
    status, results, _ = run("predict", image.parent, "-o", tmp_path / "out", *arguments)
    assert status == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"blob_one.nii.gz", "blob_two.nii.gz", "other_one.mha", "other_two.mha"}
    assert len(results) == 4
    a, b = (read_labels(tmp_path / "out" / n)[0] for n in ("blob_one.nii.gz", "other_one.mha"))
    np.testing.assert_array_equal(a, b)


def test_one_file_can_be_named(run, image, tmp_path):
    out = tmp_path / "mine.nrrd"
    assert run("predict", image, "-o", out, "--task", "two", "--mode", "distilled")[0] == 0
    assert read_labels(out)[0].shape == blob().shape
    status, _, (line,) = run("predict", image, "-o", out, "--task", "one", "--task", "two")
    assert status == 2
    assert "folder" in line


def test_uncertainty_and_expert_map_have_the_images_geometry(run, image, tmp_path):
    extras = ("--save-uncertainty", "--save-expert-map")
    status, (result,), _ = run("predict", image, "-o", tmp_path, "--task", "two", *extras)
    assert status == 0
    unsure = read_volume(tmp_path / "blob_two_uncertainty.nii.gz")
    trusted = read_volume(tmp_path / "blob_two_experts.nii.gz")
    assert result["uncertainty"].endswith("blob_two_uncertainty.nii.gz")
    for written in (unsure, trusted):
        assert written.geometry.is_close(read_volume(image).geometry)
    assert 0 <= unsure.data.min() <= unsure.data.max() <= 1
    assert trusted.n_channels == 3
    np.testing.assert_allclose(trusted.channels.sum(axis=0), 1, atol=5e-3)


def test_when_no_task_fits_the_line_says_why(run, image, student_folder, tmp_path):
    """The student's tasks are said to be for CT; the image is not in Hounsfield units."""
    folder = shutil.copytree(student_folder, tmp_path / "ct")
    text = json.loads((folder / "student.json").read_text("utf-8"))
    ct = np.random.default_rng(0).choice([-1000.0, -800.0, 40.0, 600.0], blob().shape)
    known = task_fingerprint([fingerprint(Volume(ct, blob().affine))])
    for entry in text["config"]["tasks"]:
        entry["intensity"] = known
    (folder / "student.json").write_text(json.dumps(text))
    arguments = ("-o", tmp_path / "out", "--mode", "distilled")
    status, _, (line,) = run("predict", image, *arguments, student=folder)
    assert status == 2
    for words in ("one: other intensities", "two: other intensities", "Hounsfield", "--task"):
        assert words in line
    assert not (tmp_path / "out").exists()


def test_a_clicked_object_is_written(run, image, tmp_path):
    out = tmp_path / "object.nii.gz"
    points = ("--point", "15,25,14", "--point", "2,2,2,-")
    status, result, _ = run("prompt", image, "-o", out, "--task", "one", "--label", "b", *points)
    assert status == 0
    labels, _ = read_labels(out)
    assert labels[15, 25, 14] == 2
    assert labels[2, 2, 2] == 0
    assert result["voxels"] == (labels == 2).sum() > 0
    assert len(result["click_seconds"]) == 2
    anything = tmp_path / "any.nii.gz"
    assert run("prompt", image, "-o", anything, "--task", "one", *points)[0] == 0
    boxed = ("--box", "5,10,4:25,35,20", "--point", "2,2,2,-")
    status, result, _ = run("prompt", image, "-o", anything, "--task", "one", *boxed)
    assert status == 0
    assert len(result["click_seconds"]) == 2
    assert read_labels(anything)[0][15, 22, 12]
    assert not read_labels(anything)[0][:5].any()
    assert set(np.unique(read_labels(anything)[0])) == {0, 1}


def broken(name):
    """Return a function that makes a broken volume under a folder and gives its path."""

    def nan(folder):
        data = np.array(blob().data)
        data[3, 3, 3] = np.nan
        write_volume(folder / "nan.nrrd", Volume(data, blob().affine))
        return folder / "nan.nrrd"

    def truncated(folder):
        write_volume(folder / "cut.nii.gz", blob())
        content = (folder / "cut.nii.gz").read_bytes()
        (folder / "cut.nii.gz").write_bytes(content[: len(content) // 2])
        return folder / "cut.nii.gz"

    def two_channels(folder):
        data = np.stack([blob().data] * 2)
        write_volume(folder / "two.nii.gz", Volume(data, blob().affine, ("a", "b")))
        return folder / "two.nii.gz"

    def empty(folder):
        (folder / "empty").mkdir()
        return folder / "empty"

    def text(folder):
        (folder / "text.nii").write_text("no image")
        return folder / "text.nii"

    makers = {f.__name__: f for f in (nan, truncated, two_channels, empty, text)}
    return makers[name] if name in makers else lambda folder: folder / "absent.nii.gz"


@pytest.mark.parametrize("kind", ["nan", "truncated", "two_channels", "empty", "text", "absent"])
@pytest.mark.parametrize("command", ["predict", "prompt"])
def test_a_broken_volume_ends_in_one_line_and_leaves_nothing(run, tmp_path, kind, command):
    (tmp_path / "in").mkdir()
    path = broken(kind)(tmp_path / "in")
    out = tmp_path / "out" / "result.nii.gz"
    points = ("--point", "1,1,1") if command == "prompt" else ()
    status, _, lines = run(command, path, "-o", out, "--task", "one", *points)
    assert status == 2
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("predict", ("--task", "three"), "one, two"),
        ("predict", ("--task", "one", "--device", "gpu"), "auto, cpu"),
        ("predict", ("--task", "one", "--device", "cuda:7"), "CUDA devices"),
        ("prompt", ("--task", "one"), "--point"),
        ("prompt", ("--task", "one", "--point", "1,2"), "z,y,x"),
        ("prompt", ("--task", "one", "--point", "1,2,3,?"), "z,y,x"),
        ("prompt", ("--task", "one", "--point", "1,2,300"), "outside"),
        ("prompt", ("--task", "one", "--point", "nan,2,3"), "z,y,x"),
        ("prompt", ("--task", "one", "--box", "1,2,3"), "z,y,x:z,y,x"),
        ("prompt", ("--task", "one", "--box", "1,2,3:1,2,x"), "z,y,x:z,y,x"),
        ("prompt", ("--task", "one", "--box", "1,2,300:4,5,600"), "outside"),
        ("prompt", ("--task", "one", "--label", "z", "--point", "1,2,3"), "1 a, 2 b"),
        ("prompt", ("--task", "nine", "--point", "1,2,3"), "one, two"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, image, tmp_path, command, arguments, message):
    out = tmp_path / "out" / "result.nii.gz"
    status, _, (line,) = run(command, image, "-o", out, *arguments)
    assert status == 2
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_student_that_is_none_ends_in_one_line(run, image, tmp_path):
    (tmp_path / "s").mkdir()
    with (tmp_path / "s" / "student.json").open("wb") as file:
        pickle.dump({}, file)
    for student in (tmp_path / "s", tmp_path / "absent", image):
        status, _, lines = run("predict", image, "-o", tmp_path / "out", student=student)
        assert status == 2
        assert len(lines) == 1


def test_info_tells_what_a_path_is(student_folder, image, capsys):
    assert main(["info", str(student_folder), "--json"]) == 0
    text = capsys.readouterr().out
    assert main(["info", str(image), "--json"]) == 0
    volume = json.loads(capsys.readouterr().out)
    assert volume["shape"] == [30, 50, 28]
    assert volume["digest"] == read_volume(image).digest()
    student = json.loads(text[text.index("{") :])
    assert student["tasks"]["one"]["labels"] == {"1": "a", "2": "b"}
    assert student["experts"]["two"]["present"]
    assert len(student["files"]) == 3
    assert main(["info", str(image.with_name("nothing"))]) == 2


def test_the_cache_is_listed_and_emptied(run, image, tmp_path, capsys):
    own = ["--cache-dir", str(tmp_path / "cache")]
    run("predict", image, "-o", tmp_path, "--task", "two", "--mode", "distilled", *own)
    capsys.readouterr()
    assert main(["cache", "ls", "--json", *own]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["mode"] == "distilled"
    assert entry["filled"] == "1/1"
    assert main(["cache", "rm", *own]) == 2
    assert main(["cache", "rm", "unknown", *own]) == 2
    assert main(["cache", "rm", entry["key"][:8], *own]) == 0
    assert main(["cache", "ls", "--json", *own]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == []


def test_one_broken_volume_of_several_does_not_stop_the_others(run, image, tmp_path):
    (image.parent / "a.nii").write_text("no image")
    out = tmp_path / "out"
    status, told, (line,) = run(
        "predict", image.parent, "-o", out, "--task", "two", "--mode", "distilled"
    )
    assert status == 2
    assert "2 volumes" in line
    assert [result["input"] for result in told["results"]] == [str(image)]
    (refused,) = told["refused"]
    assert refused["input"] == str(image.parent / "a.nii")
    assert "a.nii" in refused["error"]
    assert [path.name for path in out.iterdir()] == ["blob_two.nii.gz"]


def test_inputs_with_equal_names_are_refused_before_any_work(run, image, tmp_path):
    write_volume(image.parent / "blob.mha", blob())
    status, _, (line,) = run("predict", image.parent, "-o", tmp_path / "o", "--task", "one")
    assert status == 2
    assert "different names" in line


def test_the_search_for_tasks_that_fit_counts_as_work(run, image, tmp_path, monkeypatch):
    ranked = Predictor.rank_tasks

    def slowly(self, **given):
        time.sleep(0.5)
        return [replace(fit, taken=True) for fit in ranked(self, **given)]

    monkeypatch.setattr(Predictor, "rank_tasks", slowly)
    own = ("--mode", "distilled", "--cache-dir", tmp_path / "cache")
    status, (first, *others), _ = run("predict", image, "-o", tmp_path / "a", *own)
    assert status == 0
    assert first["seconds"] > 0.5
    assert first["windows"] >= 1
    assert not any(other["windows"] for other in others)
    _, (again, *_), _ = run("predict", image, "-o", tmp_path / "b", *own)
    assert again["windows"] == 0  # all from the cache


def test_names_lose_the_suffix_of_their_format(tmp_path):
    for name in ("a.b.nii.gz", "a.b.nii", "a.b.ome.tif", "a.b.mha", "a.b.ome.zarr", "a.b"):
        assert stem_of(tmp_path / name) == "a.b"


def test_inputs_are_sorted_and_taken_once(image):
    write_volume(image.parent / "a.nrrd", blob())
    assert list_inputs([image.parent, image]) == [image.parent / "a.nrrd", image]
