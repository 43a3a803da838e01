from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from tests.model.trained_models import Model, noisy_volume

from napari_ka2er.core.volume import Volume
from napari_ka2er.model.expert_files import open_plan
from napari_ka2er.model.expert_resampling import resample_like_nnunet

CASES = {
    "coarser": ((20, 17, 23), (9, 12, 8), (1, 1, 1), (2, 1.5, 3), {}),
    "finer": ((7, 12, 9), (15, 20, 10), (2, 2, 2), (1, 1.2, 1.8), {}),
    "mixed": ((30, 12, 9), (15, 20, 9), (1, 2, 2), (2, 1.2, 2), {}),
    "slices": ((8, 30, 31), (15, 20, 22), (5, 1, 1), (2.7, 1.5, 1.4), {}),
    "slices along the last axis": ((30, 31, 8), (20, 22, 5), (1, 1, 5), (1.5, 1.4, 8), {}),
    "slices with splines": ((8, 30, 31), (15, 20, 22), (5, 1, 1), (2.7, 1.5, 1.4), {"order_z": 1}),
    "slices that stay": ((8, 30, 31), (8, 20, 22), (5, 1, 1), (5, 1.5, 1.4), {}),
    "never slices": ((8, 30, 31), (15, 20, 22), (5, 1, 1), (3, 2, 1), {"force_separate_z": False}),
    "linear": ((8, 12, 9), (15, 20, 5), (2, 2, 2), (1, 1.2, 3.6), {"order": 1}),
    "nearest": ((8, 12, 9), (15, 20, 5), (2, 2, 2), (1, 1.2, 3.6), {"order": 0}),
    "single voxels": ((1, 12, 2), (3, 7, 1), (3, 1, 1), (1, 1.7, 2), {}),
    "nothing to do": ((8, 9, 7), (8, 9, 7), (1, 1, 1), (1, 1, 1), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_images_are_resampled_as_nnunet_does(name):
    size, shape, old, new, changes = CASES[name]
    settings = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None, **changes}
    data = np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32)
    expected = resample_data_or_seg_to_shape(data.copy(), shape, old, new, **settings)
    found = resample_like_nnunet(data, shape, old, new, settings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


MODELS = {
    "zscore": Model(),
    "CT transposed": Model(transpose=(2, 0, 1), normalization="CTNormalization"),
    "anisotropic": Model(transpose=(1, 0, 2), spacing=(5.0, 1.0, 1.5)),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_working_image_is_nnunets(name, masked):
    model = MODELS[name]
    plans = model.plans
    plans["configurations"]["3d_base"]["use_mask_for_norm"] = [masked]
    plan = open_plan(plans, model.dataset, model.configuration)
    volume = noisy_volume()
    data = volume.data.copy()
    data[10:14, 8:11, 9:12] = 0  # a hole, which belongs to the body
    data[3:9, :9, :12] = 0  # a corner, which does not
    volume = Volume(data, volume.affine)
    configuration = plan.at_spacing(plan.spacing)
    expected, _ = plan.preprocess(volume, configuration)
    np.testing.assert_allclose(plan.working_image(volume, configuration), expected, atol=5e-5)


def test_an_unusual_resampling_is_left_to_nnunet():
    model = replace(Model(), spacing=(2.0, 2.0, 2.0))
    plans = model.plans
    settings = plans["configurations"]["3d_base"]
    settings["resampling_fn_data"] = "resample_torch_fornnunet"
    settings["resampling_fn_data_kwargs"] = {"is_seg": False, "force_separate_z": False}
    plan = open_plan(plans, model.dataset, model.configuration)
    configuration = plan.at_spacing(plan.spacing)
    volume = noisy_volume()
    expected, _ = plan.preprocess(volume, configuration)
    np.testing.assert_array_equal(plan.working_image(volume, configuration), expected)
