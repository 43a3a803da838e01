"""A student as one network for MONAI: a whole volume goes in, logits on its own voxels come out.

`ka2er export --to monai-bundle` writes configurations that name what is here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch
from monai.utils.type_conversion import convert_to_dst_type
from torch import nn

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.student_card import read_student_json
from napari_ka2er.core.volume import REVERSE, Volume
from napari_ka2er.model.config import StudentConfig
from napari_ka2er.model.experts import Expert
from napari_ka2er.model.loaded import Experts, LoadedStudent
from napari_ka2er.model.predictor import Predictor
from napari_ka2er.model.student import Student

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ka2er.model.config import Mode


class BundleNetwork(nn.Module):
    """A student with its experts, for one task and mode.

    Experts look at the whole volume, each in its own spacing, so the network takes whole volumes
    with their affine and does all resampling itself; MONAI's sliding window must not cut them.

    Parameters
    ----------
    folder : str
        ``student.json`` and ``experts/<name>/*.json``.  Weights are not read from it: give them to
        `load_state_dict`.
    task : str
        One of the student's tasks.
    mode : str
        ``"sparse"``, ``"full"`` or ``"distilled"``; the last needs no experts.

    Raises
    ------
    UserError
        If the folder is no student's, the task is unknown, or nnunetv2 is missing for experts.
    """

    def __init__(self, folder: str, task: str, mode: Mode = "sparse") -> None:
        super().__init__()
        place = Path(folder)
        config = StudentConfig.from_json(read_student_json(place)["config"])
        self.task = config.entry(task).task
        self.mode = mode
        self.student = Student(config)
        names = [] if mode == "distilled" else [entry.name for entry in config.experts]
        self._experts = {name: Expert.blank(place / "experts" / name) for name in names}
        self.experts = nn.ModuleList(expert.network for expert in self._experts.values())
        self.has_weights: Tensor
        self.register_buffer("has_weights", torch.tensor(False))
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> BundleNetwork:
        """Stay in evaluation mode: this network is not trained."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of background and labels.

        Parameters
        ----------
        image : MetaTensor, shape (B, 1, X, Y, Z)
            Raw intensities as `monai.transforms.LoadImage` reads them, with their affine (RAS mm).

        Returns
        -------
        MetaTensor, shape (B, 1 + labels, X, Y, Z)
            The background's logit is 0 from below: the largest channel is what `ka2er predict`
            writes, in the order of the task's labels.

        Raises
        ------
        UserError
            If the image has no affine, several channels, or voxels that are no finite numbers, or
            the network has no weights.
        """
        if not self.has_weights:
            raise UserError("a network with weights", "none", "load models/model.pt into it first")
        if not isinstance(image, MetaTensor) or image.ndim != 5 or image.shape[1] != 1:
            wanted = "a MetaTensor (B, 1, X, Y, Z) with an affine, as LoadImage makes"
            raise UserError(wanted, f"{type(image).__name__} {tuple(image.shape)}")
        images = image if image.is_batch else [MetaTensor(i, image.affine) for i in image]
        logits = np.stack([self._logits(item) for item in images])
        result: Tensor = convert_to_dst_type(torch.from_numpy(logits), image)[0]
        return result

    def _logits(self, image: MetaTensor) -> NDArray[np.float32]:
        """Return (1 + labels, X, Y, Z) for an image (1, X, Y, Z)."""
        affine = REVERSE @ np.asarray(image.affine.cpu(), np.float64) @ REVERSE
        voxels = image.as_tensor()[0].float().cpu().numpy()
        volume = Volume(np.ascontiguousarray(voxels.T), affine, name="image")
        with tempfile.TemporaryDirectory(prefix="ka2er-") as cache:
            predictor = Predictor(self._loaded(), self.mode, Path(cache))
            predictor.set_volume(volume)
            labels = predictor.segment(self.task.name).logits()
        background = np.full_like(labels[:1], -np.finfo(np.float32).tiny)
        return np.concatenate([background, labels]).transpose(0, 3, 2, 1)

    def _loaded(self) -> LoadedStudent:
        """Return the student where the network is now."""
        device = next(self.student.parameters()).device
        for expert in self._experts.values():
            expert.move(device)
        digests = {entry.name: entry.digest for entry in self.student.config.experts}
        experts = Experts(Path(), digests, device, self._experts)
        return LoadedStudent(self.student, {}, experts, "bundle", device)


class BundleEvaluator:
    """What `monai.bundle run` runs: images through the network and the transforms after it.

    MONAI's own evaluators need pytorch-ignite, which nothing else here does.

    Parameters
    ----------
    dataloader : iterable
        Batches with ``image``.
    network : callable
        A `BundleNetwork`.
    inferer : callable
        Called with image and network.
    postprocessing : callable
        Called with each item of a batch, which has ``pred`` too.
    device : torch.device
        Where images go.
    """

    def __init__(
        self,
        dataloader: Iterable[dict[str, Any]],
        network: Callable[[Tensor], Tensor],
        inferer: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
        postprocessing: Callable[[Mapping[str, Any]], Any],
        device: torch.device,
    ) -> None:
        self.dataloader = dataloader
        self.network = network
        self.inferer = inferer
        self.postprocessing = postprocessing
        self.device = device

    def run(self) -> int:
        """Segment every image; return how many there were."""
        n_images = 0
        for batch in self.dataloader:
            image = batch["image"].to(self.device)
            pred = self.inferer(image, self.network)
            for item in decollate_batch({"image": image, "pred": pred}):
                self.postprocessing(item)
                n_images += 1
        return n_images
