import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_ka2er.core.resampling import (
    grid_of,
    normalise,
    resample,
    resample_one_hot,
    student_image,
)
from napari_ka2er.core.volume import Geometry, corners


def ramp(geometry, slopes):
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    return (geometry.to_world(index) @ slopes).astype(np.float32)


def test_a_grid_covers_the_volume_at_the_wanted_spacing():
    volume = Geometry((10, 21, 30), np.diag([3.0, 1.0, 0.5, 1.0]))
    grid = grid_of(volume, (2.0, 2.0, 2.0))
    # Extents 30, 21 and 15 mm need 15, 11 and 8 voxels of 2 mm; padded to multiples of 8.
    assert grid.shape == (16, 16, 8)
    np.testing.assert_allclose(grid.spacing, (2, 2, 2))
    centres = [g.to_world((np.array(g.shape) - 1) / 2) for g in (volume, grid)]
    np.testing.assert_allclose(*centres)


def test_flipped_and_permuted_volumes_are_seen_the_same_way_up():
    affine = np.zeros((4, 4))
    affine[0, 2] = -1.0  # the file's last axis runs down the world's Z
    affine[1, 0] = 2.0
    affine[2, 1] = -3.0
    affine[3, 3] = 1.0
    grid = grid_of(Geometry((4, 5, 6), affine), (1.0, 1.0, 1.0), multiple=1)
    np.testing.assert_allclose(grid.affine[:3, :3], np.eye(3), atol=1e-12)
    assert grid.shape == (6, 8, 15)  # extents 6, 8 and 15 mm along Z, Y and X


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 6)] * 3),
    shape=st.tuples(*[st.integers(1, 40)] * 3),
)
def test_every_volume_lies_within_its_grid(angles, spacing, shape):
    affine = np.eye(4)
    turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(spacing)
    volume = Geometry(shape, affine)
    grid = grid_of(volume, (1.5, 2.0, 1.0))
    outer = grid.to_index(corners(volume))
    assert (outer >= -0.5 - 1e-6).all()
    assert (outer <= np.array(grid.shape) - 0.5 + 1e-6).all()
    assert all(n % 8 == 0 for n in grid.shape)


def test_linear_resampling_keeps_a_linear_function():
    slopes = np.array([0.3, -0.2, 0.5])
    source = Geometry((20, 24, 22), np.diag([1.0, 1.5, 2.0, 1.0]))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    turn[:3, 3] = (6, 12, 14)
    target = Geometry((5, 6, 7), turn)
    np.testing.assert_allclose(
        resample(ramp(source, slopes), source, target), ramp(target, slopes), atol=1e-4
    )


def test_coarser_grids_average_instead_of_picking_voxels():
    fine = Geometry((64, 8, 8), np.eye(4))
    stripes = np.zeros(fine.shape, np.float32)
    stripes[::2] = 1
    coarse = Geometry((15, 8, 8), np.diag([4.0, 1.0, 1.0, 1.0]))
    values = resample(stripes, fine, coarse)[2:-2]
    np.testing.assert_allclose(values, 0.5, atol=0.05)


def test_labels_keep_their_type_and_values():
    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 300
    geometry = Geometry((2, 3, 4), np.eye(4))
    again = resample(labels, geometry, geometry, order=0)
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, labels)


def test_one_hot_labels_are_soft_at_borders():
    labels = np.zeros((4, 4, 8), np.uint8)
    labels[:, :, 4:] = 7
    source = Geometry(labels.shape, np.eye(4))
    half = np.eye(4)
    half[2, 3] = 0.5  # half a voxel along X: one column straddles the border
    soft = resample_one_hot(labels, source, Geometry(labels.shape, half), [7, 9])
    assert soft.shape == (2, 4, 4, 8)
    np.testing.assert_allclose(soft[0, 1, 1], [0, 0, 0, 0.5, 1, 1, 1, 0.5])
    assert not soft[1].any()


def test_normalised_intensities_do_not_depend_on_scale_or_padding():
    body = np.random.default_rng(0).normal(100, 20, (12, 14, 10)).astype(np.float32)
    scaled = normalise(body * 37 + 5)
    np.testing.assert_allclose(normalise(body), scaled, atol=1e-3)
    padded = np.pad(body, 6)
    # The lowest voxel counts as padding in the one and not in the other: tails move a little.
    inner = normalise(padded)[6:-6, 6:-6, 6:-6]
    np.testing.assert_allclose(np.clip(inner, -2, 2), np.clip(scaled, -2, 2), atol=0.02)
    assert scaled.std() == pytest.approx(1, abs=0.02)


def test_a_constant_volume_becomes_zeros():
    assert not normalise(np.full((3, 4, 5), 42, np.int16)).any()


def test_the_students_image_continues_the_border_into_the_padding():
    data = np.random.default_rng(1).normal(size=(5, 6, 7))
    source = Geometry(data.shape, np.eye(4))
    grid = grid_of(source, (1.0, 1.0, 1.0))
    image = student_image(data, source, grid)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0], image[1])  # both lie before the first slice


def test_putting_a_large_volume_on_the_grid_takes_few_copies_of_it():
    """As float32: the values, those of the body, and a working copy of these."""
    data = np.random.default_rng(0).integers(-1000, 1000, (40, 90, 110)).astype(np.int16)
    source = Geometry(data.shape, np.diag([1.0, 0.7, 0.8, 1.0]))
    grid = grid_of(source, (5.0, 5.0, 5.0))
    tracemalloc.start()
    try:
        student_image(data, source, grid)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.5 * 4 * data.size
