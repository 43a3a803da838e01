from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import Geometry, Volume, corners, is_invertible

# Z runs along the world's x, turned round; Y along z; X along y: no axis lies on its namesake.
AFFINE = np.array(
    [
        [0.0, 2.0, 0.0, 10.0],
        [0.0, 0.0, 0.5, 20.0],
        [-3.0, 0.0, 0.0, 30.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


@pytest.fixture
def geometry() -> Geometry:
    """(2, 3, 4) voxels of 3 x 2 x 0.5 mm."""
    return Geometry((2, 3, 4), AFFINE)


def test_spacing_and_extent_are_measured_along_the_lattices_own_axes(geometry):
    assert geometry.spacing == (3.0, 2.0, 0.5)
    assert geometry.extent_mm == (6.0, 6.0, 2.0)


def test_an_index_goes_to_its_position_and_back(geometry):
    # z = 10 + 2 * 2, y = 20 + 0.5 * 3, x = 30 - 3 * 1
    np.testing.assert_array_equal(geometry.to_world((1, 2, 3)), (14, 21.5, 27))
    np.testing.assert_allclose(geometry.to_index((14, 21.5, 27)), (1, 2, 3), atol=1e-12)


def test_many_points_keep_their_leading_axes(geometry):
    index = np.random.default_rng(0).uniform(-5, 5, (6, 7, 3))
    world = geometry.to_world(index)
    assert world.shape == (6, 7, 3)
    np.testing.assert_allclose(geometry.to_index(world), index, atol=1e-12)
    assert geometry.to_world(np.zeros((0, 3))).shape == (0, 3)


def test_the_last_corner_is_the_last_voxel(geometry):
    found = corners(geometry)
    assert found.shape == (8, 3)
    np.testing.assert_array_equal(found[0], (10, 20, 30))
    np.testing.assert_array_equal(found[-1], (14, 21.5, 27))


@pytest.mark.parametrize(
    ("index", "inside"),
    [
        ((-0.5, -0.5, -0.5), True),
        ((1.5, 2.5, 3.5), True),
        ((1.51, 0, 0), False),
        ((0, 0, -1), False),
    ],
)
def test_a_voxel_reaches_half_a_step_around_its_centre(geometry, index, inside):
    assert geometry.contains(geometry.to_world(index)) is inside


def test_points_are_contained_only_all_together(geometry):
    points = geometry.to_world([(0, 0, 0), (1, 2, 3)])
    assert geometry.contains(points)
    assert not geometry.contains(np.vstack([points, [(99, 99, 99)]]))


@pytest.mark.parametrize(("shift_mm", "is_close"), [(0.0, True), (9e-4, True), (2e-3, False)])
def test_geometries_are_close_if_their_corners_are(geometry, shift_mm, is_close):
    moved = AFFINE.copy()
    moved[1, 3] += shift_mm
    assert geometry.is_close(Geometry((2, 3, 4), moved)) is is_close


def test_a_small_turn_of_a_long_axis_moves_its_corner(geometry):
    turned = AFFINE.copy()
    turned[0, 2] = 1e-3  # 1 µm per voxel: 3 µm at the fourth
    assert not geometry.is_close(Geometry((2, 3, 4), turned))
    assert not geometry.is_close(Geometry((2, 3, 5), AFFINE))


def test_the_affine_is_a_copy_that_cannot_be_changed():
    affine = np.eye(4)
    geometry = Geometry((1, 1, 1), affine)
    affine[0, 0] = 7
    assert geometry.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 2


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.eye(3),
        np.diag([1, 1, 0, 1]),
        np.diag([1, np.nan, 1, 1]),
        np.diag([1, np.inf, 1, 1]),
        np.diag([1, 1, 1, 0]),
        np.eye(4)[[0, 1, 1, 3]],
    ],
    ids=["zero", "3x3", "flat", "nan", "infinite", "no last row", "same direction"],
)
def test_an_affine_that_cannot_be_inverted_is_refused(affine):
    with pytest.raises(UserError, match="wanted a finite, invertible"):
        Volume(np.zeros((2, 3, 4)), affine)


@given(
    st.lists(st.integers(-4, 4), min_size=9, max_size=9),
    st.floats(-7, 3),
    st.lists(st.floats(-7, 3), min_size=3, max_size=3),
)
def test_whether_an_affine_can_be_inverted_does_not_depend_on_its_units(numbers, one, each):
    """All axes by one factor, and each by its own, from 1e-7 to 1e3; whole numbers are exact."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(numbers, (3, 3))
    expected = round(np.linalg.det(affine[:3, :3])) != 0
    assert is_invertible(affine) is expected
    assert is_invertible(affine @ np.diag([*[10**one] * 3, 1])) is expected
    assert is_invertible(affine @ np.diag([*(10.0 ** np.array(each)), 1])) is expected


def test_voxels_of_a_microscope_are_compared_by_their_own_size():
    affine = np.diag([2e-4, 6.5e-5, 6.5e-5, 1])
    moved = affine.copy()
    moved[2, 3] += 6.5e-5  # one voxel
    assert not Geometry((2, 3, 4), affine).is_close(Geometry((2, 3, 4), moved))
    moved[2, 3] = 6.5e-7
    assert Geometry((2, 3, 4), affine).is_close(Geometry((2, 3, 4), moved))


@pytest.mark.parametrize("shape", [(4, 4), (2, 2, 3, 4, 5), (0, 3, 4), (1, 3, 0, 4)])
def test_data_that_is_no_volume_is_refused_with_its_shape(shape):
    with pytest.raises(UserError) as caught:
        Volume(np.zeros(shape), np.eye(4))
    assert f"got an array of shape {shape}" in f"{caught.value}"


def test_channels_and_their_names_must_agree():
    data = np.zeros((2, 3, 4, 5))
    volume = Volume(data, np.eye(4), ("T1", "T2"))
    assert (volume.shape, volume.n_channels) == ((3, 4, 5), 2)
    with pytest.raises(UserError, match="wanted 2 channel names, got 1"):
        Volume(data, np.eye(4))


def test_one_channel_may_lack_its_axis():
    volume = Volume(np.arange(24.0).reshape(2, 3, 4), AFFINE)
    assert volume.n_channels == 1
    assert volume.channels.shape == (1, 2, 3, 4)
    assert volume.spacing == (3.0, 2.0, 0.5)
    assert volume.geometry.shape == (2, 3, 4)


def test_values_cannot_be_changed():
    volume = Volume(np.zeros((2, 3, 4)), AFFINE)
    with pytest.raises(ValueError, match="read-only"):
        volume.data[0, 0, 0] = 1


def test_the_digest_depends_on_values_place_and_type_but_not_on_the_name():
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    digest = Volume(data, AFFINE).digest()
    assert digest == Volume(data.copy(order="F"), AFFINE, name="other").digest()
    others = [
        Volume(data[::-1], AFFINE),
        Volume(data, moved),
        Volume(data.astype(np.int32), AFFINE),
        Volume(data.reshape(2, 4, 3), AFFINE),
    ]
    assert len({digest, *(v.digest() for v in others)}) == 5
