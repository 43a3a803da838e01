"""nnU-Net's own plans, preprocessing and sliding window for one expert.

The only module of the package that imports nnunetv2, which is an optional dependency; import it
through `napari_ka2er.model.experts`, which says what to install where it is missing.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from napari_ka2er.core.errors import CancelledError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_ka2er.core.volume import Volume

# Logit outside nnU-Net's crop: far enough for a softmax or sigmoid of exactly 0 or 1 in float32.
_CERTAIN = 120.0


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
        If the plans cannot be read, or the configuration is 2D or the second half of a cascade.
    """

    def __init__(self, plans: dict[str, Any], dataset: dict[str, Any], name: str) -> None:
        self.dataset = dataset
        self.name = name
        try:
            self.manager = PlansManager({"label_manager": "LabelManager", **deepcopy(plans)})
            with warnings.catch_warnings():  # about old plans, which nnU-Net converts well
                warnings.simplefilter("ignore")
                self.configuration = self.manager.get_configuration(name)
            self.labels = self.manager.get_label_manager(dataset)
            self.n_channels = int(
                determine_num_input_channels(self.manager, self.configuration, dataset)
            )
            self.transpose = tuple(int(axis) for axis in self.manager.transpose_forward)
            self.patch_size = tuple(int(n) for n in self.configuration.patch_size)
        except (KeyError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
            raise UserError(
                f"plans.json and dataset.json of nnU-Net v2 with configuration {name}", f"{error}"
            ) from error
        self._refuse_what_has_no_volume_features()

    def _refuse_what_has_no_volume_features(self) -> None:
        if len(self.patch_size) != 3:
            raise UserError(
                "a 3D expert",
                f"the 2D configuration {self.name}",
                "train 3d_fullres or 3d_lowres: slices have no features along the third axis",
            )
        if self.configuration.previous_stage_name is not None:
            raise UserError(
                "an expert that needs only the image",
                f"{self.name}, which also needs the result of {self.configuration.previous_stage_name}",
                "take 3d_lowres or 3d_fullres",
            )

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Planned spacing in mm along the volume's axes (Z, Y, X)."""
        planned = np.empty(3)
        planned[list(self.transpose)] = self.configuration.spacing
        z, y, x = (float(s) for s in planned)
        return z, y, x

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the image's channels."""
        names = self.dataset.get("channel_names") or self.dataset.get("modality") or {}
        return tuple(str(name) for name in names.values())

    def network(self) -> nn.Module:
        """Build the network, weights not set, in evaluation mode and frozen.

        Raises
        ------
        UserError
            If it is not a U-Net of dynamic-network-architectures.
        """
        configuration = self.configuration
        network: nn.Module = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            self.n_channels,
            self.labels.num_segmentation_heads,
            allow_init=False,
            deep_supervision=False,
        )
        parts = ("encoder", "decoder.transpconvs", "decoder.stages")
        names = {name for name, _ in network.named_modules()}
        if not all(part in names for part in parts):
            raise UserError(
                "a U-Net with encoder and decoder", configuration.network_arch_class_name
            )
        return network.eval().requires_grad_(False)

    def at_spacing(self, spacing: Sequence[float]) -> ConfigurationManager:
        """Return a copy of the configuration that works at another spacing (Z, Y, X) in mm."""
        changed = deepcopy(self.configuration.configuration)
        changed["spacing"] = [float(spacing[axis]) for axis in self.transpose]
        # The preprocessor resamples its non-zero mask too, although nobody reads the result.
        changed["resampling_fn_seg"] = "no_resampling_hack"
        changed["resampling_fn_seg_kwargs"] = {}
        return ConfigurationManager(changed)

    def working_shape(
        self, shape: Sequence[int], old: Sequence[float], new: Sequence[float]
    ) -> NDArray[np.int_]:
        """Return the size after resampling; all arguments along the volume's axes."""
        result: NDArray[np.int_] = compute_new_shape(tuple(shape), tuple(old), tuple(new))
        return result

    def preprocess(
        self, volume: Volume, configuration: ConfigurationManager
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the whole volume as the network wants it, and nnU-Net's notes on the crop.

        Returns
        -------
        data : ndarray of float32, shape (C, z, y, x)
            In the expert's axis order and spacing.
        properties : dict
            For putting logits back on the volume.
        """
        properties: dict[str, Any] = {"spacing": list(volume.spacing)}
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            finite(volume), None, properties, self.manager, configuration, self.dataset
        )
        return np.asarray(data, dtype=np.float32), properties

    def native_logits(
        self, logits: Tensor, configuration: ConfigurationManager, properties: dict[str, Any]
    ) -> NDArray[np.float32]:
        """Return logits on the volume's grid (n, Z, Y, X), certain background outside the crop."""
        spacing = [properties["spacing"][axis] for axis in self.transpose]
        resampled = configuration.resampling_fn_probabilities(
            logits,
            properties["shape_after_cropping_and_before_resampling"],
            configuration.spacing,
            spacing,
        )
        shape = (len(resampled), *properties["shape_before_cropping"])
        native = np.full(shape, -_CERTAIN, dtype=np.float32)
        if not self.labels.has_regions:
            native[0] = _CERTAIN
        inside = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
        native[(slice(None), *inside)] = np.asarray(resampled, dtype=np.float32)
        return native.transpose(0, *(1 + axis for axis in self.manager.transpose_backward))


def finite(volume: Volume) -> NDArray[Any]:
    """Return the values as (C, Z, Y, X), with the smallest finite value where there is none.

    Raises
    ------
    UserError
        If no value is finite.
    """
    channels = volume.channels
    known = np.isfinite(channels)
    if known.all():
        return channels
    if not known.any():
        raise UserError("an image with values", f"{volume.name} without a finite one")
    return np.where(known, channels, channels[known].min())


class Predictor(nnUNetPredictor):  # type: ignore[misc]
    """nnU-Net's predictor, which tells how far it is and can be stopped.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    mirroring : bool
        Average over mirrored windows along the axes that the training allows.
    step : float
        Distance between windows as a share of the patch size.
    progress, cancelled : callable, optional
        See `napari_ka2er.model.experts.Expert.predict`.
    """

    def __init__(
        self,
        device: torch.device,
        mirroring: bool,
        step: float,
        progress: Callable[[float, str], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces settings
            super().__init__(
                tile_step_size=step,
                use_mirroring=mirroring,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
        self._progress = progress
        self._cancelled = cancelled
        self._n_windows = self._n_done = 0
        self.stopped = False

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> list[Any]:
        slicers: list[Any] = super()._internal_get_sliding_window_slicers(image_size)
        self._n_windows, self._n_done = len(slicers), 0
        return slicers

    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        self.stopped = self.stopped or (self._cancelled is not None and self._cancelled())
        if self.stopped:  # raising here would leave nnU-Net's feeding thread waiting for ever
            return x.new_zeros((1, self.label_manager.num_segmentation_heads, *x.shape[2:]))
        result: Tensor = super()._internal_maybe_mirror_and_predict(x)
        self._n_done += 1
        if self._progress is not None:
            what = f"window {self._n_done} of {self._n_windows}"
            self._progress(self._n_done / self._n_windows, what)
        return result

    def logits(self, data: NDArray[np.float32]) -> Tensor:
        """Return the logits of a preprocessed image on its own grid.

        Raises
        ------
        CancelledError
            If it was stopped.
        """
        result: Tensor = self.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        if self.stopped:
            raise CancelledError("prediction stopped")
        return result.cpu()
