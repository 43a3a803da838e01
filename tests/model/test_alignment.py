from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.alignment import (
    HALLUCINATED,
    REAL,
    align,
    align_window,
    token_geometry,
)


@dataclass
class Map:
    data: np.ndarray
    from_world: np.ndarray

    @property
    def field(self):
        return np.array([[-0.5] * 3, np.array(self.data.shape[1:]) - 0.5])


def rotated(angles, spacing, origin):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def ramp(shape, affine, slopes):
    """Return a map whose one channel is a linear function of the world position."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    return Map((world @ slopes)[None].astype(np.float32), np.linalg.inv(affine))


def test_tokens_sit_in_the_middle_of_the_voxels_they_cover():
    window = Geometry((8, 16, 24), np.diag([2.0, 1.0, 3.0, 1.0]))
    tokens = token_geometry(window, 4)
    assert tokens.shape == (2, 4, 6)
    # Token 0 covers voxels 0 to 3, whose mean index is 1.5.
    np.testing.assert_allclose(tokens.to_world([0, 0, 0]), [3.0, 1.5, 4.5])
    np.testing.assert_allclose(tokens.to_world([1, 0, 0]), [11.0, 1.5, 4.5])


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.4, 0.9), (0.3, 0.45, 0.4)], ids=["alike", "finer, pooled"]
)
def test_a_linear_function_of_the_world_stays_itself(spacing):
    slopes = np.array([0.2, -0.5, 0.3])
    shape = tuple(int(30 / s) for s in spacing)
    feature = ramp(shape, rotated((10, -20, 5), spacing, (-15, -14, -13)), slopes)
    tokens = Geometry((5, 6, 7), rotated((25, 8, -3), (1.2, 1.0, 1.1), (1.0, -2.0, -3.0)))
    values, inside = align(feature, tokens)
    index = np.stack(np.meshgrid(*map(np.arange, tokens.shape), indexing="ij"), axis=-1)
    expected = tokens.to_world(index) @ slopes
    assert inside.all()
    np.testing.assert_allclose(values[0].numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("factor", [2, 3, 4, 6, 8])
def test_averaged_features_do_not_depend_on_what_else_is_asked(factor):
    """A cell of averages cut at the end of a short window was another average."""
    noise = np.random.default_rng(0).normal(size=(1, 200, 8, 8)).astype(np.float16)
    feature = Map(noise, np.eye(4))
    for first in np.linspace(0, factor, 9):
        affine = np.diag([float(factor), 1, 1, 1])
        affine[0, 3] = first + (factor - 1) / 2
        long, short = (align(feature, Geometry((n, 8, 8), affine))[0] for n in (20, 10))
        torch.testing.assert_close(long[:, :10], short, rtol=0, atol=1e-4)


def test_axes_of_the_expert_may_be_in_any_order():
    data = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    swap = np.eye(4)[[1, 2, 0, 3]]  # the expert's axes are (y, x, z)
    feature = Map(np.ascontiguousarray(data.transpose(1, 2, 0))[None], swap)
    values, inside = align(feature, Geometry((2, 3, 4), np.eye(4)))
    np.testing.assert_allclose(values[0].numpy(), data, atol=1e-4)
    assert inside.all()


def test_outside_the_field_the_mask_says_so():
    feature = Map(np.ones((1, 4, 4, 4), np.float32), np.eye(4))
    _, inside = align(feature, Geometry((4, 4, 8), np.eye(4)))
    assert inside[:, :, :4].all()
    assert not inside[:, :, 4:].any()


def test_an_expert_that_has_not_looked_is_hallucinated():
    feature = Map(np.ones((3, 8, 8, 8), np.float32), np.eye(4))
    window = Geometry((8, 8, 8), np.eye(4))
    features = align_window([[feature], None], [{1: 0}, {1: 0}], window, [1])
    assert features.state.tolist() == [[REAL, HALLUCINATED]]
    assert features.levels[1][0].shape == (1, 3, 8, 8, 8)
    torch.testing.assert_close(features.levels[1][0], torch.ones(1, 3, 8, 8, 8))
    assert not features.masks[1][0, 1].any()
