"""Checkpoints of nnU-Net: pickles, read without running what is in them where that is possible."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

# nnU-Net's training log holds NumPy numbers; building these runs no code of the file's author.
# NumPy 1 called the module otherwise.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
# What PyTorch raises where a file is cut, empty, or says nonsense.
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError)


def read_checkpoint(path: Path, *, trust: bool) -> dict[str, Any]:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        The file.
    trust : bool
        Whether code inside it may run, where it cannot be read without.

    Returns
    -------
    dict
        With ``network_weights`` (name to tensor), ``init_args`` (which name a configuration) and
        ``trainer_name``, and whatever else is in it.

    Raises
    ------
    UserError
        If it is no checkpoint of nnU-Net, or needs trust.
    """
    needs = f"an nnU-Net checkpoint {path}"
    try:
        torch.serialization.get_unsafe_globals_in_checkpoint(path)  # reads the archive's directory
        with torch.serialization.safe_globals(_HARMLESS):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            got = "one that runs its author's code when it is read"
            remedy = "add --trust if you trust where it comes from"
            raise UserError(f"{needs} that holds only numbers", got, remedy) from error
        data = _unpickle(path)
    except _UNREADABLE as error:
        raise UserError(needs, f"a file that PyTorch cannot read ({error})") from error
    _check(data, needs)
    return dict(data)


def _unpickle(path: Path) -> Any:
    """Read a checkpoint and run what it wants run; only for files the user trusts."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # of its author's code, which may raise anything
        got = f"one that fails with {type(error).__name__}: {error}"
        raise UserError(f"an nnU-Net checkpoint {path}", got) from error


def _check(data: Any, needs: str) -> None:
    """Refuse what is read well but is not what nnU-Net's trainer wrote."""
    keys = ("network_weights", "init_args", "trainer_name")
    if not isinstance(data, dict) or any(key not in data for key in keys):
        raise UserError(f"{needs} with {', '.join(keys)}", "a file without")
    weights, arguments = data["network_weights"], data["init_args"]
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise UserError(f"{needs} with tensors by name in network_weights", "something else")
    if not isinstance(arguments, dict) or not isinstance(arguments.get("configuration"), str):
        raise UserError(f"{needs} whose init_args name the configuration", "one without")
    axes = data.get("inference_allowed_mirroring_axes")
    is_listed = isinstance(axes, list | tuple) and all(axis in (0, 1, 2) for axis in axes)
    if axes is not None and not is_listed:
        raise UserError(f"{needs} with axes to mirror of 0, 1 and 2", f"{axes}")
