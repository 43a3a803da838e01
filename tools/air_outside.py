"""Print how many ml of lung masks lie outside the body: air that was taken for lung.

``python tools/air_outside.py CT MASK...``, masks on the CT's own lattice.  The figures of
docs/benchmarks/sample.md are made by it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_ka2er.core.io import read_labels, read_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TISSUE_HU = -400.0


def body(hounsfield: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the largest piece of tissue with what it encloses in each slice, shape (Z, Y, X)."""
    in_slices = ndimage.generate_binary_structure(2, 1)[None]  # first and last slice count too
    tissue = ndimage.binary_opening(hounsfield > TISSUE_HU, in_slices)
    pieces, n = ndimage.label(tissue)
    if n == 0:
        return np.zeros(hounsfield.shape, bool)
    largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return np.stack([ndimage.binary_fill_holes(one) for one in largest])


def main(arguments: Sequence[str]) -> None:
    """Print one line per mask."""
    volume = read_volume(Path(arguments[0]))
    outside = ~body(volume.channels[0])
    ml = float(np.prod(volume.spacing)) / 1000
    for path in map(Path, arguments[1:]):
        mask = read_labels(path)[0] > 0
        found = mask[outside].sum() * ml, mask.sum() * ml
        sys.stdout.write(f"{path.name}: {found[0]:.0f} ml outside the body, of {found[1]:.0f} ml\n")


if __name__ == "__main__":
    main(sys.argv[1:])
