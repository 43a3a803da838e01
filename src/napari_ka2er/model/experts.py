"""Experts: trained nnU-Nets, one per task, that predict as nnU-Net does and lend their features."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Task
from napari_ka2er.model import expert_convert, expert_look
from napari_ka2er.model.expert_convert import DEFAULT_CHECKPOINT, FORMAT_VERSION, read_json
from napari_ka2er.model.expert_probe import token_centres

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from numpy.typing import NDArray
    from torch import nn

    from napari_ka2er.core.volume import Volume
    from napari_ka2er.model.expert_features import ExpertView

    Progress = Callable[[float, str], None] | None
    Cancelled = Callable[[], bool] | None
    Triple = tuple[float, float, float]


def convert_expert(
    model_folder: Path,
    out: Path,
    *,
    task: Task | None = None,
    configuration: str | None = None,
    folds: str | None = None,
    checkpoint: str = DEFAULT_CHECKPOINT,
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
        What the expert segments; by default from dataset.json.
    configuration, folds, checkpoint : str, optional
        See `napari_ka2er.model.expert_convert.read_model_folder`.
    trust : bool
        Whether code inside the checkpoint may run.  Checkpoints of nnU-Net's own trainers are read
        without.
    half : bool
        Store float16 instead of float32.

    Raises
    ------
    UserError
        If the folder holds no such model, or the student cannot use it.
    """
    model = expert_convert.read_model_folder(
        model_folder,
        fold=folds,
        checkpoint=checkpoint,
        configuration=configuration,
        trust=trust,
    )
    plan = _nnunet().Plan(model.plans, model.dataset, model.configuration)
    _check_for_student(plan)
    known = expert_convert.task_of(model.plans, model.dataset)
    if task is not None and set(task.values) != set(known.values):
        raise UserError(
            f"a model of task {task.name}, values {task.values}", f"values {known.values}"
        )
    network = plan.network()
    try:
        network.load_state_dict(model.weights)
    except RuntimeError as error:
        reason = f"weights of another network ({str(error).splitlines()[-1].strip()})"
        raise UserError("weights of the network in plans.json", reason) from error
    if half:
        network.half().float()
    strides = _strides(network)
    entry = {
        "format": FORMAT_VERSION,
        "task": (task or known).to_json(),
        "digest": expert_convert.digest(network, model.plans, model.configuration),
        "configuration": model.configuration,
        "fold": model.fold,
        "trainer": model.trainer,
        "mirroring": model.mirroring,
        "token_centres": token_centres(network, plan.patch_size, strides),
        "source": model_folder.resolve().name,
    }
    expert_convert.write_expert(out, network, model, entry, half=half)
    return Expert.load(out)


def _nnunet() -> ModuleType:
    try:
        return importlib.import_module("napari_ka2er.model.expert_nnunet")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("napari_ka2er"):
            raise
        remedy = 'pip install "napari-ka2er[train]"'
        raise UserError(
            "nnunetv2, which runs the experts", f"no module {error.name}", remedy
        ) from error


def _check_for_student(plan: Any) -> None:
    if plan.n_channels != 1:
        raise UserError(
            "an expert for images with one channel, as the student takes them",
            f"one for {plan.n_channels} channels ({', '.join(plan.channel_names)})",
            "train an expert on the channel that will be segmented",
        )


def _strides(network: nn.Module) -> tuple[tuple[int, ...], ...]:
    encoder: Any = network.encoder
    return tuple(
        tuple(int(n) for n in row) for row in np.cumprod(np.array(encoder.strides), axis=0)
    )


