"""Whole students on disk, with real (untrained) experts, for the tests."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.checkpoint import save_student
from napari_ka2er.model.config import ExpertEntry, StudentConfig, TaskEntry
from napari_ka2er.model.experts import Expert, convert_expert
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = (32, 64, 32)
N_FEATURES = (4, 6, 8, 10)
STAGES = {16: 3, 8: 3, 4: 2, 2: 1, 1: 0}
TASKS = (
    Task("one", (Label(1, "a"), Label(2, "b"))),
    Task("two", (Label(1, "c"),)),
)


def expert_plans(name: str, patch: tuple[int, int, int] = (32, 32, 32)) -> dict:
    """Return nnU-Net plans of a small PlainConvUNet at 2 mm."""
    n_stages = len(N_FEATURES)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "spacing": [2.0, 2.0, 2.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": n_stages,
                "features_per_stage": list(N_FEATURES),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * n_stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (n_stages - 1),
                "n_conv_per_stage": [1] * n_stages,
                "n_conv_per_stage_decoder": [1] * (n_stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": f"Dataset001_{name}",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 2.0, 2.0],
        "original_median_shape_after_transp": [40, 40, 40],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": dict.fromkeys(
                ["max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"], 1.0
            )
        },
    }


def make_expert(folder: Path, task: Task, seed: int) -> Expert:
    """Write and load an untrained expert, by way of a folder as nnU-Net writes it."""
    dataset = {
        "channel_names": {"0": task.modality},
        "labels": {"background": 0, **{label.name: label.value for label in task.labels}},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    plans = expert_plans(task.name)
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    torch.manual_seed(seed)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(task.labels) + 1,
        deep_supervision=False,
    )
    checkpoint = {
        "network_weights": network.state_dict(),
        "init_args": {"configuration": "3d_fullres"},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    source = folder.with_name(f"{folder.name}-nnunet")
    (source / "fold_0").mkdir(parents=True)
    torch.save(checkpoint, source / "fold_0" / "checkpoint_final.pth")
    (source / "plans.json").write_text(json.dumps(plans))
    (source / "dataset.json").write_text(json.dumps(dataset))
    return convert_expert(source, folder, trust=False)


def make_student_folder(folder: Path, **changes: object) -> Path:
    """Write an untrained student of two tasks on two grids whose amalgamation is awake."""
    tasks = (
        TaskEntry(TASKS[0], (2.0, 2.0, 2.0), WINDOW),
        TaskEntry(TASKS[1], (4.0, 4.0, 4.0), WINDOW),
    )
    sources = {task.name: folder.parent / f"expert-{task.name}" for task in TASKS}
    experts = []
    for seed, task in enumerate(TASKS):
        expert = make_expert(sources[task.name], task, seed)
        channels = {stride: expert.stage_channels[stage] for stride, stage in STAGES.items()}
        experts.append(ExpertEntry(task.name, expert.digest, STAGES, channels))
    config = StudentConfig(tasks, tuple(experts), width=24, heads=2, dense_width=8, merge_width=6)
    config = replace(config, **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    student = Student(config).eval()
    for level in [*student.coarse.values(), *student.fine.values()]:
        torch.nn.init.normal_(level.out.weight, std=0.3)
    save_student(folder, student, {"version": "v0001"}, experts=sources)
    return folder


def blob(shape: tuple[int, int, int] = (30, 50, 28), spacing: float = 3.0) -> Volume:
    """Return a rotated, flipped volume with a bright ellipsoid in noise."""
    generator = np.random.default_rng(3)
    grids = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    inside = sum(g**2 for g in grids) < 0.3
    data = (inside * 4 + generator.normal(size=shape)).astype(np.float32)
    turn = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([spacing, -spacing * 0.7, spacing * 0.9])
    affine[:3, 3] = 20, 40, -10
    return Volume(data, affine, name="blob")
