"""nnU-Net planners: its own ones, and one whose networks train on a CPU."""

from __future__ import annotations

from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual,
)

TINY_PLANS = "ka2erTinyPlans"
MAX_PATCH_VOXELS = 90_000
# Feature map elements per patch voxel of the tiny network as nnU-Net counts them: 109 for a
# (40, 56, 40) patch with three poolings; the coarser stages change it by less than one.
ELEMENTS_PER_VOXEL = 109


class TinyPlanner(ExperimentPlanner):
    """Plan U-Nets of 16 to 128 features with patches of at most about 90 000 voxels.

    nnU-Net sizes the patch by an estimate of the feature maps against a reference; the reference
    is what changes here.  No low-resolution cascade is planned.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "plans_name": TINY_PLANS})
        self.UNet_base_num_features = 16
        self.UNet_max_features_3d = 128
        self.UNet_reference_val_3d = MAX_PATCH_VOXELS * ELEMENTS_PER_VOXEL
        self.lowres_creation_threshold = 0.0


PLANNERS: dict[str, type[ExperimentPlanner]] = {
    TINY_PLANS: TinyPlanner,
    "nnUNetPlans": ExperimentPlanner,
    "nnUNetResEncUNetMPlans": residual.nnUNetPlannerResEncM,
    "nnUNetResEncUNetLPlans": residual.nnUNetPlannerResEncL,
}
