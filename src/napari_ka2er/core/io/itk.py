"""NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import (
    as_values,
    damaged,
    refuse_time_series,
    same_place,
    stem,
    usable_affine,
)
from napari_ka2er.core.volume import REVERSE, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# (x, y, z, 1): left-posterior-superior <-> right-anterior-superior
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_GEOMETRY_FIELDS = (
    "space", "space dimension", "space directions", "space origin", "space units",
    "measurement frame",
)  # fmt: skip
_SEGMENTATION = "Segmentation_MasterRepresentation"  # 3D Slicer's fields for label maps


@dataclass(frozen=True, slots=True, eq=False)
class ItkHeader:
    """A file's own numbers, in ITK's x, y, z order and LPS, and an NRRD file's own lines.

    The numbers derived from the affine differ in the last digit, and so would the file.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nrrd_lines: tuple[str, ...]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Map (z, y, x, 1) to RAS+ mm; a plane gets a third axis of 1 mm."""
        n = len(self.spacing)
        matrix = np.eye(4)
        matrix[:n, :n] = np.reshape(self.direction, (n, n)) * np.array(self.spacing)
        matrix[:n, 3] = self.origin
        return np.asarray(REVERSE @ LPS @ matrix @ REVERSE, np.float64)


def read(path: Path) -> Volume:
    """Return the volume in an NRRD or MetaImage file.

    Raises
    ------
    UserError
        If the file is damaged or a time series, or its geometry or voxels cannot be used.
    """
    try:
        image = sitk.ReadImage(os.fspath(path))
    except (RuntimeError, MemoryError) as error:
        raise damaged("NRRD or MetaImage file", path, error) from error
    sizes = image.GetSize()
    if image.GetDimension() > 3 and max(sizes[3:]) > 1:
        refuse_time_series(sizes, path.name, "extract one time point first")
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    lines = _nrrd_lines(path) if path.suffix.lower() in (".nrrd", ".nhdr") else ()
    header = ItkHeader(image.GetSpacing(), image.GetOrigin(), image.GetDirection(), lines)
    data = _channels_first(image)
    n = image.GetNumberOfComponentsPerPixel()
    names = ("image",) if n == 1 else tuple(f"channel {i}" for i in range(n))
    keep: dict[str, Any] = {"itk": header}
    if image.HasMetaDataKey(_SEGMENTATION):
        keep["labels"] = _segments(image)
    affine = usable_affine(header.affine, path.name)
    return Volume(as_values(data, path.name), affine, names, stem(path), keep)


def write(path: Path, volume: Volume) -> None:
    """Write a volume with the numbers it was read with, or those of its affine."""
    header = volume.header.get("itk")
    if header is None or not same_place(header.affine, volume.affine):
        header = header_of(volume.affine)
    data = volume.data
    if len(header.spacing) == 2:
        data = data[..., 0, :, :]
    data = np.moveaxis(data, 0, -1) if volume.n_channels > 1 else data
    image = sitk.GetImageFromArray(data, isVector=volume.n_channels > 1)
    image.SetSpacing(header.spacing)
    image.SetOrigin(header.origin)
    image.SetDirection(header.direction)
    if "labels" in volume.header:
        _set_segments(image, volume.header["labels"])
    try:
        sitk.WriteImage(image, os.fspath(path), useCompression=True)
    except RuntimeError as error:
        raise UserError(
            f"to write {path.suffix} in {path.parent}",
            f"{error}".splitlines()[-1],
            "check permissions and free space",
        ) from error
    if header.nrrd_lines and path.suffix.lower() == ".nrrd":
        _put_lines(path, header.nrrd_lines, volume.n_channels > 1)


def header_of(affine: NDArray[np.float64]) -> ItkHeader:
    """Split an affine (z, y, x, 1) -> RAS+ mm into ITK's spacing, origin and direction."""
    matrix = LPS @ REVERSE @ affine @ REVERSE
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    direction = matrix[:3, :3] / spacing
    return ItkHeader(
        tuple(spacing.tolist()),
        tuple(matrix[:3, 3].tolist()),
        tuple(direction.ravel().tolist()),
        (),
    )


def _channels_first(image: sitk.Image) -> NDArray[Any]:
    """Return the voxels as (Z, Y, X) or (C, Z, Y, X)."""
    data = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(data, -1, 0)
    return np.expand_dims(data, -3) if image.GetDimension() == 2 else data


def _nrrd_lines(path: Path) -> tuple[str, ...]:
    """Return the lines of an NRRD header that hold its geometry, if it states directions."""
    with path.open("rb") as file:
        raw = takewhile(bytes.strip, file)  # up to the empty line, or the end of a detached header
        lines = [line.decode("utf-8", "replace").rstrip("\r\n") for line in raw]
    kept = tuple(line for line in lines if line.partition(":")[0] in _GEOMETRY_FIELDS)
    return kept if any(line.startswith("space directions:") for line in kept) else ()


def _put_lines(path: Path, lines: tuple[str, ...], is_vector: bool) -> None:
    """Exchange the geometry in an NRRD file for the lines of the image's file."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    kept = [x for x in head.decode().split("\n") if x.partition(":")[0] not in _GEOMETRY_FIELDS]
    own = [_directions(line, is_vector) for line in lines]
    place = 1 + next(i for i, line in enumerate(kept) if line.startswith("dimension:"))
    path.write_bytes("\n".join([*kept[:place], *own, *kept[place:]]).encode() + b"\n\n" + body)


def _directions(line: str, is_vector: bool) -> str:
    """Return the line; directions have a `none` for the channels, first as ITK writes, or not."""
    field, _, value = line.partition(":")
    if field != "space directions":
        return line
    spatial = value.replace("none", "").split()
    return f"{field}: {' '.join(['none'] * is_vector + spatial)}"


def _set_segments(image: sitk.Image, labels: list[tuple[int, str, str]]) -> None:
    """Describe the labels as 3D Slicer does."""
    image.SetMetaData(_SEGMENTATION, "Binary labelmap")
    for i, (value, name, color) in enumerate(labels):
        rgb = " ".join(f"{int(color[k : k + 2], 16) / 255:.6f}" for k in (1, 3, 5))
        fields = {"ID": f"Segment_{value}", "Name": name, "LabelValue": str(value), "Layer": "0"}
        for key, text in {**fields, "Color": rgb}.items():
            image.SetMetaData(f"Segment{i}_{key}", text)


def _segments(image: sitk.Image) -> list[tuple[int, str, str]]:
    """Return the (value, name, color) that 3D Slicer's fields describe."""
    found = []
    i = 0
    while image.HasMetaDataKey(f"Segment{i}_LabelValue"):
        field = {k: image.GetMetaData(f"Segment{i}_{k}") for k in ("LabelValue", "Name", "Color")}
        rgb = "".join(f"{round(float(c) * 255):02X}" for c in field["Color"].split())
        found.append((int(field["LabelValue"]), field["Name"], f"#{rgb}"))
        i += 1
    return found
