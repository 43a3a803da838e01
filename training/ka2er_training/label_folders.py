"""The folders in which data sets keep their labels; no image to segment lies there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

_LABEL_FOLDERS = ("labelsTr", "labelsTs", "labelsVal")


def without_label_folders(paths: Sequence[Path], inputs: Sequence[Path]) -> list[Path]:
    """Return volumes without those that a data set keeps as labels, unless somebody named them.

    nnU-Net and the Decathlon do not mark them as label maps, as we do.

    Parameters
    ----------
    paths : sequence of Path
        Volumes, as `list_inputs` found them.
    inputs : sequence of Path
        What it found them in: a folder of labels that is one of these is opened.
    """
    found = {path: _label_folder(path, inputs) for path in paths}
    for folder in dict.fromkeys(filter(None, found.values())):
        logger.info("%s: left out, as it holds label maps", folder)
    return [path for path, folder in found.items() if folder is None]


def _label_folder(path: Path, inputs: Sequence[Path]) -> Path | None:
    """Return the data set's folder of labels that a volume lies in, below one of the inputs."""
    if path in inputs:
        return None
    for folder in path.parents:
        if folder in inputs:
            return None
        if folder.name in _LABEL_FOLDERS:
            return folder
    return None
