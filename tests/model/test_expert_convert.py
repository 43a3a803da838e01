from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.model.trained_models import Model, make_model_folder, noisy_volume, weights_of

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task
from napari_ka2er.model import expert_files
from napari_ka2er.model.expert_convert import Choice, read_model_folder, task_of
from napari_ka2er.model.experts import Expert, convert_expert

TINY = Model(patch=(8, 8, 8), features=(2, 3, 4))


@pytest.fixture
def model_folder(tmp_path):
    return make_model_folder(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", TINY)


def rewrite(path, change):
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data))


def test_every_tensor_is_stored_once_and_comes_back(tmp_path, model_folder):
    expert = convert_expert(model_folder, tmp_path / "expert", trust=False)
    stored = load_file(tmp_path / "expert" / "expert.safetensors")
    trained = weights_of(TINY)
    assert not [name for name in stored if name.startswith("decoder.encoder.")]
    assert len(stored) < len(trained) / 2
    assert len({tensor.data_ptr() for tensor in trained.values()}) == len(stored)
    loaded = expert.network.state_dict()
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)


def test_the_digest_stands_for_weights_plans_and_configuration(tmp_path, model_folder):
    first = convert_expert(model_folder, tmp_path / "a", trust=False).digest
    assert convert_expert(model_folder, tmp_path / "b", trust=False).digest == first
    other = make_model_folder(tmp_path / "other", TINY, weights=weights_of(TINY, seed=1))
    assert convert_expert(other, tmp_path / "c", trust=False).digest != first
    wider = make_model_folder(tmp_path / "wider", replace(TINY, spacing=(3.0, 1.0, 1.2)))
    assert convert_expert(wider, tmp_path / "d", trust=False).digest != first


def test_half_precision_halves_the_file_and_gives_another_digest(tmp_path, model_folder):
    single = convert_expert(model_folder, tmp_path / "single", trust=False)
    half = convert_expert(model_folder, tmp_path / "half", trust=False, half=True)
    stored = load_file(tmp_path / "half" / "expert.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}
    assert half.digest != single.digest
    volume = noisy_volume((10, 9, 8))
    difference = half.predict_logits(volume) - single.predict_logits(volume)
    assert 0 < np.abs(difference).max() < 0.05


def test_names_that_parallel_training_changes_are_understood(tmp_path):
    weights = {f"module._orig_mod.{name}": t for name, t in weights_of(TINY).items()}
    folder = make_model_folder(tmp_path / "model", TINY, weights=weights)
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    assert torch.equal(
        next(iter(expert.network.state_dict().values())), next(iter(weights.values()))
    )


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_runs_only_if_it_is_trusted(tmp_path):
    ran = tmp_path / "ran"
    folder = make_model_folder(tmp_path / "model", TINY, bomb=Bomb(ran))
    with pytest.raises(UserError, match=r"runs its author's code.*--trust"):
        convert_expert(folder, tmp_path / "expert", trust=False)
    assert not ran.exists()
    assert not (tmp_path / "expert").exists()
    convert_expert(folder, tmp_path / "expert", trust=True)
    assert ran.exists()


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 a broken archive", b"\x80\x02."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, model_folder, content, trust):
    (model_folder / "fold_0" / "checkpoint_final.pth").write_bytes(content)
    with pytest.raises(UserError, match="nnU-Net checkpoint"):
        convert_expert(model_folder, tmp_path / "expert", trust=trust)


def test_a_cut_checkpoint_is_refused(tmp_path, model_folder):
    path = model_folder / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(UserError, match="nnU-Net checkpoint"):
        convert_expert(model_folder, tmp_path / "expert", trust=False)


class Refusal:
    """Fails when it is unpickled."""

    def __reduce__(self):
        return int, ("many",)


def test_a_trusted_checkpoint_whose_code_fails_is_refused(tmp_path):
    folder = make_model_folder(tmp_path / "model", TINY, refusal=Refusal())
    with pytest.raises(UserError, match=r"fails with ValueError.*many") as caught:
        convert_expert(folder, tmp_path / "expert", trust=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"init_args": {}}, "init_args name the configuration"),
        ({"init_args": ["3d_fullres"]}, "init_args name the configuration"),
        ({"network_weights": None}, "tensors by name"),
        ({"network_weights": {"encoder": 3}}, "tensors by name"),
        ({"inference_allowed_mirroring_axes": 5}, "axes to mirror"),
    ],
)
def test_a_checkpoint_with_other_entries_is_refused(tmp_path, entries, words):
    folder = make_model_folder(tmp_path / "model", TINY, **entries)
    with pytest.raises(UserError, match=words):
        convert_expert(folder, tmp_path / "expert", trust=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    weights = weights_of(TINY)
    weights["decoder.seg_layers.0.bias"][0] = value
    folder = make_model_folder(tmp_path / "model", TINY, weights=weights)
    with pytest.raises(UserError, match=r"finite weights.*decoder\.seg_layers\.0\.bias"):
        convert_expert(folder, tmp_path / "expert", trust=False)
    assert not (tmp_path / "expert").exists()


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    weights = weights_of(TINY)
    weights["decoder.seg_layers.0.bias"][0] = 1e6
    folder = make_model_folder(tmp_path / "model", TINY, weights=weights)
    convert_expert(folder, tmp_path / "expert", trust=False)
    with pytest.raises(UserError, match="finite weights"):
        convert_expert(folder, tmp_path / "half", trust=False, half=True)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["front"]},
        {"labels": {"background": 0, "front": "one"}},
        {"channel_names": ["MR"]},
        {"regions_class_order": [1]},
        {"labels": {"background": 0, "front": 1, "back": 1}},
    ],
    ids=["list", "text", "list of channels", "short order", "twice"],
)
def test_a_dataset_that_cannot_be_read_is_refused(tmp_path, model_folder, change):
    rewrite(model_folder / "dataset.json", lambda data: data.update(change))
    with pytest.raises(UserError):
        convert_expert(model_folder, tmp_path / "expert", trust=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("token_centres", "abc"),
        ("token_centres", [[1, 2]]),
        ("mirroring", [7]),
        ("mirroring", 3),
        ("configuration", 3),
    ],
)
def test_a_changed_entry_of_an_expert_is_refused(tmp_path, model_folder, key, value):
    convert_expert(model_folder, tmp_path / "expert", trust=False)
    rewrite(tmp_path / "expert" / "expert.json", lambda entry: entry.update({key: value}))
    with pytest.raises(UserError, match=f"{key} in|as mirroring, in"):
        Expert.load(tmp_path / "expert")


