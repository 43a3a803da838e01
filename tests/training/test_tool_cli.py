"""`ka2er tool` as a user calls it."""

import json

import nibabel as nib
import numpy as np
import pytest

from ka2er_training.cli import DONE, USER_ERROR, build_parser, main, parse
from ka2er_training.commands.tool import NAMES
from napari_ka2er.core.io import read_labels
from napari_ka2er.core.tools import TOOLS, tool_from_json

AFFINE = np.array([[-0.5, 0.05, 0, 10], [0.03, 1, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1.0]])


@pytest.fixture
def mask(tmp_path):
    """Two islands and a hole, 31 x 20 x 9 voxels (X, Y, Z) of about 0.5 x 1 x 3 mm."""
    labels = np.zeros((9, 20, 31), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    labels[4:8, 8:15, 8:20] = 1
    labels[5:7, 10:12, 12:14] = 0
    nib.save(nib.Nifti1Image(labels.transpose(), AFFINE), tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


def test_the_command_knows_every_tool():
    assert set(NAMES) == set(TOOLS)


@pytest.mark.parametrize(
    ("arguments", "n_voxels"),
    [
        (["keep-largest"], 4 * 7 * 12 - 8),
        (["remove-small", "--ml", "0.1"], 4 * 7 * 12 - 8),
        (["fill-holes"], 4 * 7 * 12 + 8),
        (["merge", "--label", "3", "--other", "1"], 4 * 7 * 12),
        (["copy-slice", "--source", "1", "--target", "0"], 4 * 7 * 12 + 4),
    ],
)
def test_a_tool_changes_a_file_as_it_changes_a_session(mask, tmp_path, capsys, arguments, n_voxels):
    out = tmp_path / "out.nii.gz"
    name, *options = arguments
    assert main(["tool", name, str(mask), "-o", str(out), *options, "--json"]) == DONE
    before, after = read_labels(mask)[0], read_labels(out)[0]
    assert np.count_nonzero(after) == n_voxels
    told = json.loads(capsys.readouterr().out)
    assert told["n_changed"] == np.count_nonzero(after != before)
    assert told["tool"]["tool"] == name
    for field in ("srow_x", "srow_y", "srow_z", "pixdim", "quatern_b"):
        np.testing.assert_array_equal(nib.load(out).header[field], nib.load(mask).header[field])


def test_growing_within_intensities_wants_an_image_in_the_same_place(mask, tmp_path):
    out, image = tmp_path / "out.nii.gz", tmp_path / "image.nii.gz"
    arguments = ["tool", "grow", str(mask), "-o", str(out), "--mm", "2", "--intensity", "5", "9"]
    assert main(arguments) == USER_ERROR
    data = np.zeros((31, 20, 9), np.int16)
    data[20:] = 7
    nib.save(nib.Nifti1Image(data, np.eye(4)), image)
    assert main([*arguments, "--image", str(image)]) == USER_ERROR
    assert not out.exists()
    nib.save(nib.Nifti1Image(data, AFFINE), image)
    assert main([*arguments, "--image", str(image)]) == DONE
    gained = (read_labels(out)[0] != 0) & (read_labels(mask)[0] == 0)
    assert gained.any()
    assert np.flatnonzero(gained.any(axis=(0, 1))).tolist() == [20, 21, 22]  # 2 mm are 3.99 voxels


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("explode", "wanted a tool"),
        ("smooth --mm 0", "more than 0 mm"),
        ("smooth --ml 1", "parameters of smooth"),
        ("split", "wanted --into for split"),
        ("split --into 1", "label 1 twice"),
        ("split --into 2 --keep 1,2,3", "give both"),
        ("merge", "wanted --other for merge"),
        ("copy-slice", "wanted --source and --target for copy-slice"),
        ("copy-slice --source 1", "wanted --target for copy-slice"),
        ("grow --intensity 50 10", "50 to 10"),
        ("grow --intensity 1 nan", "1 to nan"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(mask, tmp_path, typed, told, caplog):
    name, *rest = typed.split()
    out = tmp_path / "new" / "o.nii.gz"
    assert main(["tool", name, str(mask), "-o", str(out), *rest]) == USER_ERROR
    assert told in caplog.messages[-1]
    assert not out.parent.exists()


def test_a_voxel_that_is_none_is_told_as_such(mask, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["tool", "split", str(mask), "-o", str(tmp_path / "o.nii.gz"), "--keep", "1,2"])
    assert "argument --keep: wanted a voxel z,y,x, got '1,2'" in capsys.readouterr().err


def test_a_folder_is_made_and_one_that_cannot_be_is_told_before_the_work(mask, tmp_path, caplog):
    out = tmp_path / "new" / "deep" / "o.nii.gz"
    assert main(["tool", "fill-holes", str(mask), "-o", str(out)]) == DONE
    assert out.is_file()
    arguments = ["tool", "fill-holes", str(tmp_path / "absent"), "-o", str(mask / "o.nii.gz")]
    assert main(arguments) == USER_ERROR
    assert "which is a file" in caplog.messages[-1]  # and not that the labels are absent


def test_the_help_tells_the_defaults():
    told = {"mm": "1", "ml": "0.1", "axis": "0; fill-holes: in 3D"}
    command = parse(build_parser(), ["tool", "smooth", "a", "-o", "b"]).parser
    for action in command._actions:
        if action.dest in told:
            assert action.help.endswith(f"(default: {told[action.dest]})")
    needed = {"split": {"into": 2}, "merge": {"other": 2}}
    calls = [tool_from_json({"tool": n, "label": 1, **needed.get(n, {})}) for n in TOOLS]
    assert {call.mm for call in calls if hasattr(call, "mm")} == {1}
    assert {call.ml for call in calls if hasattr(call, "ml")} == {0.1}
    axes = {call.name: call.axis for call in calls if hasattr(call, "axis")}
    assert axes == {"fill-between": 0, "copy-slice": 0, "fill-holes": None}
