"""Digests of files, and of images whatever file they lie in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from napari_ka2er.core.volume import Volume


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(volume: Volume) -> str:
    """Return the SHA-256 of an image's voxels, for telling whether two files show the same scan.

    The voxels are taken as float32 along the patient's axes, so that a copy with another name,
    format, data type, axis order or origin has the same digest.  Spacing and position are left out.
    """
    from nibabel import orientations  # half a second, and core is imported by everything

    axes = orientations.io_orientation(volume.affine)
    sha = hashlib.sha256()
    for channel in volume.channels:
        turned = orientations.apply_orientation(channel, axes)
        values = np.ascontiguousarray(turned, np.float32) + np.float32(0)  # -0.0 becomes 0.0
        sha.update(f"{values.shape}".encode())
        sha.update(values.data)
    return sha.hexdigest()