def test_a_checkpoint_of_something_else_is_refused(tmp_path, model_folder):
    torch.save({"state_dict": {}}, model_folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match="network_weights"):
        convert_expert(model_folder, tmp_path / "expert", trust=False)


def test_the_first_of_several_folds_is_taken_and_named(tmp_path, caplog):
    folder = make_model_folder(tmp_path / "model", TINY, folds=("1", "3", "all"))
    with caplog.at_level(logging.WARNING):
        expert = convert_expert(folder, tmp_path / "expert", trust=False)
    assert "taking fold 1" in caplog.text
    assert expert.entry["fold"] == "1"
    caplog.clear()
    asked = convert_expert(folder, tmp_path / "asked", folds="all", trust=False)
    assert asked.entry["fold"] == "all"
    assert not caplog.text
    with pytest.raises(UserError, match=r"fold 2 .*got folds 1, 3, all"):
        convert_expert(folder, tmp_path / "none", folds="2", trust=False)
    with pytest.raises(UserError, match=r"checkpoint_best\.pth"):
        convert_expert(folder, tmp_path / "none", checkpoint="checkpoint_best.pth", trust=False)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"plans\.json.*<trainer>__<plans>__<configuration>"):
        convert_expert(tmp_path, tmp_path / "expert", trust=False)


def test_another_configuration_than_the_trained_one_is_refused(model_folder):
    with pytest.raises(UserError, match="3d_lowres"):
        read_model_folder(model_folder, Choice(configuration="3d_lowres"))
    assert read_model_folder(model_folder, Choice("3d_fullres")).configuration == "3d_fullres"


