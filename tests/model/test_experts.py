from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.model.trained_models import Model, make_model_folder, noisy_volume

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.experts import Expert, convert_expert

ANISOTROPIC = Model(
    spacing=(4.0, 1.0, 1.1),
    transpose=(2, 0, 1),
    patch=(12, 32, 24),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
)
MODELS = {
    "plain fullres zscore": Model(),
    "residual fullres CT transposed": replace(
        ANISOTROPIC, architecture="ResidualEncoderUNet", normalization="CTNormalization"
    ),
    "plain fullres zscore transposed": ANISOTROPIC,
    "residual lowres zscore": Model(
        architecture="ResidualEncoderUNet", configuration="3d_lowres", spacing=(2.5, 2.0, 2.2)
    ),
    "plain lowres regions": Model(
        configuration="3d_lowres",
        spacing=(2.5, 2.0, 2.2),
        labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        regions_class_order=(1, 2),
    ),
}


def nnunet(folder, *, mirroring=False):
    """nnU-Net's own predictor of a model folder."""
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), perform_everything_on_device=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=("0",))
    return predictor


def nnunet_result(folder, volume, *, mirroring=False):
    """Labels and probabilities on the volume's grid by nnU-Net's own predictor."""
    predictor = nnunet(folder, mirroring=mirroring)
    properties = {"spacing": list(volume.spacing)}
    labels, probabilities = predictor.predict_single_npy_array(
        volume.channels.astype(np.float32), properties, None, None, True
    )
    return labels, probabilities


def nnunet_logits(folder, volume):
    """nnU-Net's logits in the box that it does not crop, along the volume's axes, and that box."""
    predictor = nnunet(folder)
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
        volume.channels, None, {"spacing": volume.spacing}, plans, configuration,
        predictor.dataset_json,
    )  # fmt: skip
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    logits = configuration.resampling_fn_probabilities(
        logits,
        properties["shape_after_cropping_and_before_resampling"],
        configuration.spacing,
        [volume.spacing[axis] for axis in plans.transpose_forward],
    )
    back = plans.transpose_backward
    box = tuple(slice(*properties["bbox_used_for_cropping"][axis]) for axis in back)
    return np.asarray(logits, np.float32).transpose(0, *(1 + axis for axis in back)), box


@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_those_of_nnunet(tmp_path, name):
    volume = noisy_volume((24, 40, 9), (1.2, 0.8, 4.4)) if "transposed" in name else noisy_volume()
    folder = make_model_folder(tmp_path / "model", MODELS[name])
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    labels, probabilities = nnunet_result(folder, volume)
    logits = torch.from_numpy(expert.predict_logits(volume).copy())
    expected, box = nnunet_logits(folder, volume)
    assert expected.shape[1:] != volume.shape  # something is cropped
    np.testing.assert_allclose(logits[:, *box].numpy(), expected, atol=1e-4)
    ours = logits.sigmoid() if "regions" in name else logits.softmax(dim=0)
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(expert.predict(volume), labels)
    np.testing.assert_allclose(ours.numpy(), probabilities, atol=1e-4)


def test_logits_are_those_of_nnunet_before_its_softmax(tmp_path):
    volume = noisy_volume()
    data = np.where(volume.data == 0, 1.0, volume.data).astype(np.float32)  # nothing is cropped
    volume = Volume(data, np.diag([1.5, 1.0, 1.2, 1.0]))  # nor resampled
    folder = make_model_folder(tmp_path / "model", Model())
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=("0",))
    normal = (data - data.mean()) / data.std()
    theirs = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(normal)[None])
    np.testing.assert_allclose(expert.predict_logits(volume), theirs.float().numpy(), atol=1e-4)


def test_mirrored_predictions_are_those_of_nnunet(tmp_path):
    volume = noisy_volume((30, 20, 18))
    folder = make_model_folder(tmp_path / "model", Model())
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    labels, _ = nnunet_result(folder, volume, mirroring=True)
    np.testing.assert_array_equal(expert.predict(volume, mirroring=True), labels)
    assert (expert.predict(volume) != labels).any()


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Expert:
    folder = make_model_folder(tmp_path_factory.mktemp("models") / "model", Model())
    return convert_expert(folder, folder.parent / "expert", trust=False)


