"""Plans from strangers: nothing that they name runs, and nnU-Net's own still do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from tests.model.folders import blob
from tests.model.trained_models import ARCHITECTURES, Model, make_model_folder

from ka2er_training.cli import main
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import write_volume
from napari_ka2er.model.expert_files import open_plan
from napari_ka2er.model.experts import convert_expert

TINY = Model(patch=(8, 8, 8), features=(2, 3, 4))


def plan_with(arguments=None, settings=None, model=TINY, **architecture):
    """Return the plan of a model with some entries changed."""
    plans = model.plans
    base = plans["configurations"]["3d_base"]
    base |= settings or {}
    base["architecture"] |= architecture
    base["architecture"]["arch_kwargs"] |= arguments or {}
    return open_plan(plans, model.dataset, model.configuration)


def arm(path, made):
    """Let plans make the file `made` when their network is built."""
    plans = json.loads(path.read_text("utf-8"))
    for settings in plans["configurations"].values():
        if "architecture" in settings:
            settings["architecture"]["arch_kwargs"] |= {
                "nonlin": "subprocess.check_call",
                "nonlin_kwargs": {"args": ["touch", str(made)]},
            }
    path.write_text(json.dumps(plans))


def test_plans_of_a_model_folder_run_nothing(tmp_path):
    folder, ran = make_model_folder(tmp_path / "model", TINY), tmp_path / "ran"
    arm(folder / "plans.json", ran)
    for trust in (False, True):
        with pytest.raises(UserError, match=r"nonlin: subprocess\.check_call.*could run code"):
            convert_expert(folder, tmp_path / "expert", trust=trust)
    assert not ran.exists()
    assert not (tmp_path / "expert").exists()


def test_plans_in_a_student_s_folder_run_nothing(student_folder, tmp_path, caplog):
    student, ran = shutil.copytree(student_folder, tmp_path / "student"), tmp_path / "ran"
    arm(student / "experts" / "one" / "plans.json", ran)
    write_volume(tmp_path / "blob.nii.gz", blob())
    words = ["predict", student, tmp_path / "blob.nii.gz", "-o", tmp_path / "out"]
    assert main([*map(str, words), "--task", "one", "--mode", "full"]) == 2
    assert not ran.exists()
    assert "nonlin: subprocess.check_call" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"nonlin": "os.mkdir"},
        {"conv_op": "torch.hub.load"},
        {"norm_op": "torch.nn.modules.instancenorm.os"},
        {"dropout_op": ["os.system"]},
        {"nonlin": "torch.nn.LeakyReLU.__init__"},
        {"conv_bias": "os.system"},
        {"nonlin_kwargs": {"args": ["touch"]}},
        {"norm_op_kwargs": {"options": {"deep": 1}}},
        {"strides": [[1, 1, {"x": 1}]]},
    ],
    ids=str,
)
def test_other_parts_and_other_values_are_refused(arguments):
    with pytest.raises(UserError, match=f"{next(iter(arguments))}: .*could run code"):
        plan_with(arguments)


@pytest.mark.parametrize(
    "name", ["os.system", "torch.nn.Identity", ARCHITECTURES + "os", "unet.PlainConvUNet", ["x"]]
)
def test_other_networks_are_refused(name):
    with pytest.raises(UserError, match="U-Net"):
        plan_with(network_class_name=name)


def test_what_a_stranger_adds_to_the_imported_is_checked_too():
    for imported in (["conv_op", "norm_op", "dropout_op", "nonlin", "own"], {"own": 1}, "own"):
        with pytest.raises(UserError, match="could run code"):
            plan_with({"own": "os.system"}, _kw_requires_import=imported)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nonlin": "torch.nn.ReLU", "nonlin_kwargs": None},
        {"nonlin": "torch.nn.modules.activation.GELU", "nonlin_kwargs": {}},
        {"norm_op": "torch.nn.BatchNorm3d"},
        {"dropout_op": "torch.nn.modules.Dropout3d", "dropout_op_kwargs": {"p": 0.1}},
        {"norm_op": None, "norm_op_kwargs": None},
        {"conv_op": "torch.nn.Conv3d"},
    ],
    ids=str,
)
def test_layers_of_pytorch_are_allowed_in_each_spelling(arguments):
    assert plan_with(arguments).network() is not None


def test_residual_networks_are_allowed():
    for name in ("ResidualEncoderUNet", "ResidualUNet"):
        model = replace(TINY, architecture=name)
        assert plan_with(model=model).network() is not None
    block = "dynamic_network_architectures.building_blocks.residual.BasicBlockD"
    imported = ["conv_op", "norm_op", "dropout_op", "nonlin", "block"]
    plan = plan_with({"block": block}, model=model, _kw_requires_import=imported)
    assert plan.network() is not None


def test_old_plans_name_a_network_of_nnunet():
    plans = TINY.plans
    settings = plans["configurations"]["3d_base"]
    del settings["architecture"]
    settings["UNet_class_name"] = "subprocess.Popen"
    with pytest.raises(UserError, match=r"Unknown architecture subprocess\.Popen"):
        open_plan(plans, TINY.dataset, TINY.configuration)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preprocessor_name": "SimpleITK"}, "DefaultPreprocessor of nnU-Net"),
        ({"preprocessor_name": "subprocess.Popen"}, "DefaultPreprocessor of nnU-Net"),
        ({"normalization_schemes": ["Type"]}, "ImageNormalization of nnU-Net"),
        ({"normalization_schemes": [3]}, "plans.json"),
        ({"normalization_schemes": []}, "for 1 channels"),
        ({"use_mask_for_norm": []}, "for 1 channels"),
        ({"resampling_fn_data": "OrderedDict"}, "resampling function"),
        ({"resampling_fn_probabilities": "os.system"}, "resampling function"),
        ({"resampling_fn_data_kwargs": {"order": {"a": {}}}}, "resampling options"),
        ({"resampling_fn_data_kwargs": [3]}, "plans.json"),
        ({"patch_size": "abc"}, "patch_size .abc"),
        ({"patch_size": [8, 0, 8]}, "patch_size"),
        ({"patch_size": None}, "plans.json"),
        ({"spacing": [0, 1, 1]}, "spacing"),
        ({"spacing": "abc"}, "plans.json"),
        ({"inherits_from": "nothing"}, "nothing"),
        ({"architecture": None}, "plans.json"),
    ],
    ids=str,
)
def test_steps_and_sizes_that_are_not_nnunets_are_refused(settings, words):
    plans = TINY.plans
    plans["configurations"]["3d_base"] |= settings
    with pytest.raises(UserError, match=words) as caught:
        open_plan(plans, TINY.dataset, TINY.configuration)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"label_manager": "np"}, "LabelManager of nnU-Net"),
        ({"label_manager": 3}, "plans.json"),
        ({"transpose_forward": [0, 1, 1]}, "axes"),
        ({"transpose_backward": "abc"}, "axes"),
        ({"foreground_intensity_properties_per_channel": {}}, "of channel 0"),
        ({"configurations": []}, "plans.json"),
    ],
    ids=str,
)
def test_plans_that_only_prediction_would_trip_over_are_refused(entries, words):
    with pytest.raises(UserError, match=words):
        open_plan({**TINY.plans, **entries}, TINY.dataset, TINY.configuration)


@pytest.mark.parametrize(
    "arguments",
    [{"n_stages": 7}, {"features_per_stage": "abc"}, {"strides": [[2, 2]]}, {"new": 3}],
    ids=str,
)
def test_a_network_that_cannot_be_built_is_refused_in_one_line(arguments):
    with pytest.raises(UserError, match="U-Net") as caught:
        plan_with(arguments).network()
    assert "\n" not in str(caught.value)
