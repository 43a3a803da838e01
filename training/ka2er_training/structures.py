"""Things to click on that have no name: pieces of an image that differ from what is around them.

A student that was only ever asked for its own labels answers a click on anything else with one of
them.  Regions found in the training volumes, of every size, teach it to look at the image and at
the click instead (He et al. 2024, arXiv:2406.05285, use supervoxels likewise).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Image = NDArray[np.float32]
    Mask = NDArray[np.bool_]

# In voxels; small ones are as frequent as large ones, on a logarithmic scale.
_LEAST, _MOST = 40, 12_000
_TRIES = 6
_TOLERANCES = (0.03, 0.07, 0.15, 0.3, 0.6)  # deviations; within these a region is one
# In deviations of the image: so near to its lowest value is air, in which there is nothing to find.
_AIR = 0.25


def some_structure(image: Image, generator: np.random.Generator) -> Mask | None:
    """Return a random region of an image that an annotator might want to segment.

    Parameters
    ----------
    image : ndarray of float32, shape (Z, Y, X)
        Normalised intensities (deviation about 1).
    generator : numpy Generator
        Decides which, and how large.

    Returns
    -------
    ndarray of bool, shape (Z, Y, X), or None
        One connected region of at least 40 voxels and at most a third of the image, no more than
        half of it air; None if none was found, as in a flat image.
    """
    air = image <= image.min() + _AIR
    seeds = np.flatnonzero(~air)
    if not len(seeds):
        return None
    for _ in range(_TRIES):
        make: Callable[..., Iterator[Mask]] = (_basins, _band)[int(generator.random() < 1 / 3)]
        wanted = float(np.exp(generator.uniform(np.log(_LEAST), np.log(_MOST))))
        seed = np.unravel_index(seeds[generator.integers(len(seeds))], image.shape)
        masks = list(make(image, tuple(int(i) for i in seed), wanted, generator))
        sizes = np.array([np.count_nonzero(mask) for mask in masks])
        best = int(np.argmin(np.abs(np.log((sizes + 1) / wanted))))
        is_sized = max(wanted / 4, _LEAST) <= sizes[best] <= min(wanted * 4, image.size / 3)
        if is_sized and np.count_nonzero(masks[best] & air) < sizes[best] / 2:
            return masks[best]
    return None


def _basins(
    image: Image, seed: tuple[int, ...], wanted: float, generator: np.random.Generator
) -> Iterator[Mask]:
    """Yield the seed's watershed basin, alone and with neighbours that are about as bright."""
    edges = ndimage.gaussian_gradient_magnitude(image, generator.uniform(0.7, 1.5))
    share = generator.uniform(0.2, 1.0)  # of the region that one basin makes
    n_basins = int(np.clip(image.size / (share * wanted), 2, image.size // 8))
    markers = np.zeros(image.shape, np.int32)
    chosen = generator.choice(image.size, n_basins, replace=False)
    markers.flat[chosen] = np.arange(1, n_basins + 1)
    basins = watershed(edges, markers)
    means = ndimage.mean(image, basins, np.arange(1, n_basins + 1))
    away = np.abs(means - means[basins[seed] - 1])
    for tolerance in (0.0, *_TOLERANCES):
        yield _piece((away <= tolerance)[basins - 1], seed)


def _band(
    image: Image, seed: tuple[int, ...], wanted: float, generator: np.random.Generator
) -> Iterator[Mask]:
    """Yield what hangs together with the seed and is about as bright, with no thin bridges."""
    smooth = ndimage.gaussian_filter(image, generator.uniform(0.5, 1.2))
    is_opened = generator.random() < 0.7
    for tolerance in _TOLERANCES:
        mask = np.abs(smooth - smooth[seed]) <= tolerance
        yield _piece(ndimage.binary_opening(mask) if is_opened else mask, seed)


def _piece(mask: Mask, seed: tuple[int, ...]) -> Mask:
    """Return the connected piece at a voxel; nothing if the voxel is not in the mask."""
    pieces, _ = ndimage.label(mask)
    found: Mask = (pieces == pieces[seed]) & mask
    return found
