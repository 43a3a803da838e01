"""What the student's times are held against, and a volume as large as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Work = Callable[[], object]

_AIR, _LUNG, _BODY, _NOISE = -1000, -820, 40, 15


def resenc_l() -> tuple[Work, str]:
    """Return a forward pass of nnInteractive's architecture, with random weights.

    nnInteractive (Isensee et al. 2025, arXiv:2503.08373) is nnU-Net's ResEnc-L on 192³ windows: one
    image channel and seven of prompts.  It runs this for every click.
    """
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

    network = ResidualEncoderUNet(
        input_channels=8,
        n_stages=6,
        features_per_stage=(32, 64, 128, 256, 320, 320),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2, 2, 2),
        n_blocks_per_stage=(1, 3, 4, 6, 6, 6),
        num_classes=2,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return _forward(network, (1, 8, 192, 192, 192)), "ResEnc-L, 8 channels, 192³, random weights"


def swin_unetr() -> tuple[Work, str]:
    """Return a forward pass of MONAI's SwinUNETR of the published size."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    network = SwinUNETR(in_channels=1, out_channels=2, feature_size=48, use_v2=True)
    return _forward(network, (1, 1, 96, 96, 96)), "MONAI SwinUNETR-V2, feature size 48, 96³"


def _forward(network: torch.nn.Module, shape: Sequence[int]) -> Work:
    network.eval().requires_grad_(False)
    image = torch.randn(*shape, generator=torch.Generator().manual_seed(0))

    def run() -> object:
        with torch.inference_mode():
            return network(image)

    return run


REFERENCES: Mapping[str, Callable[[], tuple[Work, str]]] = {
    reference.__name__: reference for reference in (resenc_l, swin_unetr)
}


def synthetic_ct(
    shape: tuple[int, int, int] = (400, 512, 512), spacing: Sequence[float] = (1.0, 0.75, 0.75)
) -> Volume:
    """Return a CT, int16, of an elliptic body with two lungs in noise; always the same."""
    generator = np.random.default_rng(0)
    data = np.empty(shape, np.int16)
    y = np.linspace(-1, 1, shape[1])[:, None]
    x = np.linspace(-1, 1, shape[2])
    body = (x / 0.85) ** 2 + (y / 0.6) ** 2 < 1
    lung = ((np.abs(x) - 0.4) / 0.28) ** 2 + (y / 0.4) ** 2
    for number, plane in enumerate(data):
        inside = lung < np.sin(np.pi * number / shape[0])
        clean = np.where(inside, _LUNG, np.where(body, _BODY, _AIR))
        plane[:] = clean + generator.normal(0, _NOISE, clean.shape)
    return Volume(data, np.diag([*spacing, 1.0]), name="computed CT")
