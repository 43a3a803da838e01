"""Where the sample's raw material lies on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from napari_ka2er.core.errors import UserError


def nilearn_data() -> Path:
    """Return the folder with the volumes that nilearn's wheel carries, without importing nilearn.

    Raises
    ------
    UserError
        If nilearn is not installed.
    """
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise UserError("nilearn's package data", "no nilearn here", "pip install nilearn")
    return Path(spec.origin).parent / "datasets" / "data"
