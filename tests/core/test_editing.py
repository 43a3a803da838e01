"""Tools on small label maps whose results can be counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_ka2er.core import editing
from napari_ka2er.core.brush import limit, stroke
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.interpolation import fill_between_slices, key_slices
from napari_ka2er.core.volume import Geometry

SPACING = (3.0, 1.0, 0.5)  # mm along (Z, Y, X)


def new_map(shape=(9, 20, 31)):
    return np.zeros(shape, np.uint8)


def after(labels, change):
    """The whole map after a change, which must not have touched the map itself."""
    region, values = change
    result = labels.copy()
    result[region] = values
    return result


def block(labels, z, y, x, value=1):
    labels[slice(*z), slice(*y), slice(*x)] = value
    return labels


@pytest.mark.parametrize(
    "tool",
    [
        lambda m: editing.keep_largest_island(m, 1),
        lambda m: editing.remove_small_islands(m, 1, 50.0, SPACING),
        lambda m: editing.fill_holes(m, 1, axis=0),
        lambda m: editing.smooth(m, 1, 1.0, SPACING),
        lambda m: editing.grow(m, 1, 3.0, SPACING),
        lambda m: editing.shrink(m, 1, 1.0, SPACING),
        lambda m: editing.copy_slice(m, 1, 0, 3, 7),
        lambda m: editing.split_island(m, (3, 5, 5), (3, 12, 12), 3, SPACING),
        lambda m: fill_between_slices(m, 1, 0, SPACING),
    ],
)
def test_tools_leave_the_map_and_other_labels_alone(tool):
    labels = block(new_map(), (3, 5), (4, 8), (4, 9))
    block(labels, (3, 5), (11, 14), (11, 14))
    block(labels, (7, 8), (4, 8), (4, 9))
    block(labels, (2, 8), (8, 9), (0, 31), 2)
    labels[3, 5, 6] = 0
    before = labels.copy()
    labels.setflags(write=False)  # as the session's mask is
    result = after(labels, tool(labels))
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(result == 2, before == 2)
    assert result.dtype == np.uint8
    assert (result != before).any()


def test_a_label_without_voxels_is_named():
    with pytest.raises(UserError, match="label 7"):
        editing.smooth(block(new_map(), (0, 1), (0, 1), (0, 1)), 7, 1.0, SPACING)


def test_keep_largest_island_joins_over_corners():
    labels = block(new_map(), (0, 2), (0, 2), (0, 2))
    block(labels, (2, 3), (2, 3), (2, 3))  # touches the corner: 9 voxels
    block(labels, (6, 8), (6, 8), (6, 8))  # 8 voxels
    result = after(labels, editing.keep_largest_island(labels, 1))
    assert result.sum() == 9
    assert result[2, 2, 2] == 1


def test_small_islands_are_measured_in_mm3():
    """A voxel has 3 x 1 x 0.5 = 1.5 mm3: three voxels have 4.5, four have 6."""
    labels = block(new_map(), (0, 1), (0, 1), (0, 3))
    block(labels, (4, 5), (4, 5), (4, 8))
    assert after(labels, editing.remove_small_islands(labels, 1, 4.5, SPACING)).sum() == 7
    assert after(labels, editing.remove_small_islands(labels, 1, 4.6, SPACING)).sum() == 4
    assert after(labels, editing.remove_small_islands(labels, 1, 6.1, SPACING)).sum() == 0


def test_an_island_gets_another_label():
    labels = block(new_map(), (0, 2), (0, 2), (0, 2))
    block(labels, (4, 6), (4, 6), (4, 6))
    result = after(labels, editing.split_island(labels, (0, 0, 0), (5, 5, 5), 2, SPACING))
    assert (result == 1).sum() == (result == 2).sum() == 8
    assert result[4, 4, 4] == 2


@pytest.mark.parametrize(("spacing", "expected_x"), [((1, 1, 1), 11), ((1, 1, 4), 11)])
def test_an_island_is_cut_at_its_neck(spacing, expected_x):
    """x:   0 ... 9 10 11 12 ... 21
    y 0-8:   #######          #######
    y 4:     #######  #  #  # #######    (one voxel thick)
    """
    labels = block(new_map((9, 9, 22)), (0, 9), (0, 9), (0, 10))
    block(labels, (0, 9), (0, 9), (13, 22))
    block(labels, (4, 5), (4, 5), (10, 13))
    result = after(labels, editing.split_island(labels, (4, 4, 2), (4, 4, 20), 2, spacing))
    assert (result[:, :, :10] != 2).all()
    assert (result[:, :, 13:] != 1).all()
    assert (result[4, 4, 10:13] > 0).all()
    assert (labels > 0).sum() == (result > 0).sum()
    assert abs(np.flatnonzero(result[4, 4] == 2)[0] - expected_x) <= 1


@pytest.mark.parametrize(("keep", "split"), [((0, 0, 0), (0, 0, 0)), ((0, 0, 0), (8, 8, 8))])
def test_split_needs_two_voxels_of_one_label(keep, split):
    labels = block(new_map(), (0, 2), (0, 2), (0, 2))
    with pytest.raises(UserError, match="two voxels"):
        editing.split_island(labels, keep, split, 2, SPACING)


def test_holes_in_3d_and_in_slices():
    """A tube along Z is closed in every slice across Z, and open in 3D."""
    labels = block(new_map(), (2, 7), (5, 10), (5, 10))
    block(labels, (2, 7), (7, 8), (7, 8), 0)  # the bore, 5 voxels
    block(labels, (4, 5), (5, 6), (6, 7), 0)  # a gap in the wall of one slice
    assert after(labels, editing.fill_holes(labels, 1)).sum() == labels.sum()
    filled = after(labels, editing.fill_holes(labels, 1, axis=0))
    assert filled.sum() == labels.sum() + 5
    assert filled[:, 7, 7].sum() == 5
    assert after(labels, editing.fill_holes(labels, 1, axis=2)).sum() == labels.sum() + 0

    block(labels, (2, 3), (7, 8), (7, 8))
    block(labels, (6, 7), (7, 8), (7, 8))  # lids: 3 enclosed voxels
    block(labels, (3, 4), (7, 8), (7, 8), 2)  # one of them is another organ
    filled = after(labels, editing.fill_holes(labels, 1))
    assert (filled == 1).sum() == (labels == 1).sum() + 2
    assert filled[3, 7, 7] == 2


def ridge(axis, thickness):
    """A slab of some voxels across an axis, in the middle of a (40, 40, 40) map."""
    labels = np.zeros((40, 40, 40), np.uint8)
    selection = [slice(None)] * 3
    selection[axis] = slice(20, 20 + thickness)
    labels[tuple(selection)] = 1
    return labels


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(3.0, 1.0, 0.5), (0.5, 3.0, 1.0)])
def test_smoothing_is_measured_in_mm(axis, spacing):
    """The middle of a slab of thickness t keeps erf(t / (2 sqrt(2) sigma)) of its weight.

    That is half for t = 1.349 sigma, so a slab of 6 mm stays under sigma = 2 mm (4.4 < ...)
    and goes under sigma = 6 mm, whichever way it lies and however fine its voxels are.
    """
    slab = ridge(axis, round(6 / spacing[axis]))
    assert after(slab, editing.smooth(slab, 1, 2.0, spacing)).any()
    assert not after(slab, editing.smooth(slab, 1, 6.0, spacing)).any()


def test_smoothing_removes_a_spike_and_keeps_a_wall():
    labels = block(new_map((12, 20, 40)), (0, 12), (0, 20), (0, 20))
    labels[6, 10, 20:30] = 1
    result = after(labels, editing.smooth(labels, 1, 1.0, SPACING))
    assert not result[6, 10, 22:].any()
    assert result[:, :, :20].all()  # also at the volume's borders, where the label goes on


def test_growing_and_shrinking_are_measured_in_mm():
    """3 mm are 1 voxel along Z, 3 along Y and 6 along X."""
    labels = new_map()
    labels[4, 10, 15] = 1
    grown = after(labels, editing.grow(labels, 1, 3.0, SPACING))
    assert np.flatnonzero(grown[:, 10, 15]).tolist() == [3, 4, 5]
    assert np.flatnonzero(grown[4, :, 15]).tolist() == list(range(7, 14))
    assert np.flatnonzero(grown[4, 10]).tolist() == list(range(9, 22))
    assert grown[5, 11, 15] == 0  # sqrt(9 + 1) mm away

    labels = block(new_map(), (2, 7), (4, 16), (5, 26))
    shrunk = after(labels, editing.shrink(labels, 1, 3.0, SPACING))
    z, y, x = np.nonzero(shrunk)
    assert (z.min(), z.max()) == (3, 5)
    assert (y.min(), y.max()) == (7, 12)
    assert (x.min(), x.max()) == (11, 19)


def test_what_the_border_cuts_off_is_not_shrunk_there():
    labels = block(new_map(), (0, 9), (0, 20), (0, 10))
    shrunk = after(labels, editing.shrink(labels, 1, 1.0, SPACING))
    assert shrunk[:, :, :8].all()
    assert not shrunk[:, :, 8:].any()
    full = np.ones_like(labels)
    assert after(full, editing.shrink(full, 1, 5.0, SPACING)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations([0, 1, 2]))
def test_tools_do_not_prefer_an_axis(seed, order):
    rng = np.random.default_rng(seed)
    labels = (rng.random((7, 8, 9)) < 0.4).astype(np.uint8)
    turned, spacing = labels.transpose(order), tuple(SPACING[a] for a in order)
    for tool in (editing.smooth, editing.grow, editing.shrink, editing.remove_small_islands):
        expected = after(labels, tool(labels, 1, 1.6, SPACING)).transpose(order)
        np.testing.assert_array_equal(after(turned, tool(turned, 1, 1.6, spacing)), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_between_two_squares_lies_the_square_of_the_mean_size(axis):
    """Squares of 4 and 12 voxels, 4 slices apart: 6, 8 and 10 voxels across in between."""
    stack = np.zeros((5, 20, 20), np.uint8)
    stack[0, 8:12, 8:12] = 1
    stack[4, 4:16, 4:16] = 1
    labels = np.moveaxis(stack, 0, axis)
    filled = after(labels, fill_between_slices(labels, 1, axis, (1.0, 1.0, 1.0)))
    result = np.moveaxis(filled, axis, 0)
    np.testing.assert_array_equal(result[[0, 4]], stack[[0, 4]])
    for index, width in ((1, 6), (2, 8), (3, 10)):
        start = 10 - width // 2
        expected = list(range(start, start + width))
        assert np.flatnonzero(result[index, 9]).tolist() == expected
        assert np.flatnonzero(result[index, :, 9]).tolist() == expected


def test_between_outlines_that_do_not_overlap_the_shape_travels():
    """A square of 4 voxels at x 2 and at x 22, 4 slices apart: 5 voxels further in each."""
    labels = np.zeros((5, 10, 30), np.uint8)
    labels[0, 3:7, 2:6] = 1
    labels[4, 3:7, 22:26] = 1
    result = after(labels, fill_between_slices(labels, 1, 0, (5.0, 1.0, 1.0)))
    for index, start in ((1, 7), (2, 12), (3, 17)):
        assert np.flatnonzero(result[index, 4]).tolist() == list(range(start, start + 4))
        assert result[index].sum() == 16


def test_in_plane_spacing_counts_between_outlines():
    """From 4 x 4 mm to 12 x 6 mm (y by x): half way out along y, 4 mm from the middle.

    There the first outline is 2 mm away and the last one 2 mm too, at y.  In voxels of 0.5 x 1 mm
    taken for squares, the last one's side at x would be nearer (3 against 4), which gives 3.5 mm.
    """
    labels = np.zeros((3, 32, 12), np.uint8)
    labels[0, 12:20, 4:8] = 1
    labels[2, 4:28, 3:9] = 1
    result = after(labels, fill_between_slices(labels, 1, 0, (9.0, 0.5, 1.0)))
    assert np.flatnonzero(result[1, :, 6]).tolist() == list(range(8, 24))


def test_only_the_given_key_slices_count_and_others_are_replaced():
    labels = np.zeros((5, 10, 10), np.uint8)
    labels[[0, 4], 2:6, 2:6] = 1
    labels[2, 8, 8] = 1  # the student's guess
    labels[1, 3, 3] = 2  # another organ
    assert key_slices(labels, 1, 0) == [0, 2, 4]
    result = after(labels, fill_between_slices(labels, 1, 0, (1.0, 1.0, 1.0), keys=[0, 4]))
    np.testing.assert_array_equal(result[2], labels[0])
    assert result[1, 3, 3] == 2
    assert (result[1] == 1).sum() == 15
    with pytest.raises(UserError, match="two slices"):
        fill_between_slices(labels, 1, 0, (1.0, 1.0, 1.0), keys=[0, 1])


def test_copy_slice_replaces_the_label_there_and_nothing_else():
    labels = new_map()
    labels[3, 4:8, 4:8] = 1
    labels[4, 0, 0] = 1
    labels[4, 5, 5] = 2
    result = after(labels, editing.copy_slice(labels, 1, 0, 3, 4))
    expected = labels[3].copy()
    expected[5, 5] = 2
    np.testing.assert_array_equal(result[4], expected)
    np.testing.assert_array_equal(np.delete(result, 4, 0), np.delete(labels, 4, 0))
    with pytest.raises(UserError, match="none of it"):
        editing.copy_slice(labels, 1, 0, 6, 4)
    with pytest.raises(UserError, match="0 to 8"):
        editing.copy_slice(labels, 1, 0, 3, 9)


def test_the_brush_keeps_to_a_range_and_to_a_label():
    present = np.array([[[0, 0, 2, 2, 1]]], np.uint8)
    image = np.array([[[-10, 50, 50, 200, 50]]])
    proposed = np.full_like(present, 3)
    in_range = limit(proposed, present, image=image, intensity_range=(0, 100))
    assert in_range.ravel().tolist() == [0, 3, 3, 2, 3]
    assert limit(proposed, present, only_over=2).ravel().tolist() == [0, 0, 3, 3, 1]
    both = limit(proposed, present, image=image, intensity_range=(0, 100), only_over=2)
    assert both.ravel().tolist() == [0, 0, 3, 2, 1]
    with pytest.raises(TypeError, match="needs the image"):
        limit(proposed, present, intensity_range=(0, 100))


def lattice(shape=(9, 20, 31), spacing=SPACING):
    return Geometry(shape, np.diag([*spacing, 1.0]))


def test_a_ball_is_measured_in_mm_and_cut_at_the_border():
    region, covered = stroke([(4, 10, 15)], 3.0, lattice())
    assert [(s.start, s.stop) for s in region] == [(3, 6), (7, 14), (9, 22)]
    labels = new_map()
    labels[4, 10, 15] = 1
    grown = after(labels, editing.grow(labels, 1, 3.0, SPACING))
    np.testing.assert_array_equal(grown[region].astype(bool), covered)
    region, covered = stroke([(0, 0, 30)], 3.0, lattice())
    assert [(s.start, s.stop) for s in region] == [(0, 2), (0, 4), (24, 31)]
    assert covered[0, 0, -1]


def test_a_disc_stays_in_its_slice_and_goes_along_its_path():
    region, covered = stroke([(4, 3, 5), (4, 9, 5), (4, 9, 25)], 1.0, lattice(), axis=0)
    assert [(s.start, s.stop) for s in region] == [(4, 5), (2, 11), (3, 28)]
    assert covered[0, :, 2].tolist() == [True] * 9
    assert covered[0, 7].sum() == 25 - 0  # y 9: from x 3 to x 27
    assert covered[0, 5].tolist() == [True] * 5 + [False] * 20  # y 7, not yet at the corner


def test_a_radius_of_0_covers_the_voxels_themselves():
    region, covered = stroke([(4, 3, 5)], 0.0, lattice())
    assert covered.tolist() == [[[True]]]
    assert region[2] == slice(5, 6)
