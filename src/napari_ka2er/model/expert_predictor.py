"""nnU-Net's sliding window, which tells how far it is and can be stopped.

Imports nnunetv2, an optional dependency; import it where it is known to be installed.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from napari_ka2er.core.errors import CancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Predictor(nnUNetPredictor):
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
        See `napari_ka2er.model.experts.Expert.predict_logits`.
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
