"""What evaluating one student leaves for the next: experts' features, and which were trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.model.cache import Cache
from napari_ka2er.model.tiles import STEP

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.workspace import Workspace
    from napari_ka2er.model.segmentation import Segmentation


class SharedFeatures(Cache):
    """A cache of its own for what a student makes, and a shared one for what its experts make.

    Features of an expert depend on the volume and on the expert's digest only, so that the
    current student, the new one and interpolations share those of every expert that is the same.
    In the tiny sizes they are four fifths of what segmenting a volume takes.

    Parameters
    ----------
    folder : Path
        For the student's tiles.
    shared : Path
        For experts' features.  Their room is limited as that of any cache; the oldest go first.
    """

    def __init__(self, folder: Path, shared: Path) -> None:
        super().__init__(folder)
        self._shared = shared

    @property
    def experts(self) -> Path:
        """Where the experts keep their own features."""
        return self._shared


def features_folder(workspace: Workspace) -> Path:
    """Return where experts' features of hold-out and held volumes are kept.

    Apart from those that trainings read; it may be deleted at any time.
    """
    return workspace.folder / "runs" / "cache" / "holdout"


def trust(found: Segmentation) -> tuple[float, ...] | None:
    """Return the mean weight of each expert, and last of none, where labels are found.

    On the tokens that the weights are made on, each as heavy as the share of it that is found;
    where nothing is found the whole image counts.  None for a student without amalgamation.
    """
    if found.features.loaded.config.amalgamation == "none":
        return None
    stored = found.features.store.arrays
    weights = stored["weights"].astype(np.float64)
    logits = stored["logits"][found.features.channels_of(found.task.name)]
    image = _in_image(found)
    share = image * _pooled(logits.max(axis=0) >= 0)
    share = share if share.any() else image
    return tuple(float((one * share).sum() / share.sum()) for one in weights)


def _in_image(found: Segmentation) -> NDArray[Any]:
    """Return 1 for tokens that look at the image, 0 for those in the padding around it."""
    lattice = found.features.token_lattice
    centres = lattice.to_world(np.moveaxis(np.indices(lattice.shape), 0, -1).reshape(-1, 3))
    index = found.geometry.to_index(centres)
    ends = np.array(found.geometry.shape) - 0.5
    is_in = np.asarray(((index >= -0.5) & (index <= ends)).all(axis=1)).reshape(lattice.shape)
    # An image smaller than a token may hold no token's centre.
    counted: NDArray[Any] = np.asarray(is_in if is_in.any() else ~is_in, np.float64)
    return counted


def _pooled(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the share of every token that is inside."""
    z, y, x = (n // STEP for n in mask.shape)
    pooled: NDArray[Any] = mask.reshape(z, STEP, y, STEP, x, STEP).mean(axis=(1, 3, 5))
    return pooled
