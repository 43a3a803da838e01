"""Images with a position in the scanner: arrays in (Z, Y, X), lengths in mm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Reverses the axis order of a homogeneous coordinate: (x, y, z, 1) <-> (z, y, x, 1).
REVERSE = np.eye(4)[[2, 1, 0, 3]]
_LAST_ROW = (0.0, 0.0, 0.0, 1.0)
# Volume of a voxel with edges of length 1: below, axes differ by no more than headers' rounding.
_FLATTEST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """A lattice of voxels and its place in the world.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels along (Z, Y, X), each at least 1.
    affine : ndarray, shape (4, 4)
        Maps a voxel index ``(z, y, x, 1)`` to a RAS+ position ``(z, y, x, 1)`` in mm.  This is the
        order of `napari.layers.Image`; NIfTI files store the reverse.

    Raises
    ------
    UserError
        If the affine is not a finite, invertible (4, 4) matrix.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if not is_invertible(affine):
            raise UserError(
                "a finite, invertible (4, 4) affine",
                f"{affine.tolist()}",
                "repair the spacing and orientation in the file's header",
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (Z, Y, X), in mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Size of the lattice along its own axes, in mm."""
        z, y, x = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        return z, y, x

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles, as where a CT's gantry is tilted.

        ITK, which allows as much as `1e-4`, refuses to read NIfTI files of such.
        """
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)

    def to_world(self, index: ArrayLike) -> NDArray[np.float64]:
        """Return the RAS+ positions (z, y, x) in mm of voxel indices, shape (..., 3)."""
        points = np.asarray(index, dtype=np.float64)
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, world_mm: ArrayLike) -> NDArray[np.float64]:
        """Return the fractional voxel indices of RAS+ positions (z, y, x), shape (..., 3)."""
        inverse = np.linalg.inv(self.affine)
        points = np.asarray(world_mm, dtype=np.float64)
        index: NDArray[np.float64] = points @ inverse[:3, :3].T + inverse[:3, 3]
        return index

    def contains(self, world_mm: ArrayLike) -> bool:
        """Return whether every position lies in a voxel of the lattice."""
        index = self.to_index(world_mm)
        return bool(np.all((index >= -0.5) & (index <= np.array(self.shape) - 0.5)))

    def is_close(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Return whether both lattices have the same shape, and corners alike to `tolerance_mm`.

        The tolerance is at most a twentieth of a voxel: one of a microscope is below 1 µm.
        """
        if self.shape != other.shape:
            return False
        tolerance_mm = min(tolerance_mm, 0.05 * min(self.spacing))
        return bool(np.abs(corners(self) - corners(other)).max() <= tolerance_mm)


def is_invertible(affine: NDArray[np.float64]) -> bool:
    """Return whether a matrix is a finite (4, 4) affine whose axes have lengths and differ.

    The axes' lengths do not count: voxels of a microscope are as good as those of a scanner.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return False
    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(lengths).all() or not lengths.all() or not np.allclose(affine[3], _LAST_ROW):
        return False
    return bool(abs(np.linalg.det(axes / lengths)) >= _FLATTEST)


def corners(geometry: Geometry) -> NDArray[np.float64]:
    """Return the RAS+ positions (z, y, x) of the eight corner voxels' centres, shape (8, 3)."""
    ends = np.array(geometry.shape) - 1
    index = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * ends
    return geometry.to_world(index)


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A 3D image, of one or several channels, and its place in the world.

    Parameters
    ----------
    data : ndarray, shape (Z, Y, X) or (C, Z, Y, X)
        Voxel values.  Made read-only, so that a volume can be shared between threads.
    affine : ndarray, shape (4, 4)
        Maps a voxel index ``(z, y, x, 1)`` to a RAS+ position ``(z, y, x, 1)`` in mm.
    channel_names : tuple of str, optional
        One name per channel; ``("image",)`` where nothing is known.
    name : str, optional
        What to call the volume in messages and layer names.
    header : mapping, optional
        What the reader keeps so that labels can be written with the very same header; opaque to
        everything but `napari_ka2er.core.io`.

    Raises
    ------
    UserError
        If `data` is not 3D or 4D, is empty, or `affine` cannot be used.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]
    channel_names: tuple[str, ...] = ("image",)
    name: str = "volume"
    header: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim not in (3, 4) or 0 in self.data.shape:
            raise UserError(
                "a non-empty volume in (Z, Y, X) or (C, Z, Y, X)",
                f"an array of shape {self.data.shape}",
                "choose one time point, or add the missing axis",
            )
        if self.n_channels != len(self.channel_names):
            raise UserError(
                f"{self.n_channels} channel names",
                f"{len(self.channel_names)}: {self.channel_names}",
            )
        object.__setattr__(self, "affine", self.geometry.affine)
        self.data.setflags(write=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (Z, Y, X)."""
        z, y, x = self.data.shape[-3:]
        return int(z), int(y), int(x)

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0]) if self.data.ndim == 4 else 1

    @property
    def channels(self) -> NDArray[Any]:
        """The data as (C, Z, Y, X), also for one channel."""
        return self.data if self.data.ndim == 4 else self.data[None]

    @property
    def geometry(self) -> Geometry:
        """The lattice without the values."""
        return Geometry(self.shape, self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (Z, Y, X), in mm."""
        return self.geometry.spacing

    def digest(self) -> str:
        """Return the SHA-256 of values and place; equal volumes have equal digests."""
        data = np.ascontiguousarray(self.data)
        sha = hashlib.sha256(f"{data.dtype.str}{data.shape}".encode())
        sha.update(np.round(self.affine, 6).astype("<f8").tobytes())
        sha.update(data.data if data.size else b"")
        return sha.hexdigest()
