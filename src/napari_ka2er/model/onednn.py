"""Convolutions that take oneDNN on the CPU for a single small volume, too.

PyTorch decides by the batch's size and the first four sides (``ConvParams::use_mkldnn``), and takes
its plain loops, three to fourteen times slower, for the coarse levels of one window.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

_LARGE = 20480  # of ConvParams::use_mkldnn

Network = TypeVar("Network", bound=nn.Module)


class Convolution(nn.Conv3d):
    """A `torch.nn.Conv3d` that is not slow for one small volume; same result to 1e-6."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name that PyTorch gave it)
        """Return the convolution of `input`, shape (B, C, Z, Y, X)."""
        padding = self.padding
        if isinstance(padding, str) or not (_takes_onednn(input) and _is_overlooked(input)):
            return super().forward(input)
        if torch.is_grad_enabled():  # in oneDNN's own layout the backward pass takes it as well
            return super().forward(input.to_mkldnn()).to_dense()
        result: Tensor = torch.mkldnn_convolution(
            input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
        )
        return result


def take_onednn(network: Network) -> Network:
    """Make all plain 3D convolutions of a network `Convolution`; return the network.

    Parameters
    ----------
    network : Module
        Changed in place: classes of modules only, not names, parameters or buffers.
    """
    for module in network.modules():
        if type(module) is nn.Conv3d and module.padding_mode == "zeros":
            module.__class__ = Convolution
    return network


def onednn_twin(network: Network) -> Network:
    """Return a network of the same tensors, not copies, whose convolutions are `Convolution`.

    For networks that must stay bit by bit what another library makes of them.

    Parameters
    ----------
    network : Module
        Not changed; what is loaded into it later, in place, is its twin's as well.
    """
    tensors = (*network.parameters(), *network.buffers())
    return take_onednn(copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}))


def _takes_onednn(x: Tensor) -> bool:
    is_plain = x.device.type == "cpu" and x.dtype == torch.float32
    is_other = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch.is_autocast_enabled("cpu")
    )
    return is_plain and not is_other and torch.backends.mkldnn.is_available()


def _is_overlooked(x: Tensor) -> bool:
    return x.dim() == 5 and x.shape[:4].numel() <= _LARGE
