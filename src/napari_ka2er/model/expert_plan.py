"""What nnU-Net planned for an expert: network, preprocessing and the way back to the volume.

Imports nnunetv2, an optional dependency; `napari_ka2er.model.expert_files.open_plan` says what to
install where it is missing.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.expert_allowed import UNET, check_network, check_steps
from napari_ka2er.model.expert_image import finite, nonzero_box
from napari_ka2er.model.expert_resampling import resample_like_nnunet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_ka2er.core.volume import Volume

    Triple = tuple[float, float, float]

# Logit outside nnU-Net's crop: far enough for a softmax or sigmoid of exactly 0 or 1 in float32.
_CERTAIN = 120.0
# What nnU-Net raises where plans hold something else than it wrote.
_UNREADABLE = (
    *(LookupError, TypeError, ValueError, ArithmeticError),
    *(AttributeError, RuntimeError, AssertionError),
)


def _whole(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(n, int | float) for n in values):
        raise ValueError(f"{name} {values!r}")
    return tuple(int(n) for n in values)


class Plan:
    """What nnU-Net planned for one configuration of a dataset.

    Parameters
    ----------
    plans, dataset : dict
        Contents of ``plans.json`` and ``dataset.json``; nnU-Net 2.0 and 2.1 wrote the architecture
        differently, which is understood too.
    name : str
        The configuration, such as ``"3d_fullres"``.

    Raises
    ------
    UserError
        If the plans cannot be read or name something else than nnU-Net's own parts (see
        `napari_ka2er.model.expert_allowed`), or the configuration is 2D or the second half of a
        cascade.
    """

    def __init__(self, plans: dict[str, Any], dataset: dict[str, Any], name: str) -> None:
        self.dataset = dataset
        self.name = name
        try:
            self.manager = PlansManager({"label_manager": "LabelManager", **deepcopy(plans)})
            with warnings.catch_warnings():  # about old plans, which nnU-Net converts well
                warnings.simplefilter("ignore")
                self.configuration = self.manager.get_configuration(name)
            check_network(self.configuration.configuration["architecture"])
            check_steps(self.manager, self.configuration)
            self.labels = self.manager.get_label_manager(dataset)
            n = determine_num_input_channels(self.manager, self.configuration, dataset)
            self.n_channels = int(n)
            self.transpose = _whole("transpose_forward", self.manager.transpose_forward)
            self.patch_size = _whole("patch_size", self.configuration.patch_size)
            self._refuse_what_has_no_volume_features()
            self._check_numbers()
        except UserError:
            raise
        except _UNREADABLE as error:
            wanted = f"plans.json and dataset.json of nnU-Net v2 with configuration {name}"
            raise UserError(wanted, f"{type(error).__name__}: {error}") from error

    def _refuse_what_has_no_volume_features(self) -> None:
        if len(self.patch_size) != 3:
            remedy = "take 3d_fullres or 3d_lowres: slices have no features along the third axis"
            raise UserError("a 3D expert", f"the 2D configuration {self.name}", remedy)
        before = self.configuration.previous_stage_name
        if before is not None:
            got = f"{self.name}, which also needs the result of {before}"
            raise UserError("an expert that needs only the image", got, "take 3d_fullres")

    def _check_numbers(self) -> None:
        """Refuse numbers that only prediction would trip over."""
        settings, spacing = self.configuration, [float(s) for s in self.configuration.spacing]
        if min(self.patch_size) < 1 or not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ValueError(f"patch_size {self.patch_size} and spacing {spacing}")
        for order in (self.transpose, self.manager.transpose_backward):
            if sorted(order) != [0, 1, 2] or len(spacing) != 3:
                raise ValueError(f"axes {order} with spacing {spacing}")
        for each in (settings.normalization_schemes, settings.use_mask_for_norm):
            if len(each) != self.n_channels:
                raise ValueError(f"{each} for {self.n_channels} channels")
        known = self.manager.foreground_intensity_properties_per_channel
        if missing := {str(n) for n in range(self.n_channels)} - set(known):
            raise ValueError(f"no foreground_intensity_properties of channel {min(missing)}")

    def check_for_student(self) -> None:
        """Refuse, with the reason, what a student with one channel cannot use."""
        if self.n_channels != 1:
            names = self.dataset.get("channel_names") or self.dataset.get("modality") or {}
            wanted = "an expert for images with one channel, as the student takes them"
            got = f"one for {self.n_channels}: {', '.join(str(name) for name in names.values())}"
            raise UserError(wanted, got, "train one on the channel that will be segmented")

    @property
    def spacing(self) -> Triple:
        """Planned spacing in mm along the volume's axes (Z, Y, X)."""
        planned = np.empty(3)
        planned[list(self.transpose)] = self.configuration.spacing
        z, y, x = (float(s) for s in planned)
        return z, y, x

    def network(self) -> nn.Module:
        """Build the network in evaluation mode, frozen; its weights are not set.

        Raises
        ------
        UserError
            If it is not a U-Net of dynamic-network-architectures.
        """
        configuration = self.configuration
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it announces where it looks
                network: nn.Module = get_network_from_plans(
                    configuration.network_arch_class_name,
                    configuration.network_arch_init_kwargs,
                    configuration.network_arch_init_kwargs_req_import,
                    self.n_channels,
                    self.labels.num_segmentation_heads,
                    allow_init=False,
                    deep_supervision=False,
                )
        except (ImportError, *_UNREADABLE) as error:
            raise UserError(UNET, f"{type(error).__name__}: {error}") from error
        names = {name for name, _ in network.named_modules()}
        if not names >= {"encoder.stages", "decoder.transpconvs", "decoder.stages"}:
            raise UserError(UNET, configuration.network_arch_class_name)
        return network.eval().requires_grad_(False)

    def at_spacing(self, spacing: Sequence[float]) -> ConfigurationManager:
        """Return a copy of the configuration that works at another spacing (Z, Y, X) in mm."""
        changed = deepcopy(self.configuration.configuration)
        changed["spacing"] = [float(spacing[axis]) for axis in self.transpose]
        # The preprocessor would resample its non-zero mask too, although nobody reads the result.
        changed["resampling_fn_seg"] = "no_resampling_hack"
        changed["resampling_fn_seg_kwargs"] = {}
        return ConfigurationManager(changed)

    def working_shape(
        self, size: Sequence[int], old: Sequence[float], new: Sequence[float]
    ) -> tuple[int, ...]:
        """Return the size after resampling from one spacing to another; axes in any one order."""
        return tuple(int(n) for n in compute_new_shape(tuple(size), tuple(old), tuple(new)))

    def preprocess(
        self, volume: Volume, configuration: ConfigurationManager
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the whole volume as the network wants it, and nnU-Net's notes on the crop.

        Returns
        -------
        data : ndarray of float32, shape (C, z, y, x)
            In the expert's axis order and spacing.
        properties : dict
            For `native_logits`.
        """
        properties: dict[str, Any] = {"spacing": list(volume.spacing)}
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            finite(volume), None, properties, self.manager, configuration, self.dataset
        )
        return np.asarray(data, dtype=np.float32), properties

    def working_image(
        self, volume: Volume, configuration: ConfigurationManager
    ) -> NDArray[np.float32]:
        """Return the first result of `preprocess`, in less memory and time where that is possible.

        nnU-Net's default resampling holds several float64 copies of the whole volume.
        """
        preprocessor = configuration.preprocessor_class(verbose=False)
        settings = configuration.configuration
        usual = settings["resampling_fn_data"] == "resample_data_or_seg_to_shape"
        if type(preprocessor) is not DefaultPreprocessor or not usual:
            return self.preprocess(volume, configuration)[0]
        order = self.transpose
        data = finite(volume)
        box = nonzero_box(data)
        cropped = data[(slice(None), *(slice(*ends) for ends in box))].astype(np.float32)
        cropped = cropped.transpose(0, *(1 + axis for axis in order))
        outside = np.broadcast_to(np.int8(0), (1, *cropped.shape[1:]))
        if any(configuration.use_mask_for_norm):
            _, outside, _ = crop_to_nonzero(cropped)
        properties = self.manager.foreground_intensity_properties_per_channel
        cropped = preprocessor._normalize(cropped, outside, configuration, properties)
        old = [volume.spacing[axis] for axis in order]
        shape = self.working_shape(cropped.shape[1:], old, configuration.spacing)
        options = settings["resampling_fn_data_kwargs"]
        return resample_like_nnunet(cropped, shape, old, configuration.spacing, options)

    def native_logits(
        self, logits: Tensor, configuration: ConfigurationManager, properties: dict[str, Any]
    ) -> NDArray[np.float32]:
        """Return logits on the volume's grid (n, Z, Y, X), certain background outside the crop."""
        resampled = configuration.resampling_fn_probabilities(
            logits,
            properties["shape_after_cropping_and_before_resampling"],
            configuration.spacing,
            [properties["spacing"][axis] for axis in self.transpose],
        )
        shape = (len(resampled), *properties["shape_before_cropping"])
        native = np.full(shape, -_CERTAIN, dtype=np.float32)
        if not self.labels.has_regions:
            native[0] = _CERTAIN
        inside = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
        native[(slice(None), *inside)] = np.asarray(resampled, dtype=np.float32)
        return native.transpose(0, *(1 + axis for axis in self.manager.transpose_backward))

    def labels_of(self, logits: NDArray[np.float32]) -> NDArray[Any]:
        """Return nnU-Net's label map for logits (n, Z, Y, X)."""
        return np.asarray(self.labels.convert_logits_to_segmentation(logits))
