"""NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import (
    as_values,
    damaged,
    mm_per,
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
# ITK knows its modules by suffixes in lower or upper case, and MetaImage's in lower case only.
_MODULES = {
    ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO",
}  # fmt: skip
_VOXEL_UNITS = "ITK_VoxelUnits"  # ITK's name for MetaImage's DistanceUnits
_META_UNITS = ("um", "mm", "cm")  # all that DistanceUnits can be


@dataclass(frozen=True, slots=True, eq=False)
class ItkHeader:
    """A file's own numbers, in ITK's x, y, z order and LPS, and an NRRD file's own lines.

    The numbers derived from the affine differ in the last digit, and so would the file.  ITK leaves
    them in the file's unit; none is mm.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nrrd_lines: tuple[str, ...] = ()
    unit: str = ""

    @property
    def affine(self) -> NDArray[np.float64]:
        """Map (z, y, x, 1) to RAS+ mm; a plane gets a third axis of 1 mm."""
        n, mm = len(self.spacing), mm_per(self.unit)
        matrix = np.eye(4)
        matrix[:n, :n] = np.reshape(self.direction, (n, n)) * np.array(self.spacing) * mm
        matrix[:n, 3] = np.array(self.origin) * mm
        return np.asarray(REVERSE @ LPS @ matrix @ REVERSE, np.float64)

    def fits(self, suffix: str) -> bool:
        """Whether a file of this format can state the unit of these numbers."""
        if mm_per(self.unit) == 1:
            return True
        if suffix == ".nrrd":
            return any(_field(line) == "space units" for line in self.nrrd_lines)
        return self.unit in _META_UNITS


def read(path: Path) -> Volume:
    """Return the volume in an NRRD or MetaImage file.

    Raises
    ------
    UserError
        If the file is damaged or a time series, or its geometry, unit or voxels cannot be used.
    """
    module = _MODULES[path.suffix.lower()]
    try:
        image = sitk.ReadImage(os.fspath(path), imageIO=module)
    except (RuntimeError, MemoryError) as error:
        raise damaged("NRRD or MetaImage file", path, error) from error
    sizes = image.GetSize()
    if image.GetDimension() > 3 and max(sizes[3:]) > 1:
        refuse_time_series(sizes, path.name, "extract one time point first")
    if image.GetDimension() > 3:
        image = image[(slice(None),) * 3 + (0,) * (image.GetDimension() - 3)]
    lines = _nrrd_lines(path) if module == "NrrdImageIO" else []
    unit = _nrrd_unit(lines, path.name)
    if module == "MetaImageIO" and image.HasMetaDataKey(_VOXEL_UNITS):
        unit = image.GetMetaData(_VOXEL_UNITS)
    place = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
    header = ItkHeader(*place, _geometry(lines), unit)
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
    suffix = path.suffix.lower()
    header = volume.header.get("itk")
    if header is None or not (header.fits(suffix) and same_place(header.affine, volume.affine)):
        header = header_of(volume.affine)
    data = volume.data
    if len(header.spacing) == 2:
        data = data[..., 0, :, :]
    data = np.moveaxis(data, 0, -1) if volume.n_channels > 1 else data
    image = sitk.GetImageFromArray(data, isVector=volume.n_channels > 1)
    image.SetSpacing(header.spacing)
    image.SetOrigin(header.origin)
    image.SetDirection(header.direction)
    if suffix == ".mha" and header.unit in _META_UNITS:
        image.SetMetaData(_VOXEL_UNITS, header.unit)
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
    if header.nrrd_lines and suffix == ".nrrd":
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
    )


def _channels_first(image: sitk.Image) -> NDArray[Any]:
    """Return the voxels as (Z, Y, X) or (C, Z, Y, X)."""
    data = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(data, -1, 0)
    return np.expand_dims(data, -3) if image.GetDimension() == 2 else data


def _nrrd_lines(path: Path) -> list[str]:
    """Return the lines of an NRRD header."""
    with path.open("rb") as file:
        raw = takewhile(bytes.strip, file)  # up to the empty line, or the end of a detached header
        return [line.decode("utf-8", "replace").rstrip("\r\n") for line in raw]


def _field(line: str) -> str:
    """Return the name of the field in a line of an NRRD header, whose case does not count."""
    return line.partition(":")[0].lower()


def _geometry(lines: list[str]) -> tuple[str, ...]:
    """Return the lines that hold the geometry, if they state directions."""
    kept = tuple(line for line in lines if _field(line) in _GEOMETRY_FIELDS)
    return kept if any(_field(line) == "space directions" for line in kept) else ()


def _nrrd_unit(lines: list[str], name: str) -> str:
    """Return the unit of length in an NRRD header, "" if it has none.

    Raises
    ------
    UserError
        If it is unknown, or the axes have different ones.
    """
    stated = " ".join(line for line in lines if _field(line) in ("space units", "units"))
    found = [re.sub(r"(?<=...)s$", "", unit) for unit in re.findall(r'"([^"]+)"', stated)]
    if len({mm_per(unit) for unit in found}) > 1:
        raise UserError(
            "one unit for all axes", f"{', '.join(found)} in {name}", "store the volume in mm"
        )
    return found[0] if found else ""


def _put_lines(path: Path, lines: tuple[str, ...], is_vector: bool) -> None:
    """Exchange the geometry in an NRRD file for the lines of the image's file."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    kept = [x for x in head.decode().split("\n") if _field(x) not in _GEOMETRY_FIELDS]
    own = [_directions(line, is_vector) for line in lines]
    place = 1 + next(i for i, line in enumerate(kept) if line.startswith("dimension:"))
    path.write_bytes("\n".join([*kept[:place], *own, *kept[place:]]).encode() + b"\n\n" + body)


def _directions(line: str, is_vector: bool) -> str:
    """Return the line; directions have a `none` for the channels, first as ITK writes, or not."""
    field, _, value = line.partition(":")
    if _field(line) != "space directions":
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
    """Return the (value, name, color) of each segment that 3D Slicer's fields describe in full."""
    keys = (re.match(r"Segment(\d+)_", key) for key in image.GetMetaDataKeys())
    numbers = sorted({int(key[1]) for key in keys if key})
    described = (_segment(image, f"Segment{number}_") for number in numbers)
    return [segment for segment in described if segment is not None]


def _segment(image: sitk.Image, prefix: str) -> tuple[int, str, str] | None:
    """Return a segment's value, name and color, None if a field is missing or cannot be read."""
    keys = [f"{prefix}{field}" for field in ("LabelValue", "Name", "Color")]
    if not all(image.HasMetaDataKey(key) for key in keys):
        return None
    value, name, color = (image.GetMetaData(key) for key in keys)
    try:
        label, rgb = int(value), [round(float(part) * 255) for part in color.split()]
    except (ValueError, OverflowError):
        return None
    if label < 1 or len(rgb) != 3 or not all(0 <= part <= 255 for part in rgb):
        return None
    return label, name, "#{:02X}{:02X}{:02X}".format(*rgb)