class Expert:
    """A trained nnU-Net for one task, frozen.

    Use `Expert.load`.

    Attributes
    ----------
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

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.entry = _read_entry(folder)
        plans = read_json(folder / "plans.json")
        dataset = read_json(folder / "dataset.json")
        self.plan = _nnunet().Plan(plans, dataset, self.entry["configuration"])
        network = self.plan.network()
        expert_convert.fill_weights(network, folder / "expert.safetensors")
        self.digest = expert_convert.digest(network, plans, self.plan.name)
        if self.digest != self.entry["digest"]:
            raise UserError(
                f"an expert with digest {self.entry['digest'][:12]}",
                f"{self.digest[:12]} in {folder}",
                "its files were changed; convert it again",
            )
        self.network = network.to(device)
        self.task = Task.from_json(self.entry["task"])
        self.spacing_mm: Triple = self.plan.spacing
        self.patch_size: tuple[int, ...] = self.plan.patch_size
        self.n_channels_in: int = self.plan.n_channels
        self.strides = _strides(network)
        encoder: Any = network.encoder
        self.stage_channels = tuple(int(n) for n in encoder.output_channels)
        self.token_centres = tuple(tuple(row) for row in self.entry["token_centres"])

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Expert:
        """Load a converted expert.

        Raises
        ------
        UserError
            If the folder holds no usable expert, or nnunetv2 is not installed.
        """
        return cls(Path(folder), torch.device(device))

    def predict_logits(
        self,
        volume: Volume,
        *,
        mirroring: bool = False,
        step: float = 0.5,
        progress: Progress = None,
        cancelled: Cancelled = None,
    ) -> NDArray[np.float32]:
        """Return the logits (n_classes, Z, Y, X) on the volume's grid, as nnU-Net computes them.

        Parameters
        ----------
        volume : Volume
            As stored; nnU-Net reads no orientation.
        mirroring : bool
            Average over mirrored windows, 8 times as slow.
        step : float
            Distance between windows as a share of the patch size.
        progress : callable, optional
            Told the share done in [0, 1] and what is being done.
        cancelled : callable, optional
            Asked between windows whether to stop.

        Returns
        -------
        ndarray of float32
            Classes are the labels with background first, or the regions; outside the non-zero box
            they are certain background.

        Raises
        ------
        CancelledError
            If it was stopped.
        UserError
            If the volume has another number of channels.
        """
        self._check_channels(volume)
        nnunet = _nnunet()
        configuration = self.plan.at_spacing(self.spacing_mm)
        data, properties = self.plan.preprocess(volume, configuration)
        predictor = nnunet.Predictor(self.device, mirroring, step, progress, cancelled)
        predictor.manual_initialization(
            self.network,
            self.plan.manager,
            configuration,
            [self.network.state_dict()],
            self.plan.dataset,
            self.entry["trainer"],
            self.entry["mirroring"],
        )
        logits: NDArray[np.float32] = self.plan.native_logits(
            predictor.logits(data), configuration, properties
        )
        return logits

    def predict(self, volume: Volume, **options: Any) -> NDArray[np.unsignedinteger[Any]]:
        """Return the label map (Z, Y, X); options and errors are those of `predict_logits`."""
        logits = self.predict_logits(volume, **options)
        labels = np.asarray(self.plan.labels.convert_logits_to_segmentation(logits))
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
            Spacing (Z, Y, X) of the student's grid, `napari_ka2er.core.resampling.grid_of`.  Where the
            expert's own spacing is much finer, it works at this one.
        cache_dir : Path, optional
            Folder for features, which then survive the program; None keeps them in memory.
        stages : sequence of int, optional
            Stages to keep, 0 the finest; all by default.  Finer ones than all of these are not
            computed.
        """
        self._check_channels(volume)
        return expert_look.look(self, volume, grid_spacing_mm, cache_dir, stages)

    def _check_channels(self, volume: Volume) -> None:
        if volume.n_channels != self.n_channels_in:
            raise UserError(
                f"an image with {self.n_channels_in} channel for expert {self.task.name}",
                f"{volume.n_channels} in {volume.name}",
                "choose one channel",
            )


def _read_entry(folder: Path) -> dict[str, Any]:
    if not (folder / "expert.json").is_file():
        raise UserError(
            "an expert's folder with expert.json",
            f"{folder}",
            "convert a trained nnU-Net v2 model folder with: ka2er expert add",
        )
    entry = read_json(folder / "expert.json")
    if entry.get("format") != FORMAT_VERSION:
        raise UserError(
            f"an expert of format {FORMAT_VERSION}", f"{entry.get('format')} in {folder}"
        )
    needed = {"task", "digest", "configuration", "trainer", "mirroring", "token_centres"}
    if missing := sorted(needed - entry.keys()):
        raise UserError(
            f"an expert.json with {', '.join(sorted(needed))}", f"one without {missing}"
        )
    return entry
