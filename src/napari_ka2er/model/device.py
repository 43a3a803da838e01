"""Where the student runs: the name a user gives, the device, and how to run fast on it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Module = TypeVar("Module", bound=torch.nn.Module)


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device that a name stands for.

    Parameters
    ----------
    name : str
        ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises
    ------
    UserError
        If the name is none of these, or this machine has no such device.
    """
    if name == "auto":
        return torch.device(_best())
    kind, _, number = name.partition(":")
    is_known = kind in ("cpu", "cuda", "mps") and (number.isdecimal() or name == kind)
    if not is_known or (number and kind != "cuda"):
        raise UserError("a device: auto, cpu, cuda, cuda:1 or mps", repr(name))
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        found = f"a machine with {torch.cuda.device_count()} CUDA devices"
        raise UserError(f"device {name}", found, "use --device auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps", "a machine without it", "use --device auto")
    return torch.device(name)


def _best() -> str:
    """Name the fastest kind of device there is."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def precision(device: torch.device) -> torch.dtype:
    """Return the type of numbers in which networks run: half precision on CUDA, single elsewhere.

    bfloat16 where the GPU has it, because its range needs no scaling; float16 on older ones.  On
    the CPU half precision is slower than single for 3D convolutions.
    """
    if device.type != "cuda":
        return torch.float32
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return the context to run a network in, with the `precision` of its device."""
    dtype = precision(device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def place(module: Module, device: torch.device) -> Module:
    """Move `module` to `device`, on CUDA with channels last, which its 3D convolutions prefer."""
    module.to(device)
    if device.type == "cuda":
        module.to(memory_format=torch.channels_last_3d)
    return module
