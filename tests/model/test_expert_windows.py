from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from tests.model.trained_models import Model, rotated

from napari_ka2er.core.volume import Geometry, Volume
from napari_ka2er.model.expert_files import open_plan
from napari_ka2er.model.expert_image import nonzero_box, pad
from napari_ka2er.model.expert_windows import WindowGrid, WorkingGrid, axis_windows, padding

AXES = [
    (length, patch, stride)
    for patch, stride in [
        (32, 4),
        (64, 16),
        (32, 16),
        (16, 16),
        (128, 32),
        (28, 4),
        (5, 1),
        (160, 32),
    ]
    for length in {patch, patch + 1, patch + stride, 2 * patch + 3, 3 * patch + stride, 7 * patch}
]


@pytest.mark.parametrize(("length", "patch", "stride"), AXES)
def test_cores_cover_an_axis_once_and_lie_inside_their_windows(length, patch, stride):
    windows = axis_windows(length, patch, stride)
    assert [w.core_low for w in windows] == [0, *(w.core_high for w in windows[:-1])]
    assert length <= windows[-1].core_high < length + stride
    for window in windows:
        assert window.start <= window.core_low < window.core_high
        assert min(window.core_high, length) <= window.start + patch
        assert not any(n % stride for n in (window.core_low, window.core_high))


@pytest.mark.parametrize(("length", "patch", "stride"), AXES)
def test_no_window_reaches_out_of_the_image_and_only_the_last_lies_between_tokens(
    length, patch, stride
):
    starts = [window.start for window in axis_windows(length, patch, stride)]
    assert starts[0] == 0 or len(starts) == 1
    assert starts[-1] == length - patch
    assert not any(start % stride for start in starts[:-1])
    assert starts == sorted(set(starts))


@pytest.mark.parametrize(("length", "patch", "stride"), AXES)
def test_cores_keep_a_halo_of_an_eighth_where_the_patch_has_tokens_for_it(length, patch, stride):
    halo = min(patch / 8, (patch // stride - 1) // 2 * stride)
    for left, right in pairwise(axis_windows(length, patch, stride)):
        assert left.start + patch - left.core_high >= halo
        assert right.core_low - right.start >= halo


def test_two_windows_that_share_much_meet_in_the_middle():
    first, second = axis_windows(72, 64, 16)
    assert (first.start, second.start) == (0, 8)
    assert first.core_high == second.core_low == 32  # the middle is 36


def test_an_axis_is_not_cut_into_more_windows_than_halos_demand():
    assert len(axis_windows(64, 64, 16)) == 1
    assert len(axis_windows(96, 64, 16)) == 2
    assert len(axis_windows(160, 64, 16)) == 4
    assert len(axis_windows(256, 64, 4)) == 5  # cores of 48 and halos of 8


def test_windows_that_hold_a_token_are_found():
    grid = WindowGrid((64, 32, 48), (32, 32, 16), (8, 8, 4))
    stride = (4, 4, 2)
    tokens = [n // s for n, s in zip((64, 32, 48), stride, strict=True)]
    owner = np.empty(tokens, dtype=object)
    for index in np.ndindex(*grid.shape):
        owner[grid.core(index, stride)] = [[[index]]]
    for low, high in [((0, 0, 0), (0, 0, 0)), ((3, 2, 5), (9, 3, 17)), ((15, 7, 23), (15, 7, 23))]:
        inside = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
        wanted = {tuple(index) for index in owner[inside].ravel()}
        assert grid.touching(np.array(low), np.array(high), stride) == wanted


def test_images_are_padded_as_nnunet_does_and_lattices_up_to_whole_tokens():
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    patch, stride = (16, 12, 8), (4, 4, 4)
    data = np.random.default_rng(0).normal(size=(1, 5, 12, 7)).astype(np.float32)
    before, after = padding(data.shape[1:], patch, stride)
    place = Geometry((5, 12, 7), np.eye(4)), (0, 1, 2), ()
    grid = WorkingGrid(*place, (5, 12, 7), before, after, patch)
    np.testing.assert_array_equal(pad(data, grid), pad_nd_image(data, patch))
    before, after = padding((18, 5, 8), patch, stride)
    assert (before, after) == ((0, 3, 0), (2, 4, 0))
    place = Geometry((18, 5, 8), np.eye(4)), (0, 1, 2), ()
    grid = WorkingGrid(*place, (18, 5, 8), before, after, patch)
    padded = pad(np.ones((1, 18, 5, 8), np.float32), grid)
    assert grid.padded_shape == (20, 12, 8)
    assert padded.shape == (1, *grid.seen_shape) == (1, 18, 12, 8)
    assert padded[0, 0, 0, 0] == 0  # a small image lies in zeros


TRANSPOSES = [(0, 1, 2), (2, 0, 1), (1, 0, 2)]
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 1.9, 1.3), (5.0, 1.1, 0.9)]


@pytest.mark.parametrize(("transpose", "spacing"), list(product(TRANSPOSES, SPACINGS)))
def test_a_ramp_lies_where_the_matrix_says_after_preprocessing(transpose, spacing):
    """Each voxel holds its own world coordinate, and so it still does after preprocessing."""
    size = (24, 32, 40)
    geometry = Geometry(size, rotated((2.0, 1.3, 0.8)))
    model = Model(
        transpose=transpose, spacing=spacing, normalization="NoNormalization", patch=(16, 40, 16)
    )
    plan = open_plan(model.plans, model.dataset, model.configuration)
    world = geometry.to_world(np.stack(np.indices(size), axis=-1))
    errors = []
    for axis in range(3):
        ramp = world[..., axis] + 1000
        ramp[:2], ramp[:, -5:], ramp[:, :, :3] = 0, 0, 0
        grid, padded = look_at(plan, Volume(ramp, geometry.affine), model.patch)
        index = np.argwhere(np.ones(padded.shape[1:]))
        back = np.linalg.inv(grid.from_world)
        expected = index @ back[:3, :3].T + back[:3, 3]
        original = geometry.to_index(expected)
        inner = ((original >= (5, 3, 6)) & (original <= (20, 23, 36))).all(axis=1)  # off the spline
        errors.append(padded[0].ravel()[inner] - expected[inner, axis] - 1000)
    assert len(errors[0]) > 100
    np.testing.assert_allclose(grid.spacing, np.array(spacing), rtol=0.1)
    mm = [geometry.spacing[a] for a in transpose]
    if max(spacing) / min(spacing) > 3:  # then nnU-Net takes the nearest slice of the coarse axis
        assert np.abs(errors).max() < 0.51 * mm[0]
        assert np.abs(np.mean(errors, axis=1)).max() < 0.1 * mm[0]
    else:
        assert np.abs(errors).max() < 0.02


def look_at(plan, volume, patch):
    """Return the working grid as computed from the plan, and nnU-Net's image, padded."""
    crop = nonzero_box(volume.channels)
    assert crop == ((2, 24), (0, 27), (3, 40))
    data, properties = plan.preprocess(volume, plan.at_spacing(plan.spacing))
    order = plan.transpose
    assert [list(crop[a]) for a in order] == [list(e) for e in properties["bbox_used_for_cropping"]]
    old = [crop[a][1] - crop[a][0] for a in order]
    mm = [volume.spacing[a] for a in order]
    shape = plan.working_shape(old, mm, plan.configuration.spacing)
    assert data.shape[1:] == shape
    before, after = padding(shape, patch, (4, 4, 4))
    grid = WorkingGrid(volume.geometry, order, crop, shape, before, after, patch)
    return grid, pad(data, grid)
