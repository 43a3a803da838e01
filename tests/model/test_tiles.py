from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.tiles import Lattice, halo_of, region_geometry, tiled_grid

WINDOWS = st.sampled_from([32, 64, 96])


@st.composite
def lattices(draw):
    window = tuple(draw(WINDOWS) for _ in range(3))
    shape = tuple(w + 8 * draw(st.integers(0, 30)) for w in window)
    return Lattice(shape, window)


@settings(deadline=None, max_examples=40)
@given(lattices())
def test_cores_cover_the_grid_once(lattice):
    for axis in range(3):
        axes = {(t.core[axis].start, t.core[axis].stop) for t in lattice.tiles}
        ends = sorted(axes)
        assert ends[0][0] == 0
        assert ends[-1][1] == lattice.shape[axis]
        assert all(a[1] == b[0] for a, b in pairwise(ends))
    assert len({t.core[0].start for t in lattice.tiles}) * len(
        {t.core[1].start for t in lattice.tiles}
    ) * len({t.core[2].start for t in lattice.tiles}) == len(lattice.tiles)


@settings(deadline=None, max_examples=40)
@given(lattices())
def test_windows_lie_on_the_token_lattice_inside_the_grid(lattice):
    for tile in lattice.tiles:
        for window, core, size, wanted in zip(
            tile.window, tile.core, lattice.shape, lattice.window, strict=True
        ):
            assert window.stop - window.start == wanted
            assert 0 <= window.start <= core.start < core.stop <= window.stop <= size
            assert not {window.start % 8, core.start % 8, core.stop % 8} - {0}


@settings(deadline=None, max_examples=40)
@given(lattices())
def test_inner_cores_keep_a_halo(lattice):
    for tile in lattice.tiles:
        for window, core, size in zip(tile.window, tile.core, lattice.shape, strict=True):
            halo = halo_of(window.stop - window.start)
            assert core.start == 0 or core.start - window.start >= halo
            assert core.stop == size or window.stop - core.stop >= halo


def test_a_grid_of_one_window_is_one_tile():
    (tile,) = Lattice((64, 32, 96), (64, 32, 96)).tiles
    assert tile.window == tile.core == (slice(0, 64), slice(0, 32), slice(0, 96))


def test_every_voxel_belongs_to_the_window_whose_middle_is_nearest():
    lattice = Lattice((128, 64, 64), (64, 64, 64))
    middles = [(t.window[0].start + t.window[0].stop) / 2 for t in lattice.tiles]
    for tile in lattice.tiles:
        own = (tile.window[0].start + tile.window[0].stop) / 2
        for voxel in (tile.core[0].start + 4, tile.core[0].stop - 4):  # cores end at multiples of 8
            assert abs(voxel - own) <= min(abs(voxel - m) for m in middles) + 8


def test_tiles_of_a_region_come_nearest_first():
    lattice = Lattice((64, 64, 256), (64, 64, 64))
    region = (slice(0, 64), slice(0, 64), slice(100, 256))
    near = lattice.touching(region, (32, 32, 250))
    starts = [tile.core[2].start for tile in near]
    assert starts == sorted(starts, reverse=True)
    assert min(t.core[2].stop for t in near) > 100
    assert not lattice.touching((slice(0, 0), slice(0, 0), slice(0, 0)))


def test_odd_sizes_are_refused():
    for shape, window in (((60, 64, 64), (32, 32, 32)), ((64, 64, 24), (32, 32, 32))):
        with pytest.raises(ValueError, match="multiples of 8"):
            Lattice(shape, window)


@pytest.mark.parametrize("shape", [(3, 90, 40), (40, 7, 41)])
def test_the_grid_holds_the_volume_and_a_window(shape):
    affine = np.diag([2.0, -1.0, 3.0, 1.0])
    affine[:3, 3] = 5, 6, -7
    geometry = Geometry(shape, affine)
    grid = tiled_grid(geometry, (1.5, 2.0, 2.5), (32, 64, 32))
    assert all(n >= w and n % 8 == 0 for n, w in zip(grid.shape, (32, 64, 32), strict=True))
    np.testing.assert_allclose(grid.spacing, (1.5, 2.0, 2.5))
    ends = np.array(list(product(*((0, n - 1) for n in shape))))
    assert grid.contains(geometry.to_world(ends))
    margins = [grid.to_index(geometry.to_world(ends)).min(0), np.array(grid.shape) - 1]
    high = margins[1] - grid.to_index(geometry.to_world(ends)).max(0)
    assert np.abs(margins[0] - high).max() <= 1.01  # the padding lies evenly around


def test_a_region_keeps_its_place_in_the_world():
    geometry = Geometry((10, 12, 14), np.diag([2.0, 3.0, 4.0, 1.0]))
    part = region_geometry(geometry, (slice(-2, 4), slice(3, 5), slice(1, 14)))
    assert part.shape == (6, 2, 13)
    np.testing.assert_allclose(part.to_world((2, 0, 1)), geometry.to_world((0, 3, 2)))
