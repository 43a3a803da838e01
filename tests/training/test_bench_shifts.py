import numpy as np
import pytest

from ka2er_training.bench.shifts import SHIFTS, bias_field, coarser, gamma, noise, shift_named
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import Volume, corners


@pytest.fixture
def ramp():
    """Grey values rise from -1000 to 1000 along Y; oblique, anisotropic lattice."""
    data = np.broadcast_to(np.linspace(-1000, 1000, 20)[None, :, None], (8, 20, 12)).copy()
    affine = np.diag([3.0, 1.0, 2.0, 1.0])
    turn = np.deg2rad(20)
    affine[1:3, 1:3] = [[np.cos(turn), -2 * np.sin(turn)], [np.sin(turn), 2 * np.cos(turn)]]
    affine[:3, 3] = (5.0, -7.0, 11.0)
    return Volume(data.astype(np.float32), affine)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_is_repeatable_changes_values_and_keeps_the_place(ramp, name):
    once, again = (shift_named(name)(ramp, 3) for _ in range(2))
    np.testing.assert_array_equal(once.data, again.data)
    assert np.isfinite(once.data).all()
    assert once.geometry.extent_mm == pytest.approx(ramp.geometry.extent_mm)
    if once.shape == ramp.shape:
        assert np.abs(corners(once.geometry) - corners(ramp.geometry)).max() == 0
        assert np.abs(once.data - ramp.data).max() > 10


def test_gamma_bends_between_fixed_ends(ramp):
    bent = gamma(ramp, 0, exponent=2.0)
    low, high = np.percentile(ramp.data, [0.5, 99.5])
    middle = ramp.data[0, 9, 0]
    share = (middle - low) / (high - low)
    assert bent.data[0, 9, 0] == pytest.approx(low + share**2 * (high - low), rel=1e-4)
    assert bent.data.min() == pytest.approx(low)


def test_noise_has_the_deviation_it_names(ramp):
    low, high = np.percentile(ramp.data, [0.5, 99.5])
    added = noise(ramp, 1, share=0.1).data - ramp.data
    assert added.std() == pytest.approx(0.1 * (high - low), rel=0.05)
    assert noise(ramp, 2, share=0.1).data[0, 0, 0] != noise(ramp, 1, share=0.1).data[0, 0, 0]


def test_a_bias_field_is_smooth_and_multiplies_above_the_background(ramp):
    low = np.percentile(ramp.data, 0.5)
    above = slice(5, None)  # where the ramp is well above the background that is kept
    changed = bias_field(ramp, 0, strength=0.4).data[:, above]
    field = np.log((changed - low) / (ramp.data[:, above] - low))
    assert 0.2 < field.std() < 0.6
    assert np.diff(field, axis=1).std() < 0.5 * field.std()  # of white noise: 1.4 times


def test_coarser_covers_the_same_field_and_averages(ramp):
    coarse = coarser(ramp, 0, factor=2.0)
    assert coarse.shape == (4, 10, 6)
    assert coarse.spacing == pytest.approx([2 * s for s in ramp.spacing])
    outer = ramp.geometry.to_world([-0.5, -0.5, -0.5])
    np.testing.assert_allclose(coarse.geometry.to_world([-0.5, -0.5, -0.5]), outer, atol=1e-9)
    inner = ramp.data[4, 8:10, 6].mean()
    assert coarse.data[2, 4, 3] == pytest.approx(inner, abs=1.0)


def test_an_unknown_shift_is_refused():
    with pytest.raises(UserError, match=r"gamma 0\.6"):
        shift_named("fog")
