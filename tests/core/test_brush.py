"""The brush on lattices that lean, and at paths that leave the volume."""

import numpy as np
import pytest

from napari_ka2er.core.brush import stroke
from napari_ka2er.core.volume import Geometry

TILT = np.eye(4)
TILT[:3, 0] = (5.0, 5.0 * np.tan(np.pi / 6), 0.0)  # slices 5 mm apart, the gantry at 30 degrees


def covered_of(lattice, *args):
    region, covered = stroke(*args[:2], lattice, *args[2:])
    result = np.zeros(lattice.shape, np.bool_)
    result[region] = covered
    return result


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_ball_is_round_in_mm_also_where_the_axes_lean(axis):
    lattice = Geometry((9, 41, 41), TILT)
    index = np.moveaxis(np.indices(lattice.shape), 0, -1)
    at = np.linalg.norm(lattice.to_world(index) - lattice.to_world((4, 20, 20)), axis=-1)
    expected = at <= 12.0
    if axis is not None:
        expected &= index[..., axis] == (4, 20, 20)[axis]
    np.testing.assert_array_equal(covered_of(lattice, [(4, 20, 20)], 12.0, axis), expected)


@pytest.mark.parametrize(
    "path",
    [
        [(0, -10, 3), (0, -10, 20), (0, 5, 20)],
        [(25, 5, 5), (26, 25, 35), (10, 10, 10)],
        [(5, 35, 10), (5, 10, 50), (5, 10, 10)],
    ],
)
def test_a_path_that_leaves_the_volume_is_cut_there(path):
    """The same path in a volume with 40 voxels more on every side covers the same voxels."""
    lattice = Geometry((20, 30, 40), np.diag([2.0, 1.0, 0.5, 1.0]))
    wider = Geometry((100, 110, 120), lattice.affine)
    inside = covered_of(wider, [tuple(i + 40 for i in p) for p in path], 2.0)
    expected = inside[40:60, 40:70, 40:80]
    assert expected.any()
    np.testing.assert_array_equal(covered_of(lattice, path, 2.0), expected)


def test_a_path_outside_the_volume_covers_nothing():
    region, covered = stroke([(30, 5, 5), (30, 9, 5)], 2.0, Geometry((20, 30, 40), np.eye(4)))
    assert covered.size == 0
    assert np.zeros((20, 30, 40))[region].shape == covered.shape
