"""Folders as nnU-Net's training leaves them, with random weights, for the tests."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ka2er.core.volume import Volume
from napari_ka2er.model.expert_files import open_plan

if TYPE_CHECKING:
    from pathlib import Path

# nnU-Net reads it when it is imported; its default of 8 threads stalls on a machine with two cores.
os.environ.setdefault("nnUNet_def_n_proc", "1")

LABELS = {"background": 0, "front": 1, "back": 2}
CT = {"mean": 40.0, "std": 90.0, "percentile_00_5": -800.0, "percentile_99_5": 250.0}
ARCHITECTURES = "dynamic_network_architectures.architectures.unet."


@dataclass(frozen=True)
class Model:
    """What to put into a model folder; axes of patch, spacing and strides are the expert's own."""

    architecture: str = "PlainConvUNet"
    configuration: str = "3d_fullres"
    patch: tuple[int, ...] = (32, 24, 16)
    spacing: tuple[float, ...] = (1.5, 1.0, 1.2)
    transpose: tuple[int, ...] = (0, 1, 2)
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    features: tuple[int, ...] = (4, 6, 8)
    normalization: str = "ZScoreNormalization"
    channels: tuple[str, ...] = ("MR",)
    labels: dict[str, Any] = field(default_factory=lambda: dict(LABELS))
    regions_class_order: tuple[int, ...] | None = None

    @property
    def dataset(self) -> dict[str, Any]:
        """Content of dataset.json."""
        order = self.regions_class_order
        return {
            "channel_names": {str(i): name for i, name in enumerate(self.channels)},
            "labels": self.labels,
            "numTraining": 2,
            "file_ending": ".nii.gz",
            **({} if order is None else {"regions_class_order": list(order)}),
        }

    @property
    def plans(self) -> dict[str, Any]:
        """Content of plans.json."""
        properties = {"max": 300.0, "min": -900.0, "median": 40.0, **CT}
        return {
            "dataset_name": "Dataset901_Toy",
            "plans_name": "nnUNetPlans",
            "original_median_spacing_after_transp": list(self.spacing),
            "original_median_shape_after_transp": list(self.patch),
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": list(self.transpose),
            "transpose_backward": [int(i) for i in np.argsort(self.transpose)],
            "configurations": {
                "3d_base": self._settings(),
                self.configuration: {"inherits_from": "3d_base", **self._stage()},
            },
            "experiment_planner_used": "ExperimentPlanner",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                str(i): properties for i in range(len(self.channels))
            },
        }

    def _stage(self) -> dict[str, Any]:
        if self.configuration == "3d_lowres":
            return {"next_stage": "3d_cascade_fullres"}
        if self.configuration == "3d_cascade_fullres":
            return {"previous_stage": "3d_lowres"}
        return {}

    def _settings(self) -> dict[str, Any]:
        resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
        return {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": list(self.patch),
            "median_image_size_in_voxels": list(self.patch),
            "spacing": list(self.spacing),
            "normalization_schemes": [self.normalization] * len(self.channels),
            "use_mask_for_norm": [False] * len(self.channels),
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling,
            "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
            "architecture": self._architecture(),
            "batch_dice": True,
        }

    def _architecture(self) -> dict[str, Any]:
        n_stages, n_axes = len(self.strides), len(self.patch)
        depth = "n_conv_per_stage" if self.architecture == "PlainConvUNet" else "n_blocks_per_stage"
        kernels = [
            [1 if s == 1 and i > 0 else 3 for s in row] for i, row in enumerate(self.strides)
        ]
        return {
            "network_class_name": ARCHITECTURES + self.architecture,
            "arch_kwargs": {
                "n_stages": n_stages,
                "features_per_stage": list(self.features),
                "conv_op": f"torch.nn.modules.conv.Conv{n_axes}d",
                "kernel_sizes": kernels,
                "strides": [list(row) for row in self.strides],
                depth: [1] * n_stages,
                "n_conv_per_stage_decoder": [1] * (n_stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n_axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }


def weights_of(model: Model, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state dict as the trainer saves it, with its doubled entries."""
    torch.manual_seed(seed)
    network = open_plan(model.plans, model.dataset, model.configuration).network()
    for parameter in network.parameters():
        if parameter.ndim == 1:  # norms and biases that do something
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return network.state_dict()


def make_model_folder(
    folder: Path,
    model: Model,
    *,
    folds: tuple[str, ...] = ("0",),
    weights: dict[str, torch.Tensor] | None = None,
    **extra: object,
) -> Path:
    """Write plans.json, dataset.json and a checkpoint per fold, with `extra` entries in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(model.plans))
    (folder / "dataset.json").write_text(json.dumps(model.dataset))
    checkpoint = {
        "network_weights": weights_of(model) if weights is None else weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": model.configuration, "device": torch.device("cpu")},
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)], "lrs": [np.int64(1)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        **extra,
    }
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def noisy_volume(
    shape: tuple[int, int, int] = (40, 35, 30),
    spacing: tuple[float, float, float] = (1.3, 1.1, 0.9),
    seed: int = 0,
) -> Volume:
    """Return a smooth random image in CT numbers, zero at some borders, in a rotated lattice."""
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    data = 500 * gaussian_filter(generator.normal(size=shape), 1.5) + 20
    data[:3], data[:, -4:], data[:, :, :1] = 0, 0, 0
    return Volume(data.astype(np.float32), rotated(spacing))


def rotated(spacing: tuple[float, float, float]) -> np.ndarray:
    """Return an affine with a mixed, flipped and rotated axis order."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    turn = Rotation.from_euler("zyx", (12, -20, 8), degrees=True).as_matrix()
    permuted = turn[:, [1, 2, 0]] * (1, -1, 1)
    affine[:3, :3] = permuted * spacing
    affine[:3, 3] = (-31.0, 12.5, 80.0)
    return affine
