"""Experts: trained nnU-Nets, one per task, that predict as nnU-Net does and lend their features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Task
from napari_ka2er.model import expert_convert, expert_files, expert_look
from napari_ka2er.model.expert_features import FeatureMap, total_strides
from napari_ka2er.model.expert_view import ExpertView
from napari_ka2er.model.onednn import onednn_twin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from napari_ka2er.core.volume import Volume

    Triple = tuple[float, float, float]

__all__ = ["Expert", "ExpertView", "FeatureMap", "convert_expert"]


def convert_expert(
    model_folder: Path,
    out: Path,
    *,
    task: Task | None = None,
    configuration: str | None = None,
    folds: str | None = None,
    checkpoint: str = expert_convert.DEFAULT_CHECKPOINT,
    trust: bool,
    half: bool = False,
) -> Expert:
    """Turn a trained nnU-Net v2 model folder into an expert.

    Parameters
    ----------
    model_folder : Path
        The folder ``<trainer>__<plans>__<configuration>``.
    out : Path
        The expert's folder; an expert that is already there is replaced.
    task : Task, optional
        What the expert is to teach a student, with the model's labels, which may not overlap; by
        default from dataset.json, regions too.
    configuration, folds, checkpoint, trust
        See `napari_ka2er.model.expert_convert.Choice`.
    half : bool
        Store float16 instead of float32.

    Raises
    ------
    UserError
        If the folder holds no such model, the student cannot use it, or `out` cannot be written.
    """
    choice = expert_convert.Choice(configuration, folds, checkpoint, trust)
    expert_convert.convert(Path(model_folder), Path(out), choice, task=task, half=half)
    return Expert.load(out)


class Expert:
    """A trained nnU-Net for one task, frozen.

    Parameters
    ----------
    folder : Path
        As `convert_expert` writes it.
    device : torch.device
        Where the network runs.
    blank : bool
        Leave the network's weights as they are; see `Expert.blank`.

    Attributes
    ----------
    network, looking : Module
        What predicts, and what makes features: the same tensors.
    task : Task
        What it segments.
    digest : str
        SHA-256 of weights, plans and configuration.
    spacing_mm : tuple of float
        Planned spacing along the volume's axes (Z, Y, X).
    patch_size : tuple of int
        Window of the network, along the expert's own axes (the volume's, transposed as planned).
    n_channels_in : int
        Channels of the image.
    strides : tuple of (int, int, int)
        Total stride of each stage, finest first, along the expert's own axes.
    stage_channels : tuple of int
        Channels of the decoder's features, finest first; the last are the bottleneck's.
    token_centres : tuple of (float, float, float)
        Per stage the voxel at which token 0 looks, along the expert's own axes.
    """

    def __init__(self, folder: Path, device: torch.device, *, blank: bool = False) -> None:
        self.folder = folder
        self.entry = expert_files.read_entry(folder)
        plans = expert_files.read_json(folder / "plans.json")
        dataset = expert_files.read_json(folder / "dataset.json")
        self.plan = expert_files.open_plan(plans, dataset, self.entry["configuration"])
        network = self.plan.network()
        self.digest: str = self.entry["digest"]
        if not blank:
            expert_files.fill_weights(network, folder / "expert.safetensors")
            self._check_digest(expert_files.digest(network, plans, self.plan.name))
        self.network = network
        self.move(device)
        self.task = Task.from_json(self.entry["task"])
        self.spacing_mm: Triple = self.plan.spacing
        self.patch_size: tuple[int, ...] = self.plan.patch_size
        self.n_channels_in: int = self.plan.n_channels
        self.strides = total_strides(network)
        encoder: Any = network.encoder
        self.stage_channels = tuple(int(n) for n in encoder.output_channels)
        self.token_centres = tuple(tuple(row) for row in self.entry["token_centres"])

    def move(self, device: torch.device) -> None:
        """Bring the network to a device.

        Moving replaces buffers, though not parameters, so that the twin has to be made anew.
        """
        self.device = device
        self.network.to(device)
        # Logits are nnU-Net's own to the last bit; features are rounded, and may be made faster.
        self.looking = onednn_twin(self.network)

    def head(self, stage: int) -> nn.Conv3d:
        """Return the layer that makes logits of the decoder's features at a stage, finest 0.

        Those of coarser stages are trained by deep supervision.
        """
        decoder: Any = self.network.decoder
        layer: nn.Conv3d = decoder.seg_layers[-1 - stage]
        return layer

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Expert:
        """Load a converted expert.

        Raises
        ------
        UserError
            If the folder holds no usable expert, or nnunetv2 is not installed.
        """
        return cls(Path(folder), torch.device(device))

    @classmethod
    def blank(cls, folder: Path) -> Expert:
        """Return an expert on the CPU whose network waits for weights from elsewhere.

        Raises
        ------
        UserError
            As `load`.
        """
        return cls(Path(folder), torch.device("cpu"), blank=True)

    def _check_digest(self, digest: str) -> None:
        if digest != self.digest:
            wanted = f"an expert with digest {self.digest[:12]}"
            got = f"{digest[:12]} in {self.folder}"
            raise UserError(wanted, got, "its files were changed: convert it again")

    def predict_logits(
        self,
        volume: Volume,
        *,
        mirroring: bool = False,
        step: float = 0.5,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits (n_classes, Z, Y, X) on the volume's grid, as nnU-Net computes them.

        Parameters
        ----------
        volume : Volume
            As stored: nnU-Net does not look at the orientation.
        mirroring : bool
            Average over mirrored windows, up to 8 times as slow.
        step : float
            Distance between windows as a share of the patch size.
        progress : callable, optional
            Told the share done in [0, 1] and what is being done.
        cancelled : callable, optional
            Asked between windows whether to stop; then `CancelledError` is raised.

        Returns
        -------
        ndarray of float32
            Classes are background and the labels, or the regions.  Outside the non-zero box they
            are certain background.

        Raises
        ------
        UserError
            If the volume has another number of channels.
        """
        from napari_ka2er.model.expert_predictor import Predictor

        self._check_channels(volume)
        plan, trainer, axes = self.plan, self.entry["trainer"], self.entry["mirroring"]
        configuration = plan.at_spacing(self.spacing_mm)
        data, properties = plan.preprocess(volume, configuration)
        predictor = Predictor(self.device, mirroring, step, progress, cancelled)
        weights = [self.network.state_dict()]
        predictor.manual_initialization(
            self.network, plan.manager, configuration, weights, plan.dataset, trainer, axes
        )
        return plan.native_logits(predictor.logits(data), configuration, properties)

    def predict(self, volume: Volume, **options: Any) -> NDArray[np.unsignedinteger[Any]]:
        """Return the label map (Z, Y, X); options and errors are those of `predict_logits`."""
        labels = self.plan.labels_of(self.predict_logits(volume, **options))
        return labels.astype(np.uint8 if max(self.task.values) < 256 else np.uint16)

    def look(
        self,
        volume: Volume,
        grid_spacing_mm: Triple,
        cache_dir: Path | None = None,
        *,
        stages: Sequence[int] | None = None,
    ) -> ExpertView:
        """Return a view of the volume through this expert; no window runs yet.

        Parameters
        ----------
        volume : Volume
            As stored.
        grid_spacing_mm : tuple of float
            Spacing (Z, Y, X) of the student's grid, `napari_ka2er.core.resampling.grid_of`, along
            the grid's axes.  Where the expert's own spacing is much finer, it works at this one.
        cache_dir : Path, optional
            Folder for features, which then outlive the program; None keeps them in memory.
        stages : sequence of int, optional
            Stages to keep, 0 the finest; all by default.  Finer ones than all of these are not
            computed.
        """
        self._check_channels(volume)
        return expert_look.look(self, volume, grid_spacing_mm, cache_dir, stages)

    def _check_channels(self, volume: Volume) -> None:
        if volume.n_channels != self.n_channels_in:
            wanted = f"an image with {self.n_channels_in} channel for the expert {self.task.name}"
            raise UserError(wanted, f"{volume.n_channels} in {volume.name}", "choose one channel")
