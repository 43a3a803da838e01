from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from ka2er_training.sample import brain, scanner, warps
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.volume import Geometry


@pytest.fixture
def template() -> brain.Template:
    """A white core of 16 mm radius in a grey shell of 24 mm, 2 mm voxels."""
    shape = (30, 34, 28)
    offset = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    distance_mm = 2 * np.linalg.norm(offset, axis=-1)
    white = (distance_mm < 16).astype(np.float32)
    grey = ((distance_mm >= 16) & (distance_mm < 24)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -30, -34, -28
    return brain.Template(0.6 * grey + 0.9 * white, grey, white, Geometry(shape, affine))


def test_labels_lie_where_the_image_shows_the_tissue(template):
    for seed in range(6):
        case = brain.draw_case(template, np.random.default_rng(seed), spacing_mm=2.0)
        outside, grey, white = (case.image[case.labels == value].mean() for value in (0, 1, 2))
        assert outside < 0.5 * grey, seed
        assert grey < white, seed


def test_a_case_keeps_the_amount_of_tissue_within_what_the_warp_can_do(template):
    true_mm3 = (template.white > 0.5).sum() * 8
    for seed in range(6):
        case = brain.draw_case(template, np.random.default_rng(seed), spacing_mm=2.0)
        voxel_mm3 = abs(np.linalg.det(case.geometry.affine[:3, :3]))
        assert 0.4 < (case.labels == brain.WHITE).sum() * voxel_mm3 / true_mm3 < 2.5, seed


def test_no_warp_folds(template):
    for seed in range(8):
        field, _ = warps.control_displacements(template.geometry, np.random.default_rng(seed))
        assert np.abs(field).max() > 2, "a warp that moves nothing"
        assert warps.jacobian_determinants(field, warps.CONTROL_PITCH_MM).min() >= 0.3


def test_a_mirror_is_seen_as_a_fold():
    z = np.broadcast_to(-2 * np.arange(8.0)[:, None, None], (8, 8, 8))
    mirror = np.stack([z, 0 * z, 0 * z]).astype(np.float32)
    assert np.allclose(warps.jacobian_determinants(mirror, 1.0), -1)


def test_contrast_curves_rise():
    t = np.linspace(0, 1, 200)
    for seed in range(30):
        values = scanner.contrast_curve(np.random.default_rng(seed))(t)
        assert (np.diff(values) > 0).all(), seed
        assert values[[0, -1]] == pytest.approx([0, 1])


def test_nnunet_raw_layout_and_same_seed_same_voxels(template, tmp_path):
    kwargs = {"template": template, "n_holdout": 1, "spacing_mm": 2.0, "seed": 3}
    first = brain.make_brain_task(tmp_path / "a", n_cases=2, **kwargs)
    second = brain.make_brain_task(tmp_path / "b", n_cases=1, **kwargs)
    names = sorted(p.relative_to(first).as_posix() for p in first.rglob("*.nii.gz"))
    assert names == [
        "imagesTr/brain_000_0000.nii.gz",
        "imagesTr/brain_001_0000.nii.gz",
        "imagesTs/brain_002_0000.nii.gz",
        "labelsTr/brain_000.nii.gz",
        "labelsTr/brain_001.nii.gz",
        "labelsTs/brain_002.nii.gz",
    ]
    assert json.loads((first / "dataset.json").read_text("utf-8"))["numTraining"] == 2
    for name in ("imagesTr/brain_000_0000.nii.gz", "labelsTr/brain_000.nii.gz"):
        one, other = nibabel.load(first / name), nibabel.load(second / name)
        assert np.array_equal(one.dataobj, other.dataobj)
        assert np.array_equal(one.affine, other.affine)
    image, labels = (nibabel.load(first / name) for name in (names[0], names[3]))
    assert image.shape == labels.shape
    assert np.array_equal(image.affine, labels.affine)


def test_cancelling_leaves_nothing_behind(template, tmp_path):
    calls = iter([False, True])
    with pytest.raises(CancelledError):
        brain.make_brain_task(
            tmp_path / "a", template=template, n_cases=2, cancelled=lambda: next(calls)
        )
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused(template, tmp_path):
    with pytest.raises(UserError, match="a new folder"):
        brain.make_brain_task(tmp_path, template=template)


def test_a_missing_template_file_is_named(tmp_path):
    with pytest.raises(UserError, match="mni_icbm152_t1_tal"):
        brain.load_template(tmp_path)
