"""`ka2er predict` on what somebody names: tasks, data sets, workspaces, places to write to."""

import json
import shutil

import numpy as np
import pytest
from tests.model.folders import blob

from ka2er_training.cli import DONE, USER_ERROR, main
from napari_ka2er.core.io import write_volume
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.fingerprints import fingerprint, task_fingerprint


@pytest.fixture
def image(tmp_path):
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "blob.nii.gz", blob())
    return tmp_path / "in" / "blob.nii.gz"


@pytest.fixture
def run(student_folder, tmp_path, caplog):
    """Run a command without experts; return its exit status, and the lines that it logged."""

    def call(command, *args, student=student_folder):
        caplog.clear()
        caplog.set_level("INFO", "ka2er_training")
        options = ["--mode", "distilled"]
        if command != "order":
            options += ["--cache-dir", str(tmp_path / "cache")]
        return main([command, str(student), *map(str, args), *options]), caplog.messages

    return call


@pytest.fixture
def choosy(student_folder, tmp_path):
    """The student, of whose tasks the training volumes are known: all were like the blob."""
    folder = shutil.copytree(student_folder, tmp_path / "choosy")
    text = json.loads((folder / "student.json").read_text("utf-8"))
    for entry in text["config"]["tasks"]:
        entry["intensity"] = task_fingerprint([fingerprint(blob())])
    (folder / "student.json").write_text(json.dumps(text))
    return folder


def test_a_task_that_was_named_is_told_with_what_it_found(run, image, tmp_path, choosy, caplog):
    status, lines = run("predict", image, "-o", tmp_path / "out", "--task", "one", student=choosy)
    assert status == DONE
    (line,) = (line for line in lines if "->" in line)
    assert line.startswith("blob: one (named, found ")
    assert " ml) -> " in line
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_task_named_for_what_it_is_not_for_is_warned_of_once(
    run, tmp_path, choosy, caplog, capsys
):
    empty = Volume(np.zeros_like(blob().data), blob().affine)
    write_volume(tmp_path / "empty.nii.gz", empty)
    arguments = ("-o", tmp_path / "out", "--task", "one", "--json")
    status, _ = run("predict", tmp_path / "empty.nii.gz", *arguments, student=choosy)
    assert status == DONE
    (warning,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert "one was named, but all voxels are equal" in warning
    (result,) = json.loads(capsys.readouterr().out)
    assert result["why"].startswith("named, but all voxels are equal")


def test_a_data_sets_labels_are_no_images(run, image, tmp_path):
    folder = tmp_path / "data"
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
        name = "blob_0000.nii.gz" if part.startswith("images") else "blob.nii.gz"
        shutil.copyfile(image, folder / part / name)
    status, lines = run("predict", folder, "-o", tmp_path / "out", "--task", "one")
    assert status == DONE
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"images{end}_blob_0000_one.nii.gz" for end in ("Tr", "Ts")}
    told = [line for line in lines if line.endswith("left out, as it holds label maps")]
    assert [line.split(":")[0] for line in told] == [
        str(folder / "labelsTr"),
        str(folder / "labelsTs"),
    ]
    named = (folder / "labelsTr", folder / "labelsTs" / "blob.nii.gz")
    for number, path in enumerate(named):
        arguments = ("-o", tmp_path / str(number), "--task", "one")
        assert run("predict", path, *arguments)[0] == DONE


def test_a_workspace_stands_for_its_current_student(run, image, tmp_path, student_folder, capsys):
    workspace = tmp_path / "work"
    shutil.copytree(student_folder, workspace / "students" / "v0007")
    (workspace / "students" / "current").write_text("v0007\n")
    task, out = ("--task", "one"), ("-o", tmp_path / "out.nii.gz")
    assert run("predict", image, *out, *task, student=workspace)[0] == DONE
    click = ("--point", "15,25,14")
    assert run("prompt", image, *out, *task, *click, student=workspace)[0] == DONE
    assert run("order", image, *task, student=workspace)[0] == DONE
    assert main(["info", str(workspace), "--json"]) == DONE
    text = capsys.readouterr().out
    told = json.loads(text[text.index("{") :])
    assert told["student"] == str(workspace / "students" / "v0007")
    (workspace / "students" / "current").unlink()
    status, (line,) = run("order", image, *task, student=workspace)
    assert status == USER_ERROR
    assert "a workspace with a current student" in line


def test_a_name_of_another_kind_of_file_is_no_folder(run, image, tmp_path):
    for name in ("o.png", "o.JPG", "o.json", "o.txt", "o.csv"):
        status, (line,) = run("predict", image, "-o", tmp_path / name, "--task", "one")
        assert status == USER_ERROR
        assert name in line
        assert not (tmp_path / name).exists()


def test_volumes_may_stand_behind_options(run, image, tmp_path):
    other = image.with_name("other.nii.gz")
    shutil.copyfile(image, other)
    assert run("predict", image, "-o", tmp_path / "out", other, "--task", "one")[0] == DONE
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"blob_one.nii.gz", "other_one.nii.gz"}
