"""`ka2er replay` and `ka2er package` as a user calls them."""

import json

import nibabel as nib
import numpy as np
import pytest

from ka2er_training.cli import DONE, USER_ERROR, main
from napari_ka2er.core.correction import correction_of, export_package
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.sessions import create_session
from napari_ka2er.core.task import Label, Task

TASK = Task("organs", (Label(1, "liver"), Label(2, "spleen")))


@pytest.fixture
def scan(tmp_path):
    affine = np.array([[-2.0, 0.1, 0, 10], [0.3, 1, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
    data = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.fixture
def session(tmp_path, scan):
    session = create_session(tmp_path / "session", read_volume(scan), TASK, source=scan)
    session.write((slice(1, 3), slice(1, 3), slice(1, 3)), np.full((2, 2, 2), 2), "brush")
    session.write((slice(1, 3), slice(1, 3), slice(1, 2)), np.full((2, 2, 1), 1), "brush")
    session.undo()
    session.review_slice(0, 1)
    yield session
    session.close()


def test_replay_writes_the_mask_in_the_image_s_geometry(session, scan, tmp_path, capsys):
    out = tmp_path / "mask.nii.gz"
    assert main(["replay", str(tmp_path / "session"), "-o", str(out), "--json"]) == DONE
    np.testing.assert_array_equal(read_labels(out)[0], session.mask)
    for name in ("srow_x", "srow_y", "srow_z", "pixdim", "quatern_b"):
        np.testing.assert_array_equal(nib.load(out).header[name], nib.load(scan).header[name])
    told = json.loads(capsys.readouterr().out)
    assert (told["n_actions"], told["n_steps"]) == (4, 1)
    voxel_mm3 = abs(np.linalg.det(nib.load(scan).affine[:3, :3]))
    assert told["volumes_ml"]["spleen"] == pytest.approx(8 * voxel_mm3 / 1000)


def test_replay_works_after_the_image_is_gone(session, scan, tmp_path):
    geometry = session.volume.geometry
    scan.unlink()
    out = tmp_path / "mask.nrrd"
    assert main(["replay", str(tmp_path / "session"), "-o", str(out)]) == DONE
    labels, where = read_labels(out)
    np.testing.assert_array_equal(labels, session.mask)
    assert where.is_close(geometry)


def test_replay_refuses_an_image_from_elsewhere(session, tmp_path, caplog):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "other.nii")
    call = ["replay", str(tmp_path / "session"), "-o", str(tmp_path / "m.nii"), "--like"]
    assert main([*call, str(tmp_path / "other.nii")]) == USER_ERROR
    assert "other.nii" in caplog.text
    assert not (tmp_path / "m.nii").exists()


def test_replay_of_no_session_is_the_user_s_error(tmp_path, caplog):
    assert main(["replay", str(tmp_path), "-o", str(tmp_path / "m.nii")]) == USER_ERROR
    assert "session.json" in caplog.text


def test_package_check_and_show(session, tmp_path, capsys, caplog):
    package = export_package(tmp_path / "package", [correction_of(session, "R. Reader")])
    assert main(["package", "check", str(package), "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["problems"] == []
    assert main(["package", "show", str(package), "--json"]) == DONE
    shown = json.loads(capsys.readouterr().out)
    assert (shown["n_cases"], shown["labels"], shown["ignore"]) == (1, ["liver", "spleen"], 3)
    assert shown["cases"][0]["changed_voxels"]["spleen"] == {"gained": 8, "lost": 0}

    (package / "dataset.json").write_text("{}")
    (package / "strange.txt").write_text("hello")
    caplog.clear()
    assert main(["package", "check", str(package)]) == USER_ERROR
    assert "dataset.json was changed" in caplog.text
    assert "strange.txt is not in the manifest" in caplog.text

    assert main(["package", "check", str(package), "--json"]) == USER_ERROR
    found = json.loads(capsys.readouterr().out)
    assert found["package"] == str(package)
    assert "strange.txt is not in the manifest" in "; ".join(found["problems"])
