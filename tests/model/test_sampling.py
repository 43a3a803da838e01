import numpy as np
import pytest

from napari_ka2er.core.volume import Geometry
from napari_ka2er.model import sampling
from napari_ka2er.model.sampling import sample, share_of, slab_of, slabs
from napari_ka2er.model.tiles import tiled_grid

NOT_TURNED = np.eye(3)
ROTATION = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])


def geometry_of(shape, spacing, order=(0, 1, 2), flips=(1, 1, 1), turn=NOT_TURNED):
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, order] @ np.diag(np.array(spacing) * flips)
    affine[:3, 3] = 11, -7, 4
    return Geometry(shape, affine)


def plane(geometry, slope=(0.5, -0.25, 0.125)):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"), -1)
    return geometry.to_world(index) @ np.array(slope)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_a_linear_field_is_reproduced_whatever_the_axes(order, flips):
    image = geometry_of((9, 13, 17), (2.0, 1.0, 1.5), order, flips, ROTATION)
    grid = tiled_grid(image, (1.1, 1.7, 2.3), (32, 32, 32))
    values = np.stack([plane(grid), 2 * plane(grid)]).astype(np.float32)
    result = sample(values, grid, image)
    np.testing.assert_allclose(result[0], plane(image), atol=1e-3)
    np.testing.assert_allclose(result[1], 2 * plane(image), atol=2e-3)


def test_one_axis_at_a_time_is_the_same_as_point_by_point(monkeypatch):
    image = geometry_of((9, 13, 17), (2.0, 1.0, 1.5), (2, 0, 1), (-1, 1, 1), ROTATION)
    grid = tiled_grid(image, (2.0, 2.0, 2.0), (16, 16, 16))
    values = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float16)
    fast = sample(values, grid, image)
    monkeypatch.setattr(
        sampling, "_separable", lambda v, m, _, shape: sampling._general(v, m, shape)
    )
    np.testing.assert_allclose(fast, sample(values, grid, image), atol=1e-4)


def test_a_rotated_lattice_is_sampled_point_by_point():
    grid = geometry_of((24, 24, 24), (1.0, 1.0, 1.0))
    turned = geometry_of((5, 6, 7), (1.0, 1.0, 1.0), turn=ROTATION)
    values = plane(grid)[None].astype(np.float32)
    index = grid.to_index(turned.to_world(np.stack(np.indices(turned.shape), -1)))
    inside = ((index >= 0) & (index <= 23)).all(-1)
    assert inside.sum() > 50
    np.testing.assert_allclose(
        sample(values, grid, turned)[0][inside], plane(turned)[inside], atol=1e-4
    )


def test_outside_the_nearest_value_holds():
    small = geometry_of((2, 2, 2), (1.0, 1.0, 1.0))
    large = geometry_of((2, 2, 9), (1.0, 1.0, 1.0))
    values = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    assert (sample(values, small, large)[0][..., 2:] == values[0][..., -1:]).all()


def test_slabs_cover_every_row_once_and_bound_the_memory():
    rows = list(slabs((500, 512, 512), 3))
    assert [r for s in rows for r in range(s.start, s.stop)] == list(range(500))
    assert max(s.stop - s.start for s in rows) * 512 * 512 * 3 * 4 <= 64 * 2**20
    assert list(slabs((3, 4, 5), 1)) == [slice(0, 3)]
    geometry = geometry_of((9, 4, 5), (1.0, 2.0, 3.0))
    part = slab_of(geometry, slice(4, 9))
    np.testing.assert_allclose(part.to_world((0, 1, 1)), geometry.to_world((4, 1, 1)))


def test_the_share_of_a_mask_is_exact_where_whole_voxels_are_covered():
    affine = np.diag([2.0, -1.0, 0.5, 1.0])
    affine[:3, 3] = 5, 40, -3
    source = Geometry((4, 6, 9), affine)
    mask = np.zeros(source.shape, bool)
    mask[1, 2:4, 3:6] = True  # one voxel of 2 x 2 x 1.5 mm, and nothing else
    mask[0, 0, 0] = True  # a sixth of one
    coarse = affine @ np.diag([1, 2, 3, 1.0])
    coarse[:3, 3] = source.to_world((0, 0.5, 1))
    share = share_of(mask, source, Geometry((4, 3, 3), coarse))
    wanted = np.zeros((4, 3, 3))
    wanted[1, 1, 1], wanted[0, 0, 0] = 1, 1 / 6
    np.testing.assert_allclose(share, wanted, atol=1e-6)


def test_the_share_of_a_mask_keeps_its_volume_and_place():
    rng = np.random.default_rng(0)
    source = Geometry((40, 50, 45), np.diag([1.0, 0.8, 0.9, 1.0]))
    z, y, x = np.ogrid[:40, :50, :45]
    mask = ((z - 20) ** 2 + (0.8 * (y - 24)) ** 2 + (0.9 * (x - 21)) ** 2) < 12**2
    shift = rng.uniform(-0.5, 0.5, 3)
    affine = np.diag([2.3, 2.1, 2.2, 1.0])
    affine[:3, 3] = 2 + shift
    target = Geometry((16, 18, 16), affine)
    share = share_of(mask, source, target)
    assert share.sum() * 2.3 * 2.1 * 2.2 == pytest.approx(mask.sum() * 0.72, rel=0.02)
    centre = np.argwhere(share > 0.5).mean(axis=0)
    np.testing.assert_allclose(target.to_world(centre), source.to_world((20, 24, 21)), atol=0.4)


def test_the_share_of_a_mask_does_not_depend_on_the_order_of_the_files_axes():
    rng = np.random.default_rng(0)
    mask = rng.random((6, 24, 20)) > 0.5
    source = Geometry(mask.shape, np.diag([4.0, 1.0, 1.0, 1.0]))
    target = Geometry((6, 12, 10), np.diag([4.0, 2.0, 2.0, 1.0]))
    swapped = np.array(source.affine)[:, [2, 0, 1, 3]]
    share = share_of(mask, source, target)
    turned = share_of(mask.transpose(2, 0, 1), Geometry((20, 6, 24), swapped), target)
    np.testing.assert_allclose(turned, share, atol=1e-6)
    same = share_of(mask.transpose(2, 0, 1), Geometry((20, 6, 24), swapped), source)
    np.testing.assert_array_equal(same > 0.5, mask)


def test_the_share_of_a_full_mask_is_one_on_a_much_coarser_lattice():
    source = Geometry((14, 21, 28), np.eye(4))
    affine = np.diag([7.0, 7.0, 7.0, 1.0])
    affine[:3, 3] = 3
    share = share_of(np.ones(source.shape, bool), source, Geometry((2, 3, 4), affine))
    np.testing.assert_array_equal(share, 1)  # 343 voxels in each do not fit into a byte


def test_the_share_of_an_empty_box_is_zero():
    lattice = Geometry((2, 3, 4), np.eye(4))
    empty = Geometry((0, 0, 0), np.eye(4))
    assert not share_of(np.zeros((0, 0, 0), bool), empty, lattice).any()
