from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tests.model.trained_models import Model, weights_of

from napari_ka2er.model.expert_features import decode, total_strides
from napari_ka2er.model.expert_files import open_plan
from napari_ka2er.model.expert_probe import (
    _SMOOTHNESS,
    _fixed_statistics,
    _smooth_field,
    token_centres,
    trained_centres,
)

PATCH = (24, 32, 24)
TOTAL = ((1, 1, 1), (1, 2, 2), (2, 4, 2))


def network_of(architecture: str, *, linear: bool = False) -> torch.nn.Module:
    model = Model(architecture=architecture, patch=PATCH, strides=((1, 1, 1), (1, 2, 2), (2, 2, 1)))
    network = open_plan(model.plans, model.dataset, model.configuration).network()
    network.load_state_dict(weights_of(model))
    for layer in network.modules():
        if linear and isinstance(layer, torch.nn.LeakyReLU):
            layer.negative_slope = 1.0
    assert total_strides(network) == TOTAL
    return network


def by_backpropagation(network: torch.nn.Module, stage: int) -> np.ndarray:
    """Return a stage's centre from gradients of single tokens, which needs no estimator."""
    generator = torch.Generator().manual_seed(5)
    image = _smooth_field((1, 1, *PATCH), generator).requires_grad_()
    stride = TOTAL[stage]
    moments = np.zeros(4)
    with _fixed_statistics(network):
        features = decode(network, image)[stage]
        deviation = features.detach().std(dim=(0, 2, 3, 4))
        period = [
            t // s for t, s in zip(TOTAL[-1], stride, strict=True)
        ]  # a decoder's tokens differ
        middle = [n // 2 for n in features.shape[2:]]
        for shift, channel in product(np.ndindex(*period), range(features.shape[1])):
            token = np.add(middle, shift)
            value = features[(0, channel, *token)] / deviation[channel]
            (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
            seen = gradient[0, 0].double().numpy()
            energy = seen * gaussian_filter(seen, np.sqrt(2) * _SMOOTHNESS, mode="constant")
            away = np.indices(PATCH) - np.multiply(stride, token)[:, None, None, None]
            moments += [energy.sum(), *(energy * away).sum(axis=(1, 2, 3))]
    return moments[1:] / moments[0]


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_centres_are_those_of_backpropagation(architecture):
    network = network_of(architecture, linear=True)
    centres = token_centres(network, PATCH, TOTAL, n_draws=24)
    exact = [by_backpropagation(network, stage) for stage in range(3)]
    assert np.abs(exact).max() > 0.3
    np.testing.assert_allclose(centres, exact, atol=0.25)


def test_encoders_look_where_their_construction_says():
    """A strided convolution of 3 looks at voxel s·i; a residual block also averages s voxels."""
    plain, residual = (network_of(name) for name in ("PlainConvUNet", "ResidualEncoderUNet"))
    for network in (plain, residual):
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv3d):
                layer.weight.fill_(1.0)  # symmetric, so that only the strides count
    np.testing.assert_allclose(token_centres(plain, PATCH, TOTAL)[-1], 0, atol=0.1)
    centre = token_centres(residual, PATCH, TOTAL)[-1]
    assert all(0.15 < c / ((s - 1) / 2) < 0.85 for c, s in zip(centre, TOTAL[-1], strict=True))


def test_the_same_network_always_gets_the_same_centres_and_keeps_its_normalisation():
    network = network_of("PlainConvUNet")
    image = torch.randn(1, 1, *PATCH)
    before = network(image)
    assert token_centres(network, PATCH, TOTAL) == token_centres(network, PATCH, TOTAL)
    assert torch.equal(network(image), before)


def test_a_trained_decoder_is_about_the_voxels_whose_labels_nnunet_teaches_it():
    """nnU-Net's own shrinking of a label map that holds each voxel's index along an axis."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
        DownsampleSegForDSTransform,
    )

    strides = [(1, 1, 1), (1, 2, 2), (2, 4, 6)]
    shrink = DownsampleSegForDSTransform([[1 / s for s in row] for row in strides])
    probed = [(0.0, 0.0, 0.0)] * 4
    centres = trained_centres(probed, [*strides, (4, 8, 12)])
    for axis in range(3):
        index = np.indices((24, 24, 24))[axis]
        shrunk = shrink(segmentation=torch.from_numpy(index)[None].float())["segmentation"]
        for taught, stride, centre in zip(shrunk, strides, centres, strict=False):
            tokens = np.moveaxis(taught[0].numpy(), axis, 0)[:, 0, 0]
            np.testing.assert_array_equal(
                tokens, centre[axis] + stride[axis] * np.arange(len(tokens))
            )


def test_without_deep_supervision_a_token_is_about_the_middle_of_its_voxels():
    strides = [(1, 1, 1), (1, 2, 4), (2, 4, 8)]
    probed = [(9.0, 9.0, 9.0)] * 2 + [(-1.0, 2.5, 99.0)]
    centres = trained_centres(probed, strides, is_deeply_supervised=False)
    assert centres == ((0, 0, 0), (0, 0.5, 1.5), (0, 2.5, 7))
