"""The foundation model: MONAI's SwinUNETR, taken apart where experts are amalgamated."""

from __future__ import annotations

import warnings
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from napari_ka2er.model.config import StudentConfig


class Foundation(nn.Module):
    """SwinUNETR whose encoder stages and decoder stages can be amended on the way.

    Parameters
    ----------
    config : StudentConfig
        Gives feature size, attention window and number of outputs.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.net = SwinUNETR(
            in_channels=1,
            out_channels=config.n_outputs,
            feature_size=config.feature_size,
            window_size=config.attention_window,
            use_v2=config.use_v2,
        )

    def stages(self, image: Tensor) -> list[Tensor]:
        """Return the Swin stages of an image (B, 1, Z, Y, X), at strides 2, 4, 8, 16 and 32."""
        self.net._check_input_size(image.shape[2:])
        stages: list[Tensor] = self.net.swinViT(image, self.net.normalize)
        return stages

    def decode(
        self, image: Tensor, stages: list[Tensor], amend: Callable[[int, Tensor], Tensor]
    ) -> dict[int, Tensor]:
        """Return the decoder's stages at strides 8, 4, 2 and 1.

        Parameters
        ----------
        image : Tensor, shape (B, 1, Z, Y, X)
            The window.
        stages : list of Tensor
            What `stages` returned, amended or not.
        amend : callable
            Called with a stride (4, 2, 1) and the decoder's features there; its result goes on.
        """
        net = self.net
        deepest = net.decoder5(net.encoder10(stages[4]), stages[3])
        eighth = net.decoder4(deepest, net.encoder4(stages[2]))
        quarter = amend(4, net.decoder3(eighth, net.encoder3(stages[1])))
        half = amend(2, net.decoder2(quarter, net.encoder2(stages[0])))
        full = amend(1, net.decoder1(half, net.encoder1(image)))
        return {8: eighth, 4: quarter, 2: half, 1: full}

    def head(self, full: Tensor) -> Tensor:
        """Return the logits (B, labels, Z, Y, X) of full-resolution decoder features."""
        logits: Tensor = self.net.out(full)
        return logits

    def load_pretrained(self, path: Path) -> None:
        """Load self-supervised Swin weights in the layout of MONAI's ``model_swinvit.pt``.

        Raises
        ------
        UserError
            If the file is not such a file, or its sizes are not this model's.
        """
        weights = _read_swin_weights(path)
        before = _checksum(self.net.swinViT)
        try:
            self.net.load_from(weights)
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"Swin weights of feature size {self.net.swinViT.embed_dim} in {path}",
                f"weights that do not fit ({error})",
                "use the base preset with MONAI's model_swinvit.pt",
            ) from error
        if _checksum(self.net.swinViT) == before:
            raise UserError(f"Swin weights in {path}", "a file that matches nothing")


def _read_swin_weights(path: Path) -> dict[str, dict[str, Tensor]]:
    if not path.is_file():
        raise UserError("a file with foundation weights", f"no file at {path}")
    try:
        with warnings.catch_warnings():  # of a pickle's protocol: the error below says enough
            warnings.simplefilter("ignore")
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # PyTorch's own words advise to run what is in the file
        got = f"{path}, which holds other objects"
        raise UserError("foundation weights that are tensors only", got) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise UserError("foundation weights saved by torch.save", f"{path}: {error}") from error
    state = weights.get("state_dict") if isinstance(weights, dict) else None
    if not isinstance(state, dict) or not any("patch_embed" in key for key in state):
        raise UserError(
            "the layout of model_swinvit.pt (state_dict with module.patch_embed…)", f"{path}"
        )
    return {"state_dict": state}


def _checksum(module: nn.Module) -> float:
    return float(sum(p.detach().double().abs().sum() for p in module.parameters()))
