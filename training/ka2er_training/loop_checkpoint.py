"""Checkpoints of the training loop: whole or not at all, and never a pickle."""

from __future__ import annotations

from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.atomic import left_behind, remove, replacing

if TYPE_CHECKING:
    from pathlib import Path

FILE = "checkpoint.pt"


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in place of the one before.

    Raises
    ------
    UserError
        If the disk is full or refuses; the one before stays.
    """
    try:
        with replacing(folder / FILE) as half_done:
            torch.save(state, half_done)
    except RuntimeError as error:  # so PyTorch's writer tells of a full disk
        remedy = "free space and go on with --resume"
        raise UserError(f"to write a checkpoint in {folder}", _line(error), remedy) from error


def read_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return a folder's checkpoint, or None if there is none.

    Raises
    ------
    UserError
        If the file is no checkpoint, or holds more than tensors and plain data.
    """
    for path in left_behind(folder) if folder.is_dir() else ():
        remove(path)
    if not (folder / FILE).exists():
        return None
    try:
        state = torch.load(folder / FILE, map_location=device, weights_only=True)
    except (RuntimeError, ValueError, TypeError, EOFError, OSError, UnpicklingError) as error:
        raise no_checkpoint(folder, error) from error
    if not isinstance(state, dict):
        raise no_checkpoint(folder, TypeError(f"a {type(state).__name__} in it"))
    return state


def no_checkpoint(folder: Path, error: Exception) -> UserError:
    """Return the error that says that a file is no checkpoint of a training."""
    wanted = f"a checkpoint of this training at {folder / FILE}"
    return UserError(wanted, _line(error), "train without --resume")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]
