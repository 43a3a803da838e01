"""Correction tools as plain data, on small label maps whose results can be counted by hand."""

import json

import numpy as np
import pytest

from napari_ka2er.core import tools
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import Geometry

SPACING = (3.0, 1.0, 0.5)  # mm along (Z, Y, X)
VOXEL_ML = 3.0 * 1.0 * 0.5 / 1000


def lattice(shape, spacing=SPACING):
    """A lattice that is turned about Z and Y, flipped, and far from the origin."""
    c, s = np.cos(0.4), np.sin(0.4)
    about_z = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_y = np.array([[c, 0, s], [0, -1, 0], [-s, 0, c]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_y @ np.diag(spacing)
    affine[:3, 3] = (-70, 12, 300)
    return Geometry(shape, affine)


def block(labels, z, y, x, value=1):
    labels[slice(*z), slice(*y), slice(*x)] = value
    return labels


def applied(call, labels, image=None, spacing=SPACING):
    """The whole map after a tool, which must not have touched the map itself."""
    before = labels.copy()
    region, values = call.apply(labels, image, lattice(labels.shape, spacing))
    np.testing.assert_array_equal(labels, before)
    result = labels.astype(np.promote_types(labels.dtype, values.dtype))
    result[region] = values
    return result


def new_map(shape=(9, 20, 31)):
    return np.zeros(shape, np.uint8)


EXAMPLES = {
    "fill-between": tools.FillBetween(2, axis=1, keys=(3, 9)),
    "keep-largest": tools.KeepLargest(2),
    "remove-small": tools.RemoveSmall(2, ml=0.25),
    "split": tools.Split(2, into=3, keep=(1, 2, 3), split=(4, 5, 6)),
    "fill-holes": tools.FillHoles(2, axis=0),
    "smooth": tools.Smooth(2, mm=1.5),
    "grow": tools.Grow(2, mm=2.5, intensity=(-100.0, 40.0)),
    "shrink": tools.Shrink(2, mm=2.0),
    "copy-slice": tools.CopySlice(2, axis=2, source=4, target=5),
    "merge": tools.Merge(2, other=5),
}


def test_there_is_an_example_of_every_tool():
    assert set(EXAMPLES) == set(tools.TOOLS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_tool_comes_back_from_the_log_as_it_was(name):
    call = EXAMPLES[name]
    data = json.loads(json.dumps(call.to_json()))
    assert data["tool"] == name
    assert tools.tool_from_json(data) == call


@pytest.mark.parametrize(
    "data",
    [
        {"tool": "explode", "label": 1},
        {"label": 1},
        {"tool": "smooth"},
        {"tool": "smooth", "label": 1, "sigma": 2.0},
        {"tool": "smooth", "label": 1, "mm": 0.0},
        {"tool": "grow", "label": 1, "mm": float("nan")},
        {"tool": "shrink", "label": 0, "mm": 1.0},
        {"tool": "remove-small", "label": 1, "ml": -1.0},
        {"tool": "fill-holes", "label": 1, "axis": 3},
        {"tool": "split", "label": 1, "into": 0},
        {"tool": "split", "label": 1, "into": 1},
        {"tool": "split", "label": 1},
        {"tool": "split", "label": 1, "into": 2, "keep": (1, 2, 3)},
        {"tool": "split", "label": 1, "into": 2, "split": (1, 2, 3)},
        {"tool": "merge", "label": 1, "other": 1},
        {"tool": "merge", "label": 1},
        {"tool": "grow", "label": 1, "intensity": (50, 10)},
        {"tool": "grow", "label": 1, "intensity": (float("nan"), 10)},
        {"tool": "grow", "label": 1, "intensity": (10, float("nan"))},
    ],
)
def test_what_is_no_tool_is_refused_in_one_line(data):
    with pytest.raises(UserError) as raised:
        tools.tool_from_json(data)
    assert "\n" not in str(raised.value)


def test_smoothing_by_1_mm_acts_along_x_but_not_along_z():
    """A rod of one voxel along Z is 3 mm long, a rod of one voxel along X half a millimetre."""
    along_x = block(new_map(), (2, 7), (5, 15), (15, 16))  # a sheet of 0.5 mm
    along_z = block(new_map(), (4, 5), (5, 15), (8, 24))  # a sheet of 3 mm
    assert not (applied(tools.Smooth(1, mm=1.0), along_x) == 1).any()
    smoothed = applied(tools.Smooth(1, mm=1.0), along_z)
    assert smoothed[4, 10, 16] == 1
    assert np.flatnonzero(smoothed.any(axis=(1, 2))).tolist() == [4]


def test_smoothing_depends_on_the_spacing_alone_not_on_the_voxels():
    """The same sheet in mm keeps or loses its middle alike in fine and in coarse voxels."""
    fine = block(new_map((9, 20, 40)), (2, 7), (5, 15), (16, 20))  # 4 x 0.5 mm
    coarse = block(new_map((9, 20, 20)), (2, 7), (5, 15), (9, 10))  # 1 x 2 mm
    for labels, spacing, middle in ((fine, SPACING, 18), (coarse, (3.0, 1.0, 2.0), 9)):
        assert applied(tools.Smooth(1, mm=0.8), labels, spacing=spacing)[4, 10, middle] == 1
        assert not applied(tools.Smooth(1, mm=1.8), labels, spacing=spacing).any()


def test_growing_reaches_as_many_voxels_as_the_distance_holds():
    labels = block(new_map(), (4, 5), (10, 11), (15, 16))
    grown = applied(tools.Grow(1, mm=2.0), labels)
    assert [int(n.any(axis=o).sum()) for n, o in ((grown, (1, 2)), (grown, (0, 2)))] == [1, 5]
    assert int(grown.any(axis=(0, 1)).sum()) == 9


def test_growing_within_intensities_stops_at_the_others():
    labels = block(new_map(), (4, 5), (10, 11), (15, 16))
    image = np.zeros(labels.shape)
    image[:, :, 16:] = 100
    grown = applied(tools.Grow(1, mm=2.0, intensity=(-10, 10)), labels, image)
    assert not grown[:, :, 16:].any()
    assert grown[4, 10, 11] == 1
    with pytest.raises(UserError, match="image"):
        applied(tools.Grow(1, mm=2.0, intensity=(-10, 10)), labels)


def test_shrinking_takes_what_is_near_the_border():
    labels = block(new_map(), (1, 8), (5, 15), (5, 25))
    shrunk = applied(tools.Shrink(1, mm=1.0), labels)
    np.testing.assert_array_equal(shrunk, block(new_map(), (1, 8), (6, 14), (7, 23)))


def test_islands_are_measured_in_millilitres_also_on_a_sheared_lattice():
    labels = block(block(new_map(), (1, 3), (1, 3), (1, 3)), (5, 8), (10, 13), (10, 13))
    at_limit = 8 * VOXEL_ML  # the small island exactly
    kept = applied(tools.RemoveSmall(1, ml=at_limit * 0.999), labels)
    np.testing.assert_array_equal(kept, labels)
    removed = applied(tools.RemoveSmall(1, ml=at_limit * 1.001), labels)
    assert np.count_nonzero(removed) == 27
    affine = np.diag([*SPACING, 1.0])
    affine[2, 1] = 1.0  # Y leans over to X: a longer spacing, the same volume
    sheared = Geometry(labels.shape, affine)
    region, values = tools.RemoveSmall(1, ml=at_limit * 0.999).apply(labels, None, sheared)
    np.testing.assert_array_equal(values, labels[region])


def test_the_largest_island_stays():
    labels = block(block(new_map(), (1, 3), (1, 3), (1, 3)), (5, 8), (10, 13), (10, 13))
    expected = block(new_map(), (5, 8), (10, 13), (10, 13))
    np.testing.assert_array_equal(applied(tools.KeepLargest(1), labels), expected)


def test_without_points_the_second_largest_island_is_split_off():
    labels = block(block(new_map(), (1, 3), (1, 3), (1, 3)), (5, 8), (10, 13), (10, 13))
    labels[8, 19, 30] = 1  # and a speck
    result = applied(tools.Split(1, into=300), labels)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result == 300, labels * 0 + block(new_map(), *[(1, 3)] * 3) == 1)
    assert np.count_nonzero(result == 1) == 28


def test_without_points_one_island_is_cut_at_its_neck():
    labels = block(new_map(), (2, 7), (2, 12), (2, 12))
    block(labels, (2, 7), (4, 12), (18, 30))
    block(labels, (4, 5), (7, 8), (12, 18))  # a neck of one voxel
    result = applied(tools.Split(1, into=2), labels)
    larger, smaller = (result[2:7, 5:11, 19:29] == 1), (result[2:7, 3:11, 3:11] == 2)
    swapped = (result[2:7, 5:11, 19:29] == 2), (result[2:7, 3:11, 3:11] == 1)
    assert (larger.all() and smaller.all()) or (swapped[0].all() and swapped[1].all())
    np.testing.assert_array_equal(result > 0, labels > 0)


def test_a_cube_has_nothing_to_split_and_two_points_help():
    labels = block(new_map(), (2, 7), (2, 12), (2, 12))
    with pytest.raises(UserError, match="two points"):
        applied(tools.Split(1, into=2), labels)
    result = applied(tools.Split(1, into=2, keep=(3, 5, 3), split=(3, 5, 10)), labels)
    assert result[3, 5, 3] == 1
    assert result[3, 5, 10] == 2
    for bad in ((3, 5, 40), (0, 0, 0)):
        with pytest.raises(UserError):
            applied(tools.Split(1, into=2, keep=(3, 5, 3), split=bad), labels)


def test_gaps_between_slices_of_any_axis_are_filled():
    labels = block(block(new_map(), (2, 7), (3, 4), (5, 20)), (2, 7), (9, 10), (5, 20))
    expected = block(new_map(), (2, 7), (3, 10), (5, 20))
    np.testing.assert_array_equal(applied(tools.FillBetween(1, axis=1), labels), expected)


def test_what_lies_between_chosen_slices_is_replaced():
    labels = block(new_map(), (2, 7), (3, 10), (5, 20))
    block(labels, (3, 5), (5, 8), (5, 28))  # spilt
    expected = block(new_map(), (2, 7), (3, 10), (5, 20))
    call = tools.FillBetween(1, axis=1, keys=(3, 9))
    np.testing.assert_array_equal(applied(call, labels), expected)


def test_a_hole_open_along_z_is_one_only_in_its_slices():
    labels = block(new_map(), (2, 7), (3, 12), (5, 20))
    block(labels, (2, 7), (6, 8), (9, 12), value=0)
    np.testing.assert_array_equal(applied(tools.FillHoles(1), labels), labels)
    filled = applied(tools.FillHoles(1, axis=0), labels)
    np.testing.assert_array_equal(filled, block(new_map(), (2, 7), (3, 12), (5, 20)))


def test_a_slice_is_copied_to_another():
    labels = block(new_map(), (2, 3), (3, 12), (5, 20))
    copied = applied(tools.CopySlice(1, axis=0, source=2, target=3), labels)
    np.testing.assert_array_equal(copied, block(new_map(), (2, 4), (3, 12), (5, 20)))


def test_a_merged_label_takes_all_of_the_other_one():
    labels = block(block(new_map(), (1, 3), (1, 3), (1, 3)), (5, 8), (10, 13), (10, 13), 2)
    merged = applied(tools.Merge(1, other=2), labels)
    np.testing.assert_array_equal(merged, (labels > 0).astype(np.uint8))
    with pytest.raises(UserError):
        applied(tools.Merge(1, other=4), labels)


@pytest.mark.parametrize("call", EXAMPLES.values(), ids=list(EXAMPLES))
def test_a_label_without_voxels_is_a_user_s_error(call):
    with pytest.raises(UserError):
        applied(call, new_map(), np.zeros((9, 20, 31)))
