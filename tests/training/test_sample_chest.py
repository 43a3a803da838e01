from __future__ import annotations

import json
import re

import nibabel
import numpy as np
import pytest

from ka2er_training.sample import chest
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.volume import Volume

SHAPE, SPACING = (24, 44, 52), (6.0, 5.0, 4.0)


def person(lung_hu: float = -820.0) -> tuple[Volume, np.ndarray]:
    """An oval body with two lungs in air, oblique and anisotropic."""
    z, y, x = (
        (i - (n - 1) / 2) * s for i, n, s in zip(np.indices(SHAPE), SHAPE, SPACING, strict=True)
    )
    body = (y / 75) ** 2 + (x / 85) ** 2 < 1
    lungs = (z / 55) ** 2 + (y / 50) ** 2 + ((np.abs(x) - 40) / 28) ** 2 < 1
    data = np.select([lungs, body], [lung_hu, 40.0], -1000.0).astype(np.float32)
    affine = np.eye(4)
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    affine[:3, :3] = turn * SPACING
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return Volume(data, affine), lungs.astype(np.uint8)


def test_the_body_is_the_largest_part_with_its_lungs():
    volume, lungs = person()
    data = volume.channels[0].copy()
    data[:, :3, :3] = 100  # a table in the corner
    body = chest.body_of(data, lungs > 0)
    assert body[lungs > 0].all()
    assert not body[:, :3, :3].any()
    wanted = (volume.channels[0] > -900) | (lungs > 0)
    assert (body != wanted).mean() < 0.02


def test_nothing_is_no_body():
    air = np.full((4, 5, 6), -1000, np.float32)
    empty = np.zeros(air.shape, bool)
    assert not chest.body_of(air, empty).any()
    volume = Volume(air, np.eye(4))
    assert chest.with_cloth(air, empty, volume.geometry, np.random.default_rng(0)) is air


def test_cloth_hangs_in_the_air_and_leaves_the_body_alone():
    volume, lungs = person()
    data = volume.channels[0]
    body = chest.body_of(data, lungs > 0)
    changed = [
        chest.with_cloth(data, body, volume.geometry, np.random.default_rng(seed)) != data
        for seed in range(8)
    ]
    assert not np.any([hung & body for hung in changed])
    assert max(hung[~body].mean() for hung in changed) > 0.02, "no sheet is seen"
    assert all(hung[~body].mean() < 0.6 for hung in changed), "not a sheet but a cushion"


def test_a_variant_s_labels_lie_on_its_dark_lungs():
    volume, lungs = person()
    for seed in range(5):
        values, labels, geometry = chest.vary(volume, lungs, np.random.default_rng(seed))
        assert values.shape == labels.shape == geometry.shape
        assert values.min() >= -1024
        assert 0.5 < (labels > 0).sum() / (lungs > 0).sum() < 2
        inside = values[labels > 0]
        assert -1000 < np.median(inside) < -600, seed


def test_air_is_added_only_where_the_image_ends_in_air():
    volume, lungs = person()
    body = chest.body_of(volume.channels[0], lungs > 0)
    found = np.array(
        [chest.margins(body, volume.geometry, np.random.default_rng(seed)) for seed in range(40)]
    )
    assert (found[:, 0] == 0).all()  # the body goes on above and below
    assert (found[:, 1:] * np.array(SPACING)[None, 1:, None]).max() <= 120
    assert (found[:, 1:] > 0).any(axis=0).all()
    assert 0.3 < (found[:, 1:] == 0).mean() < 0.7


def test_added_air_moves_nothing_in_the_world():
    volume, _ = person()
    data, ends = volume.channels[0], [(0, 0), (3, 1), (0, 5)]
    wider, geometry = chest.with_air(data, volume.geometry, ends, np.random.default_rng(0))
    assert wider.shape == geometry.shape == (24, 48, 57)
    assert np.array_equal(wider[:, 3:-1, :-5], data)
    assert np.allclose(geometry.to_world((7, 8 + 3, 9)), volume.geometry.to_world((7, 8, 9)))
    added = np.concatenate([wider[:, :3].ravel(), wider[:, :, -5:].ravel()])
    assert abs(added.mean() + 1000) < 2
    assert 8 < added.std() < 16


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for name, lung_hu in (("ada", -820.0), ("bob", -900.0)):
        volume, lungs = person(lung_hu)
        chest._write(folder, name, (volume.channels[0], lungs, volume.geometry))
    told = {"labels": {"background": 0, "lung": 1}, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({"licence": "CC0", **told}))
    (folder / "imagesTr" / "ada_0000.nii.gz").rename(folder / "imagesTr" / "a_0000.nii.gz")
    (folder / "labelsTr" / "ada.nii.gz").rename(folder / "labelsTr" / "a.nii.gz")
    return folder


def test_a_task_has_each_volume_as_it_is_and_variants_of_it(source, tmp_path):
    out = chest.make_chest_task(source, tmp_path / "out", n_variants=2, seed=3)
    names = sorted(p.name for p in (out / "labelsTr").iterdir())
    assert names == [f"{c}_v{i}.nii.gz" for c in ("a", "bob") for i in range(3)]
    for name in ("a", "bob"):
        first = read_volume(out / "imagesTr" / f"{name}_v0_0000.nii.gz")
        plain = read_volume(source / "imagesTr" / f"{name}_0000.nii.gz")
        assert np.array_equal(first.channels[0], plain.channels[0])
        assert np.allclose(first.affine, plain.affine)
        labels, geometry = read_labels(out / "labelsTr" / f"{name}_v1.nii.gz")
        image = read_volume(out / "imagesTr" / f"{name}_v1_0000.nii.gz")
        assert np.allclose(geometry.affine, image.affine)
        assert labels.shape == image.shape
        assert set(np.unique(labels)) == {0, 1}
    told = json.loads((out / "dataset.json").read_text())
    assert (told["numTraining"], told["licence"]) == (6, "CC0")


def test_the_same_seed_makes_the_same_task(source, tmp_path):
    outs = [
        chest.make_chest_task(source, tmp_path / name, n_variants=1, seed=seed)
        for name, seed in (("one", 0), ("two", 0), ("three", 1))
    ]
    one, two, three = (
        np.asarray(nibabel.load(out / "imagesTr" / "bob_v1_0000.nii.gz").dataobj) for out in outs
    )
    assert np.array_equal(one, two)
    assert one.shape != three.shape or not np.array_equal(one, three)


def test_variants_of_a_person_have_one_patient():
    found = {re.search(chest.PATIENT, name)[1] for name in ("torso_001_v0", "torso_001_v12")}
    assert found == {"torso_001"}


def test_a_folder_that_exists_or_a_source_without_images_is_refused(source, tmp_path):
    with pytest.raises(UserError, match="a new folder"):
        chest.make_chest_task(source, source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="imagesTr"):
        chest.make_chest_task(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_breaks_leaves_nothing_behind(source, tmp_path):
    (source / "labelsTr" / "bob.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError):
        chest.make_chest_task(source, tmp_path / "made" / "out")
    assert list((tmp_path / "made").iterdir()) == []
