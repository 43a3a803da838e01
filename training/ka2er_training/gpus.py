"""The GPUs that a process sees, and those of them that it lets another one see."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(numbers: Sequence[int]) -> str:
    """Return CUDA_VISIBLE_DEVICES for a process that is to see some of our GPUs only.

    Parameters
    ----------
    numbers : sequence of int
        As PyTorch counts them here, from 0.  Where a scheduler or the user has set the variable,
        ours are those of its list, whose names (numbers or UUIDs) are handed on.

    Raises
    ------
    UserError
        If the list has fewer; none at all, which hides every GPU, is handed on.
    """
    listed = os.environ.get(VARIABLE)
    if listed is None:
        return ",".join(map(str, numbers))
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if names and max(numbers, default=-1) >= len(names):
        remedy = "lower parallel or gpus of [executor] in ka2er.toml"
        raise UserError(f"at least {max(numbers) + 1} GPUs", f"{VARIABLE}={listed}", remedy)
    return ",".join(names[number] for number in numbers) if names else ""