REFUSED = {
    "2D": (
        Model(
            configuration="2d",
            patch=(16, 16),
            spacing=(1.0, 1.0),
            strides=((1, 1), (2, 2)),
            features=(2, 3),
        ),
        "3D expert.*2d",
    ),
    "cascade": (replace(TINY, configuration="3d_cascade_fullres"), "result of 3d_lowres"),
    "channels": (replace(TINY, channels=("T1", "FLAIR")), "one channel.*T1, FLAIR"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_student_cannot_use_is_refused_with_the_reason(tmp_path, name):
    model, reason = REFUSED[name]
    folder = make_model_folder(tmp_path / "model", model, weights={})
    with pytest.raises(UserError, match=reason):
        convert_expert(folder, tmp_path / "expert", trust=False)
    assert not (tmp_path / "expert").exists()


def test_a_network_without_encoder_and_decoder_is_refused(tmp_path, model_folder):
    def change(plans):
        plans["configurations"]["3d_base"]["architecture"] = {
            "network_class_name": "torch.nn.Identity",
            "arch_kwargs": {},
            "_kw_requires_import": [],
        }

    rewrite(model_folder / "plans.json", change)
    with pytest.raises(UserError, match="U-Net"):
        convert_expert(model_folder, tmp_path / "expert", trust=False)


def test_weights_of_another_network_are_refused(tmp_path):
    weights = weights_of(replace(TINY, features=(3, 4, 5)))
    folder = make_model_folder(tmp_path / "model", TINY, weights=weights)
    with pytest.raises(UserError, match=r"weights of the network in plans\.json"):
        convert_expert(folder, tmp_path / "expert", trust=False)


def test_damaged_plans_are_refused(tmp_path, model_folder):
    rewrite(model_folder / "plans.json", lambda plans: plans.pop("transpose_forward"))
    with pytest.raises(UserError, match="transpose_forward"):
        convert_expert(model_folder, tmp_path / "expert", trust=False)
    (model_folder / "plans.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="JSON object"):
        convert_expert(model_folder, tmp_path / "expert", trust=False)


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_plans_of_nnunet_2_0_give_the_same_expert(tmp_path, architecture):
    model = replace(TINY, architecture=architecture, features=(3, 6, 12))
    new = convert_expert(make_model_folder(tmp_path / "new", model), tmp_path / "a", trust=False)
    folder = make_model_folder(tmp_path / "old", model)

    def make_old(plans):
        settings = plans["configurations"]["3d_base"]
        arguments = settings.pop("architecture")["arch_kwargs"]
        settings |= {
            "UNet_class_name": architecture,
            "UNet_base_num_features": 3,
            "unet_max_num_features": 320,
            "n_conv_per_stage_encoder": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "num_pool_per_axis": [2, 2, 2],
            "pool_op_kernel_sizes": arguments["strides"],
            "conv_kernel_sizes": arguments["kernel_sizes"],
        }
        del plans["label_manager"]

    rewrite(folder / "plans.json", make_old)
    old = convert_expert(folder, tmp_path / "b", trust=False)
    volume = noisy_volume((10, 9, 8))
    np.testing.assert_array_equal(old.predict_logits(volume), new.predict_logits(volume))


def test_the_task_comes_from_the_dataset(tmp_path, model_folder):
    task = task_of(TINY.plans, TINY.dataset)
    assert (task.name, task.modality, task.values) == ("Toy", "MR", (1, 2))
    regions = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
        "channel_names": {"0": "CT"},
    }
    task = task_of({"dataset_name": "Dataset007_Liver & co"}, regions)
    assert (task.name, task.modality) == ("Liver_co", "CT")
    assert [(label.value, label.name) for label in task.labels] == [(1, "whole"), (2, "core")]


def test_a_given_task_must_have_the_models_labels(tmp_path, model_folder):
    task = Task("mine", (Label(1, "anterior"), Label(2, "posterior")))
    assert convert_expert(model_folder, tmp_path / "a", task=task, trust=False).task == task
    other = Task("mine", (Label(1, "anterior"),))
    with pytest.raises(UserError, match="values"):
        convert_expert(model_folder, tmp_path / "b", task=other, trust=False)


def test_labels_of_other_names_are_taken_with_a_warning(tmp_path, model_folder, caplog):
    task = Task("mine", (Label(1, "front"), Label(2, "dim")))
    convert_expert(model_folder, tmp_path / "a", task=task, trust=False)
    (record,) = caplog.records
    assert (record.levelname, "back for dim" in record.getMessage()) == ("WARNING", True)
    assert "front" not in record.getMessage()
    caplog.clear()
    task = Task("mine", (Label(1, "front"), Label(2, "back")))
    convert_expert(model_folder, tmp_path / "b", task=task, trust=False)
    assert not caplog.records


def test_regions_are_converted_but_cannot_teach_a_task(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    model = replace(TINY, labels=labels, regions_class_order=(1, 2))
    folder = make_model_folder(tmp_path / "model", model)
    expert = convert_expert(folder, tmp_path / "expert", trust=False)
    with pytest.raises(UserError, match=r"labels do not overlap.*whole, core"):
        convert_expert(folder, tmp_path / "other", task=expert.task, trust=False)
    assert not (tmp_path / "other").exists()


def test_values_that_are_no_series_cannot_teach_a_task(tmp_path):
    labels = {"background": 0, "front": 1, "back": 3}
    folder = make_model_folder(tmp_path / "model", replace(TINY, labels=labels))
    task = Task("mine", (Label(1, "front"), Label(3, "back")))
    with pytest.raises(UserError, match="values 1 to 2"):
        convert_expert(folder, tmp_path / "expert", task=task, trust=False)


def test_only_an_expert_is_replaced(tmp_path, model_folder):
    out = tmp_path / "expert"
    out.mkdir()
    (out / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match="choose another"):
        convert_expert(model_folder, out, trust=False)
    assert (out / "thesis.docx").exists()
    (out / "thesis.docx").unlink()
    convert_expert(model_folder, out, trust=False)
    again = convert_expert(model_folder, out, trust=False, half=True)
    assert Expert.load(out).digest == again.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expert", model_folder.name]


def test_a_failing_disk_leaves_the_old_expert(tmp_path, model_folder, monkeypatch):
    out = tmp_path / "expert"
    first = convert_expert(model_folder, out, trust=False)

    def fail(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(expert_files, "save_file", fail)
    with pytest.raises(UserError, match="no space"):
        convert_expert(model_folder, out, trust=False, half=True)
    assert Expert.load(out).digest == first.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expert", model_folder.name]


def test_a_missing_nnunet_is_told_with_the_remedy(tmp_path, model_folder, monkeypatch):
    convert_expert(model_folder, tmp_path / "expert", trust=False)
    monkeypatch.delitem(sys.modules, "napari_ka2er.model.expert_plan")
    for name in [name for name in sys.modules if name.partition(".")[0] == "nnunetv2"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install .\.\[train\]"):
        Expert.load(tmp_path / "expert")
