"""Users that click where a mask is wrong: how interactive segmentation is measured.

Numpy only, one mask at a time, reproducible to the voxel.  What training needs, many clicks a
second and none like the other, is `ka2er_training.clicks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Spacing = tuple[float, ...]


class Click(NamedTuple):
    """A voxel, and whether it belongs to the object."""

    voxel: tuple[int, ...]
    positive: bool


class User(Protocol):
    """Looks at a mask and the truth and clicks, or returns None when nothing is left to correct."""

    def __call__(self, mask: Mask, gt: Mask) -> Click | None: ...  # noqa: D102


def click_largest_error(mask: Mask, gt: Mask, spacing_mm: Spacing | None = None) -> Click | None:
    """Click the innermost voxel of the largest error, as in the CVPR 2025 interactive challenge.

    Parameters
    ----------
    mask, gt : ndarray of bool, any number of axes
        What is segmented, and what should be.
    spacing_mm : tuple of float, optional
        Distance between voxel centres; without it distances count voxels, the challenge's rule.

    Returns
    -------
    Click or None
        None if the masks are equal.  Ties among voxels are broken by a generator seeded with 42 at
        every click, as the challenge does.

    References
    ----------
    `CVPR25_iter_eval.py` of the challenge "Foundation Models for Interactive 3D Biomedical Image
    Segmentation"; missed and surplus voxels that touch make one error.
    """
    error = mask != gt
    if not error.any():
        return None
    component = largest_component(error)
    depth = depth_of(component, spacing_mm)
    deepest = np.argwhere(depth == depth.max())
    chosen = np.random.RandomState(42).choice(len(deepest))
    voxel = tuple(int(i) for i in deepest[chosen])
    return Click(voxel, bool(gt[voxel]))


class DeepestErrorUser:
    """Clicks the voxel deepest inside missed or surplus voxels, never the same one twice.

    Parameters
    ----------
    spacing_mm : tuple of float, optional
        Distance between voxel centres; without it distances count voxels.
    valid : ndarray of bool, optional
        Where the truth is known.

    References
    ----------
    Sofiiuk et al. 2021 (RITM), arXiv:2102.06583, `isegm/inference/clicker.py`.
    """

    def __init__(self, spacing_mm: Spacing | None = None, valid: Mask | None = None) -> None:
        self._spacing_mm = spacing_mm
        self._valid = valid
        self._clicked: list[tuple[int, ...]] = []

    def __call__(self, mask: Mask, gt: Mask) -> Click | None:
        """Return the next click, or None when every error was clicked; a tie is a negative one."""
        missed, surplus = self._depth(gt & ~mask), self._depth(mask & ~gt)
        positive = bool(missed.max() > surplus.max())
        depth = missed if positive else surplus
        if depth.max() == 0:
            return None
        voxel = tuple(int(i) for i in np.unravel_index(depth.argmax(), depth.shape))
        self._clicked.append(voxel)
        return Click(voxel, positive)

    def _depth(self, error: Mask) -> NDArray[np.float64]:
        """Depth inside an error where the truth is known and nothing was clicked."""
        depth = depth_of(error if self._valid is None else error & self._valid, self._spacing_mm)
        for voxel in self._clicked:
            depth[voxel] = 0
        return depth


class JitteredUser:
    """Clicks the largest error like `click_largest_error`, but with an unsteady hand.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the hand goes.
    spacing_mm : tuple of float
        Distance between voxel centres.
    sigma_mm : float, optional
        Standard deviation of the hand's error; the click stays in the same error.
    p_wrong : float, optional
        How often the wrong button is pressed.

    References
    ----------
    Robot users against real ones: arXiv:2404.01816.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        spacing_mm: Spacing,
        sigma_mm: float = 2.0,
        p_wrong: float = 0.05,
    ) -> None:
        self._rng = rng
        self._spacing_mm = spacing_mm
        self._sigma_mm = sigma_mm
        self._p_wrong = p_wrong

    def __call__(self, mask: Mask, gt: Mask) -> Click | None:
        """Return the next click, or None if the masks are equal."""
        click = click_largest_error(mask, gt, self._spacing_mm)
        if click is None:
            return None
        shift = self._rng.normal(0, self._sigma_mm, gt.ndim) / np.array(self._spacing_mm)
        component = np.argwhere(largest_component(mask != gt))
        away_mm = (component - click.voxel - shift) * self._spacing_mm
        voxel = tuple(int(i) for i in component[(away_mm**2).sum(axis=1).argmin()])
        return Click(voxel, bool(gt[voxel]) != (self._rng.random() < self._p_wrong))


def correct(
    answer: Callable[[Mask, list[Click]], Mask], mask: Mask, gt: Mask, user: User, n_clicks: int
) -> list[Mask]:
    """Let a user correct a mask.

    Parameters
    ----------
    answer : callable
        Takes the mask and all clicks so far, oldest first, and returns the corrected mask.
    mask, gt : ndarray of bool
        Where the user starts, and what should be reached.
    user : callable
        Who clicks.
    n_clicks : int
        Clicks at most.

    Returns
    -------
    list of ndarray of bool
        The mask after 0, 1, … `n_clicks` clicks; the last one is repeated once the user is content.
    """
    masks, clicks = [mask], list[Click]()
    for _ in range(n_clicks):
        click = user(masks[-1], gt)
        if click is None:
            masks.append(masks[-1])
            continue
        clicks.append(click)
        masks.append(answer(masks[-1], list(clicks)))
    return masks


def largest_component(mask: Mask) -> Mask:
    """Return the largest piece of a mask, neighbours over corners included; the first on ties."""
    labels, n_labels = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if n_labels == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def depth_of(mask: Mask, spacing_mm: Spacing | None = None) -> NDArray[np.float64]:
    """Return the distance to outside the mask, beyond the array's border being outside.

    In mm, or in voxels without `spacing_mm`; 0 outside the mask.
    """
    depth = np.zeros(mask.shape)
    occupied = ndimage.find_objects(mask.astype(np.uint8))
    if not occupied:
        return depth
    inside = np.pad(mask[occupied[0]], 1)
    distance = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    depth[occupied[0]] = distance[(slice(1, -1),) * mask.ndim]
    return depth
