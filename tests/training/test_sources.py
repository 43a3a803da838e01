"""Data sets as others keep them: MSD's channels, nnU-Net's TIFF, folders with two of the same."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import tifffile
from tests.training.conftest import AFFINE, phantom

from ka2er_training.cli import main
from ka2er_training.integrity import ReadOptions, read_channel
from ka2er_training.workspace import Workspace
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume, write_labels, write_volume

N_CASES = 3
LABELS = {"0": "background", "1": "bright", "2": "dim"}


@pytest.fixture
def msd(tmp_path):
    """An MSD task of two modalities: the phantom, and minus the phantom."""
    folder = tmp_path / "Task05"
    pairs = []
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for number in range(N_CASES):
        volume, labels = phantom(number)
        both = np.stack([volume.data.T, -volume.data.T], axis=-1)
        affine = np.diag([*AFFINE.diagonal()[2::-1], 1])
        nib.save(nib.Nifti1Image(both, affine), folder / "imagesTr" / f"p{number}.nii.gz")
        write_labels(folder / "labelsTr" / f"p{number}.nii.gz", labels, volume)
        pairs.append({k: f"./{k}sTr/p{number}.nii.gz" for k in ("image", "label")})
    text = {"name": "two", "modality": {"0": "T2", "1": "ADC"}, "labels": LABELS, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(text))
    return folder


def task_add(workspace, *arguments):
    status = main(["task", "add", str(workspace.folder), *map(str, arguments)])
    return status, Workspace.open(workspace.folder)


@pytest.mark.parametrize(("channel", "name", "sign"), [(0, "T2", 1), (1, "ADC", -1)])
def test_a_channel_of_an_msd_task_becomes_a_task(workspace, msd, channel, name, sign):
    status, workspace = task_add(workspace, msd, "--channel", channel)
    assert status == 0
    assert workspace.record("two").task.modality == name
    cases = [*workspace.training_cases("two"), *workspace.holdout_cases("two")]
    assert len(cases) == N_CASES
    for case in cases:
        volume, labels = phantom(int(case.id[1:]))
        found = read_volume(case.image)
        np.testing.assert_array_equal(found.data, sign * volume.data)
        assert found.geometry.is_close(volume.geometry)
        np.testing.assert_array_equal(read_labels(case.label)[0], labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "choose one with --channel"),
        (("--channel", 2), "0, 1"),
        (("--channel", -1), "at least"),
    ],
)
def test_the_channel_of_an_msd_task_must_be_there(workspace, msd, caplog, arguments, words):
    assert task_add(workspace, msd, *arguments)[0] == 2
    (record,) = caplog.records
    assert words in record.getMessage()


def test_an_image_with_another_number_of_channels_is_refused(workspace, msd, caplog):
    path = msd / "imagesTr" / "p1.nii.gz"
    old = nib.load(path)
    three = np.concatenate([old.get_fdata(), old.get_fdata()[..., :1]], axis=-1)
    nib.save(nib.Nifti1Image(three, old.affine), path)
    assert task_add(workspace, msd, "--channel", 0)[0] == 2
    (record,) = caplog.records
    assert "2 channels as the fourth axis" in record.getMessage()


def test_a_time_series_is_none_of_channels(msd, workspace, caplog):
    """Two folders say nothing of channels, whatever is chosen."""
    folders = ("--images", msd / "imagesTr", "--labels", msd / "labelsTr")
    for channel in ((), ("--channel", 0)):
        caplog.clear()
        assert task_add(workspace, *folders, *channel)[0] == 2
        (record,) = caplog.records
        assert "a time series" in record.getMessage()
    with pytest.raises(UserError, match="a time series"):
        read_channel(msd / "imagesTr" / "p0.nii.gz", None)


def test_channels_count_from_0(tmp_path):
    with pytest.raises(UserError, match="at least 0"):
        ReadOptions(channel=-1)
    volume, _ = phantom(0)
    data = np.stack([volume.data] * 2)
    write_volume(tmp_path / "a.mha", type(volume)(data, AFFINE, ("a", "b")))
    for channel in (-1, 2):
        with pytest.raises(UserError, match="from 0 to 1"):
            read_channel(tmp_path / "a.mha", channel)


def test_nnunets_tiff_keeps_the_spacing_beside_it(tmp_path, workspace):
    raw = tmp_path / "raw"
    for number in range(N_CASES):
        volume, labels = phantom(number)
        for kind, name, data in (("images", "_0000", volume.data), ("labels", "", labels)):
            (raw / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(raw / f"{kind}Tr" / f"p{number}{name}.tif", data)
            sidecar = raw / f"{kind}Tr" / f"p{number}.json"
            sidecar.write_text(json.dumps({"spacing": [2.0, 1.0, 1.5]}))
    text = {
        "name": "balls", "channel_names": {"0": "MR"}, "file_ending": ".tif",
        "labels": {"background": 0, "bright": 1, "dim": 2}, "numTraining": N_CASES,
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(text))
    status, workspace = task_add(workspace, raw)
    assert status == 0
    assert workspace.record("balls").spacing_mm == (2.0, 1.0, 1.5)
    for case in workspace.training_cases("balls"):
        assert read_volume(case.image).spacing == (2.0, 1.0, 1.5)
        assert read_labels(case.label)[1].spacing == (2.0, 1.0, 1.5)


@pytest.mark.parametrize("other", ["p0.mha", "p0_0000.nii.gz"])
@pytest.mark.parametrize("where", ["images", "labels", "unlabelled"])
def test_two_files_of_one_case_are_refused_by_name(workspace, tmp_path, caplog, where, other):
    if where == "labels":
        other = "p0.mha"
    for kind in ("images", "labels", "unlabelled"):
        (tmp_path / kind).mkdir()
        volume, labels = phantom(0)
        write_volume(tmp_path / kind / "p0.nii.gz", volume)
    write_labels(tmp_path / "labels" / "p0.nii.gz", labels, volume)
    write_volume(tmp_path / where / other, volume)
    options = [f"--{kind}={tmp_path / kind}" for kind in ("images", "labels", "unlabelled")]
    assert task_add(workspace, *options)[0] == 2
    (record,) = caplog.records
    assert "p0.nii.gz" in record.getMessage()
    assert other in record.getMessage()
