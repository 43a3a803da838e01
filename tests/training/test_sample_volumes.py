from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from ka2er_training.sample import phantom, volumes
from ka2er_training.sample.sources import nilearn_data
from napari_ka2er.core.errors import UserError

SHIPPED = Path(__file__).parents[2] / "sample_data" / "volumes"


@pytest.fixture
def sdist(tmp_path) -> Path:
    """A small archive laid out as pyradiomics' source distribution, its CT in LPS order."""
    data = np.full((6, 40, 44), -1000, dtype=np.int16)
    data[2:4, 10:20, 24:36] = 500
    image = SimpleITK.GetImageFromArray(data)
    image.SetSpacing((0.5, 0.75, 5.0))
    image.SetOrigin((-11.0, -20.0, 30.0))
    SimpleITK.WriteImage(image, str(tmp_path / "lung1.nrrd"))
    path = tmp_path / "pyradiomics-3.0.1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "lung1.nrrd", volumes.LUNG)
    return path


@pytest.fixture
def nilearn(tmp_path) -> Path:
    folder = tmp_path / "nilearn"
    folder.mkdir()
    data = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / volumes.ICBM)
    return folder


def test_the_shrunk_chest_lies_where_the_chest_lay(sdist):
    chest = volumes.read_chest(sdist)
    small = volumes.shrink_chest(chest)
    assert small.spacing == pytest.approx(volumes.CT_SPACING_MM)
    assert small.data.dtype == np.int16
    centres = []
    for volume in (chest, small):
        bright = np.argwhere(volume.data > -250)
        centres.append(volume.geometry.to_world(bright.mean(axis=0)))
    # LPS (x, y, z) = -11 + 0.5 * 29.5, -20 + 0.75 * 14.5, 30 + 5 * 2.5, in RAS (z, y, x):
    assert centres[0] == pytest.approx((42.5, 9.125, -3.75))
    assert np.abs(centres[1] - centres[0]).max() < 0.4


def test_every_volume_comes_with_licence_and_checksum(sdist, nilearn, tmp_path):
    out = volumes.make_sample_volumes(tmp_path / "out", pyradiomics=sdist, nilearn=nilearn)
    again = volumes.make_sample_volumes(tmp_path / "again", pyradiomics=sdist, nilearn=nilearn)
    cards = json.loads((out / "volumes.json").read_text("utf-8"))
    assert [card["name"] for card in cards] == ["icbm_t1", "ct_chest", "phantom"]
    for card in cards:
        assert hashlib.sha256((out / card["file"]).read_bytes()).hexdigest() == card["sha256"]
        assert card["file"] in (out / f"{card['name']}.txt").read_text("utf-8")
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in again.iterdir())
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_an_archive_without_the_ct_is_refused_and_the_old_folder_stays(nilearn, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    with tarfile.open(wrong, "w:gz"):
        pass
    old = tmp_path / "volumes"
    old.mkdir()
    (old / "kept.txt").write_text("kept")
    with pytest.raises(UserError, match=r"lung1_image\.nrrd"):
        volumes.make_sample_volumes(old, pyradiomics=wrong, nilearn=nilearn)
    assert (old / "kept.txt").read_text("utf-8") == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nilearn", "volumes", "wrong.tar.gz"]


def test_the_phantom_shows_what_its_labels_say():
    made = phantom.make_phantom()
    wanted = {0: None, phantom.LUNG: -820, phantom.SPINE: 350, phantom.NODULE: 30}
    assert set(np.unique(made.labels)) == set(wanted)
    for value, hounsfield in wanted.items():
        if hounsfield is not None:
            assert made.volume.data[made.labels == value].mean() == pytest.approx(hounsfield, abs=6)
    litres = np.prod(phantom.SPACING_MM) * (made.labels == phantom.LUNG).sum() / 1e6
    # Two ellipsoids less the nodule; voxels of 6 mm round the ends.
    assert litres == pytest.approx(2 * 4 / 3 * np.pi * 0.9 * 0.66 * 0.48, rel=0.02)


def test_the_phantom_is_oblique_and_anisotropic():
    volume = phantom.make_phantom().volume
    assert volume.spacing == pytest.approx(phantom.SPACING_MM)
    assert (np.abs(volume.affine[:3, :3]) > 0.05).sum() > 5


def test_the_shipped_volumes_are_those_of_the_sources():
    cards = {
        card["name"]: card for card in json.loads((SHIPPED / "volumes.json").read_text("utf-8"))
    }
    for card in cards.values():
        content = (SHIPPED / card["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == card["sha256"]
        assert (SHIPPED / f"{card['name']}.txt").is_file()
    template = (nilearn_data() / volumes.ICBM).read_bytes()
    shipped = (SHIPPED / cards["icbm_t1"]["file"]).read_bytes()
    assert gzip.decompress(template) == gzip.decompress(shipped)
    image = nibabel.load(SHIPPED / cards["phantom"]["file"])
    assert np.array_equal(np.asarray(image.dataobj).T, phantom.make_phantom().volume.data)
