import json

import numpy as np
import pytest
from scipy import ndimage

from napari_ka2er.core.volume import Volume
from napari_ka2er.model.fingerprints import (
    fingerprint,
    intensity_fit,
    likeness,
    looks_like_hounsfield,
    smoothness,
    task_fingerprint,
)


def volume(data, spacing=2.0):
    return Volume(np.asarray(data, np.float32), np.diag([spacing, spacing, spacing, 1.0]))


def mr(seed):
    generator = np.random.default_rng(seed)
    return volume(100 + 30 * generator.normal(size=(20, 24, 28)) ** 2 + seed)


def test_noise_has_nothing_in_common_with_its_neighbours_and_fits_no_task():
    noise = mr(3)
    smooth = volume(ndimage.gaussian_filter(noise.data, (0, 0, 2)))
    assert abs(smoothness(noise.data)) < 0.03
    assert smoothness(smooth.data) > 0.8  # along one axis is enough
    known = task_fingerprint([fingerprint(smooth)])
    assert likeness(known, fingerprint(smooth))[0] == 1
    fit, reason = likeness(known, fingerprint(noise))
    assert fit == 0
    assert "as in noise" in reason


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (np.arange(60.0).reshape(3, 4, 5), 1.0),
        (np.array([[[1.0, 2, 1, 2, 1, 2]]]), -1.0),
        (np.full((3, 4, 5), 7.0), 1.0),
        (np.ones((1, 1, 1)), 1.0),
    ],
)
def test_smoothness_of_what_can_be_counted_by_hand(data, wanted):
    shown = np.pad(data, 1, constant_values=-5) if np.ptp(data) else data  # padding is no voxel
    assert smoothness(shown) == pytest.approx(wanted, abs=1e-6)


def test_padding_does_not_change_the_percentiles():
    bare = mr(1)
    padded = volume(np.pad(bare.data, 20))
    np.testing.assert_allclose(
        fingerprint(padded)["percentiles"], fingerprint(bare)["percentiles"], rtol=0.02
    )


def test_a_fingerprint_counted_by_hand():
    # Eight voxels: two of air, one of lung, five of soft tissue; 2 mm each way.
    found = fingerprint(volume(np.array([-1000, -990, -800, 40, 40, 40, 40, 50]).reshape(2, 2, 2)))
    assert found["bands"] == [2 / 8, 1 / 8, 0, 0, 5 / 8, 0]
    assert found["extent_mm"] == [4.0, 4.0, 4.0]
    assert found["percentiles"][3] == 40  # the median without the one voxel at the minimum


def test_hounsfield_is_told_from_normalised_and_positive_images():
    assert looks_like_hounsfield([-1000, -950, -800, -100, 40, 80, 900])
    assert looks_like_hounsfield([-120, -100, 20, 40, 60, 90, 300])
    assert not looks_like_hounsfield([0, 10, 50, 100, 150, 200, 900])
    assert not looks_like_hounsfield([-3, -2, -1, 0, 1, 2, 3])


def test_intensities_fit_their_own_kind_and_no_constant_image():
    known = task_fingerprint([fingerprint(mr(seed)) for seed in range(3)])
    assert intensity_fit(known, fingerprint(mr(7)))[0] > 0.9
    assert intensity_fit(known, fingerprint(volume(np.full((4, 4, 4), 3.0)))) == (
        0.0,
        "all voxels are equal",
    )


@pytest.mark.parametrize(
    ("extent", "told"),
    [
        ((90, 400, 100), "90 x 400 x 100 mm is larger along Y than in training (at most 120 mm)"),
        ((90, 110, 20), "90 x 110 x 20 mm is smaller along X than in training (at least 95 mm)"),
        ((500, 400, 20), "500 x 400 x 20 mm is larger along Z than in training (at most 100 mm)"),
        ((90, 110, 100), "90 x 110 x 100 mm fits"),
    ],
)
def test_a_field_of_view_is_told_by_the_axis_that_fits_worst(extent, told):
    own = fingerprint(volume(np.arange(1000).reshape(10, 10, 10)))
    known = task_fingerprint([own])
    known["extent_mm"] = {"low": [80, 105, 95], "high": [100, 120, 105]}
    assert f"field of view {told}" in likeness(known, {**own, "extent_mm": extent})[1]


def ct(seed, lowest=-1000):
    generator = np.random.default_rng(seed)
    kinds = generator.choice([-1000, -800, 40, 600], p=[0.3, 0.3, 0.35, 0.05], size=(20, 24, 28))
    return volume(np.clip(kinds + generator.normal(0, 20, kinds.shape), lowest, None))


def test_one_odd_training_volume_does_not_hide_the_others():
    prints = [fingerprint(ct(seed)) for seed in range(5)]
    odd = fingerprint(ct(5, lowest=-40))
    assert not looks_like_hounsfield(odd["percentiles"])
    known = task_fingerprint([*prints, odd])
    assert known["is_hounsfield"] is True
    assert known["n_volumes"] == 6
    assert intensity_fit(known, fingerprint(ct(9)))[0] == 1
    assert known["bands"] == task_fingerprint(prints)["bands"]
    assert intensity_fit(known, odd)[0] == 0
    other_way = task_fingerprint([*(fingerprint(mr(seed)) for seed in range(5)), prints[0]])
    assert other_way["is_hounsfield"] is False
    assert intensity_fit(other_way, fingerprint(mr(9)))[0] > 0.9
    assert json.loads(json.dumps(known)) == known
