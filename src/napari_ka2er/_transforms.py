"""What napari's transforms of a layer make together, and how we give them to a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.io.checks import mm_per

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_STEPS = 16  # of the last bit of a scale that are tried; 2 were enough for 15000 random axes


def affine_of(attributes: dict[str, Any], n_axes: int) -> NDArray[np.float64]:
    """Return the (4, 4) matrix in mm that a layer's transforms make together.

    Parameters
    ----------
    attributes : dict
        The layer's attributes; what is missing is the identity.
    n_axes : int
        2 or 3 dimensions of the layer; a plane becomes a slice of 1 mm.
    """
    total = composed(attributes, n_axes)
    mm = [mm_per(str(unit)) for unit in attributes.get("units") or ["mm"] * n_axes]
    total[:-1] *= np.array(mm)[:, None]
    affine = np.eye(4)
    affine[3 - n_axes :, 3 - n_axes :] = total
    return affine


def composed(attributes: dict[str, Any], n_axes: int) -> NDArray[np.float64]:
    """Return the (n + 1, n + 1) matrix that a layer's transforms make, in the layer's own units."""
    scale = np.asarray(attributes.get("scale", np.ones(n_axes)), float)
    rotate = np.asarray(attributes.get("rotate", np.eye(n_axes)), float)
    inner = np.eye(n_axes + 1)
    # napari.utils.transforms: rotate @ shear @ scale, then the layer's affine.
    inner[:-1, :-1] = rotate @ _shear_matrix(attributes.get("shear"), n_axes) * scale
    inner[:-1, -1] = attributes.get("translate", np.zeros(n_axes))
    total = np.asarray(attributes.get("affine", np.eye(n_axes + 1)), float) @ inner
    return np.asarray(total, np.float64)


def placed(affine: ArrayLike) -> dict[str, Any]:
    """Return an affine as arguments of a layer: the spacing as its scale, the rest as its affine.

    napari takes a brush, a point and a handle to be round in the layer's scale, and looks at
    nothing else, so the spacing must be there.  Together both make exactly `affine`: files, caches
    and sessions are known by it.

    Parameters
    ----------
    affine : array-like, shape (n + 1, n + 1)
        From a layer's indices to the world.

    Returns
    -------
    dict
        ``scale`` and ``affine``.
    """
    rest = np.array(affine, float)
    scale = np.ones(len(rest) - 1)
    for axis in range(len(scale)):
        scale[axis], rest[:, axis] = _split(rest[:, axis])
    return {"scale": scale, "affine": rest}


def _split(column: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return a length and a direction whose product is `column` to the last bit.

    The plain quotient often misses by that bit, so the lengths beside the true one are tried.
    """
    length = float(np.linalg.norm(column))
    for step in sorted(range(-_STEPS, _STEPS + 1), key=abs):
        scale = length + step * float(np.spacing(length))
        if np.array_equal(column / scale * scale, column):
            return scale, column / scale
    return length, column / length


def _shear_matrix(shear: Any, n_axes: int) -> NDArray[np.float64]:
    """Return napari's shear, which may be the values above the diagonal only, as a matrix."""
    if shear is None:
        return np.eye(n_axes)
    values = np.asarray(shear, float)
    if values.ndim == 2:
        return values
    matrix = np.eye(n_axes)
    matrix[np.triu_indices(n_axes, 1)] = values
    return matrix
