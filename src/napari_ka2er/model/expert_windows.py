"""Where an expert's windows lie: its working grid on a volume, and cores with halos on it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Geometry


@dataclass(frozen=True, slots=True, eq=False)
class WorkingGrid:
    """The lattice on which an expert sees a volume: cropped, transposed and resampled.

    It is padded up to whole tokens, so that every stage has one lattice of tokens for the volume;
    windows look at no more of that than `seen_shape`.

    Parameters
    ----------
    geometry : Geometry
        The volume's lattice.
    transpose : tuple of int
        The volume's axes in the expert's order.
    crop : tuple of tuple of int
        First and last + 1 voxel of the non-zero box, along the volume's axes.
    shape : tuple of int
        Size after resampling, along the expert's axes.
    before, after : tuple of int
        Voxels of padding, along the expert's axes.
    patch : tuple of int
        The expert's window.
    """

    geometry: Geometry
    transpose: tuple[int, ...]
    crop: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    patch: tuple[int, ...]

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Size of what windows look at: the image, padded up to the patch where it is smaller."""
        return tuple(max(n, p) for n, p in zip(self.shape, self.patch, strict=True))

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """Size with padding."""
        return tuple(b + n + a for b, n, a in zip(self.before, self.shape, self.after, strict=True))

    @property
    def scale(self) -> NDArray[np.float64]:
        """Working voxels per voxel of the volume, along the expert's axes."""
        old = [self.crop[axis][1] - self.crop[axis][0] for axis in self.transpose]
        ratio: NDArray[np.float64] = np.array(self.shape) / np.array(old)
        return ratio

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance of working voxels in mm, along the expert's axes."""
        return np.array(self.geometry.spacing)[list(self.transpose)] / self.scale

    @property
    def from_world(self) -> NDArray[np.float64]:
        """Matrix (4, 4) from world (z, y, x, 1) in mm to fractional indices of the padded grid.

        Voxels are cells: resampling N voxels to M takes index p to (p + 0.5) M / N - 0.5, which is
        what scikit-image, SciPy's `grid_mode` and PyTorch without `align_corners` do.
        """
        to_cropped = np.zeros((4, 4))
        to_cropped[range(3), list(self.transpose)] = 1
        to_cropped[:3, 3] = [-self.crop[axis][0] for axis in self.transpose]
        to_cropped[3, 3] = 1
        resample = np.diag([*self.scale, 1.0])
        resample[:3, 3] = (self.scale - 1) / 2 + np.array(self.before)
        matrix: NDArray[np.float64] = resample @ to_cropped @ np.linalg.inv(self.geometry.affine)
        return matrix

    def stage(self, stride: Sequence[int], centre: Sequence[float]) -> NDArray[np.float64]:
        """Matrix from world to the tokens of a stage whose token 0 looks at voxel `centre`."""
        step = np.diag([*(1 / np.array(stride, dtype=np.float64)), 1.0])
        step[:3, 3] = -np.array(centre) / np.array(stride)
        matrix: NDArray[np.float64] = step @ self.from_world
        return matrix

    def field(self, stride: Sequence[int], centre: Sequence[float]) -> NDArray[np.float64]:
        """Return the ends of the image, without padding, in token indices; shape (2, 3)."""
        low = np.array(self.before) - 0.5
        ends = np.stack([low, low + np.array(self.shape)])
        tokens: NDArray[np.float64] = (ends - np.array(centre)) / np.array(stride)
        return tokens


def padding(
    shape: Sequence[int], patch: Sequence[int], stride: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the voxels to add before and after for a lattice of whole tokens.

    Axes shorter than the patch are padded evenly up to it as nnU-Net does; the others at their end
    up to a multiple of the stride.
    """
    missing = [max(p - n, 0) for n, p in zip(shape, patch, strict=True)]
    before = tuple(m // 2 for m in missing)
    whole = (-(-max(n, p) // s) * s for n, p, s in zip(shape, patch, stride, strict=True))
    after = tuple(w - n - b for w, n, b in zip(whole, shape, before, strict=True))
    return before, after


@dataclass(frozen=True, slots=True)
class AxisWindow:
    """A window along one axis: where it starts, and the part of it that is kept."""

    start: int
    core_low: int
    core_high: int


def axis_windows(length: int, patch: int, stride: int) -> tuple[AxisWindow, ...]:
    """Cover an axis with windows whose cores touch and do not overlap.

    The last window ends where the image ends, as nnU-Net's does, and so its tokens lie between
    those of the others.  A window that reached whole tokens into padding cost an expert of
    vertebrae .025 Dice: instance normalisation makes every feature depend on it.

    Parameters
    ----------
    length : int
        Voxels of the image, at least `patch`.
    patch : int
        Size of a window, a multiple of `stride`.
    stride : int
        Total stride of the network; all positions but the last start are multiples of it.

    Returns
    -------
    tuple of AxisWindow
        With a halo of about an eighth of the patch, less where the patch has only few tokens, and
        none at the ends of the axis.  Cores cover whole tokens, up to `length` rounded up.
    """
    tokens = patch // stride
    halo = stride * min(-(-patch // (8 * stride)), (tokens - 1) // 2)
    starts = [*range(0, length - patch, patch - 2 * halo), length - patch]
    borders = [_border(a + patch - halo, b + halo, stride) for a, b in pairwise(starts)]
    ends = pairwise([0, *borders, -(-length // stride) * stride])
    return tuple(
        AxisWindow(start, low, high) for start, (low, high) in zip(starts, ends, strict=True)
    )


def _border(high: int, low: int, stride: int) -> int:
    """Return the multiple of `stride` nearest to the middle of low … high; `high` is one."""
    middle = round((low + high) / (2 * stride)) * stride
    return min(max(middle, -(-low // stride) * stride), high)


class WindowGrid:
    """All windows of an expert on what it sees of a volume, numbered along (z, y, x)."""

    def __init__(self, shape: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> None:
        self.axes = tuple(
            axis_windows(n, p, s) for n, p, s in zip(shape, patch, stride, strict=True)
        )
        self.patch = tuple(patch)
        self.shape = tuple(len(axis) for axis in self.axes)

    def window(self, index: Sequence[int]) -> tuple[slice, ...]:
        """Return the voxels that the network sees."""
        axes = zip(self.axes, index, self.patch, strict=True)
        return tuple(slice(a[i].start, a[i].start + p) for a, i, p in axes)

    def core(self, index: Sequence[int], stride: Sequence[int]) -> tuple[slice, ...]:
        """Return the tokens of a stage that are kept."""
        chosen = (axis[i] for axis, i in zip(self.axes, index, strict=True))
        pairs = zip(chosen, stride, strict=True)
        return tuple(slice(w.core_low // s, w.core_high // s) for w, s in pairs)

    def touching(
        self, low: NDArray[np.int_], high: NDArray[np.int_], stride: Sequence[int]
    ) -> set[tuple[int, ...]]:
        """Return the windows whose core holds one of the tokens ``low … high`` of a stage."""
        chosen = [
            [i for i, w in enumerate(axis) if w.core_low // s <= b and w.core_high // s > a]
            for axis, s, a, b in zip(self.axes, stride, low, high, strict=True)
        ]
        return set(product(*chosen))