def test_progress_ends_at_one_and_the_label_map_is_small(expert):
    told = []
    labels = expert.predict(noisy_volume(), progress=lambda share, what: told.append((share, what)))
    assert labels.dtype == np.uint8
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    assert told[-1] == (1.0, f"window {len(told)} of {len(told)}")
    assert len(told) > 1


def test_a_stopped_prediction_leaves_no_thread_waiting(expert):
    before = threading.active_count()
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(CancelledError):
        expert.predict(noisy_volume(), cancelled=stop)
    assert threading.active_count() == before


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (70, 4, 4)])
def test_volumes_much_smaller_than_the_patch_are_predicted(expert, shape):
    volume = Volume(np.random.default_rng(0).normal(size=shape), np.diag([1.5, 1.0, 1.2, 1]))
    assert expert.predict(volume).shape == shape


def test_an_empty_volume_is_predicted(expert):
    assert expert.predict(Volume(np.zeros((9, 8, 7), np.int16), np.eye(4))).shape == (9, 8, 7)


def test_a_missing_value_spoils_nothing_else(expert):
    volume = noisy_volume()
    spoilt = volume.data.copy()
    spoilt[10, 10, 10] = np.nan
    clean = np.where(np.isnan(spoilt), np.nanmin(spoilt), spoilt)
    np.testing.assert_array_equal(
        expert.predict(Volume(spoilt, volume.affine)), expert.predict(Volume(clean, volume.affine))
    )
    with pytest.raises(UserError, match="without a finite one"):
        expert.predict(Volume(np.full((4, 4, 4), np.nan), np.eye(4)))


def test_the_number_of_channels_must_fit(expert):
    volume = Volume(np.zeros((2, 4, 4, 4)), np.eye(4), channel_names=("T1", "T2"))
    with pytest.raises(UserError, match="one channel"):
        expert.predict(volume)
    with pytest.raises(UserError, match="one channel"):
        expert.look(volume, (1.0, 1.0, 1.0))


def test_an_expert_tells_what_it_is(expert):
    assert expert.task.name == "Toy"
    assert [(label.value, label.name) for label in expert.task.labels] == [
        (1, "front"),
        (2, "back"),
    ]
    assert expert.spacing_mm == (1.5, 1.0, 1.2)
    assert expert.patch_size == (32, 24, 16)
    assert expert.strides == ((1, 1, 1), (2, 2, 2), (4, 4, 4))
    assert expert.stage_channels == (4, 6, 8)
    assert expert.n_channels_in == 1


def test_spacing_is_told_along_the_volumes_axes(tmp_path):
    folder = make_model_folder(tmp_path / "model", ANISOTROPIC)
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    assert expert.spacing_mm == (1.0, 1.1, 4.0)  # the expert's first axis is the volume's last


def test_an_expert_whose_files_were_changed_is_refused(tmp_path, expert):
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "copy"
    shutil.copytree(expert.folder, copy)
    assert Expert.load(copy).digest == expert.digest
    weights = load_file(copy / "expert.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, copy / "expert.safetensors")
    with pytest.raises(UserError, match="changed"):
        Expert.load(copy)
    (copy / "expert.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="weights"):
        Expert.load(copy)


def test_a_folder_without_an_expert_is_refused(tmp_path):
    with pytest.raises(UserError, match="ka2er expert add"):
        Expert.load(tmp_path)


def test_after_a_move_features_and_logits_come_from_the_same_tensors(tmp_path):
    folder = make_model_folder(tmp_path / "model", Model())
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    expert.network.register_buffer("statistics", torch.ones(3))
    expert.network.double()  # as a move between devices does, it replaces buffers
    expert.move(torch.device("cpu"))
    assert {t.dtype for t in expert.looking.buffers()} == {torch.float64}
    for ours, theirs in zip(expert.looking.buffers(), expert.network.buffers(), strict=True):
        assert ours is theirs
