"""What TIFF files say about spacing: ImageJ in its description and tags, OME in XML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import mm_per

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import tifffile
    from numpy.typing import NDArray

NAMESPACE = "napari-ka2er"
_T = TypeVar("_T")
_OME_UNITS = {mm_per(unit): unit for unit in ("nm", "µm", "mm", "cm", "m", "Å", "in")}


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """The numbers of a file as they stand there, per (Z, Y, X).

    Parameters
    ----------
    kind : str
        ``"imagej"``, ``"ome"`` or ``"plain"``.
    spacing, units : tuple
        Distance between voxel centres, in the unit of each axis; NaN along an axis of which the
        file says none, though it does of others.
    position : tuple of float
        Position of the first voxel, in mm.
    resolution : tuple, optional
        ImageJ's pixels per unit along (X, Y) as the fractions in the file.
    """

    kind: str
    spacing: tuple[float, float, float]
    units: tuple[str, str, str]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    resolution: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def affine(self) -> NDArray[np.float64]:
        """Map (z, y, x, 1) to mm, in the order of the file's axes."""
        pairs = zip(self.spacing, self.units, strict=True)
        affine = np.diag([*(s * mm_per(u) for s, u in pairs), 1.0])
        affine[:3, 3] = self.position
        return affine

    @property
    def has_spacing(self) -> bool:
        """Whether the file says all of its spacing: programs write 1 where they know none."""
        if np.isnan(self.spacing).any():
            return False
        is_named = any(unit not in ("", "pixel", "pixels") for unit in self.units)
        return is_named or self.spacing != (1.0, 1.0, 1.0)


def sidecar_header(path: Path) -> TiffHeader | None:
    """Return the spacing (Z, Y, X) in mm that nnU-Net keeps beside a TIFF file, None if none.

    It lies in ``case.json``, for the image ``case_0000.tif`` as for the label map ``case.tif``.

    Raises
    ------
    UserError
        If the file is damaged, or its spacing is not three lengths above 0.
    """
    names = dict.fromkeys((path.stem, re.sub(r"_\d{4}$", "", path.stem)))
    found = [path.with_name(f"{name}.json") for name in names]
    sidecar = next((each for each in found if each.is_file()), None)
    if sidecar is None:
        return None
    wanted = 'three lengths above 0 as "spacing"'
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "spacing" not in content:
            return None  # of another program
        z, y, x = (float(length) for length in content["spacing"])
    except (OSError, ValueError, TypeError) as error:
        raise UserError(wanted, f"{error} in {sidecar.name}", f"repair {sidecar}") from error
    if not all(np.isfinite(s) and s > 0 for s in (z, y, x)):
        raise UserError(wanted, f"{(z, y, x)} in {sidecar.name}", f"repair {sidecar}")
    return TiffHeader("plain", (z, y, x), ("mm", "mm", "mm"))


def imagej_header(file: tifffile.TiffFile) -> TiffHeader:
    """Return ImageJ's spacing: Z in the description, Y and X as pixels per unit in tags.

    ImageJ leaves out a spacing of 1 along Z, and the units of Y and Z where they are that of X.
    """
    metadata = file.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    tags = file.pages.first.tags
    found = [tags[f"{a}Resolution"].value if f"{a}Resolution" in tags else (1, 1) for a in "XY"]
    x, y = ((int(n), int(d)) for n, d in found)
    spacing_x, spacing_y = (d / n if n else 0.0 for n, d in (x, y))
    spacing = (float(metadata.get("spacing", 1.0)), spacing_y, spacing_x)
    units = (str(metadata.get("zunit", unit)), str(metadata.get("yunit", unit)), unit)
    return TiffHeader("imagej", spacing, _per_axis(map(_unescaped, units)), resolution=(x, y))


def imagej_units(units: tuple[str, str, str]) -> dict[str, str]:
    """Return the fields of ImageJ's description for the units of (Z, Y, X), in its escapes."""
    z, y, x = (_escaped(unit) for unit in units)
    return {"unit": x} | ({"yunit": y} if y != x else {}) | ({"zunit": z} if z != x else {})


def _escaped(unit: str) -> str:
    """Return a unit in ASCII, all else in Java's escapes, which ImageJ reads and writes."""
    return "".join(c if c.isascii() else f"\\u{ord(c):04X}" for c in unit)


def _unescaped(unit: str) -> str:
    """Undo `_escaped`."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), unit)


def ome_unit(unit: str) -> str:
    """Return OME's name of a unit; lengths without one count as mm."""
    return "pixel" if unit.strip().lower() in ("pixel", "pixels") else _OME_UNITS[mm_per(unit)]


def ome_header(xml: str, keep: dict[str, Any]) -> tuple[TiffHeader, tuple[str, ...]]:
    """Return OME's physical sizes, the first plane's position and the channels' names."""
    root = ElementTree.fromstring(xml)
    pixels = root.find(".//{*}Image/{*}Pixels")
    if pixels is None:
        raise ValueError("no Pixels in the OME-XML")
    sizes = {a: pixels.get(f"PhysicalSize{a}") for a in "ZYX"}
    units = _per_axis(pixels.get(f"PhysicalSize{a}Unit", "µm" if sizes[a] else "") for a in "ZYX")
    plane = pixels.find("{*}Plane")
    position = (0.0, 0.0, 0.0)
    if plane is not None:
        position = _per_axis(_position(plane, a) for a in "ZYX")
    names = tuple(c.get("Name", f"channel {i}") for i, c in enumerate(pixels.findall("{*}Channel")))
    header = TiffHeader("ome", _per_axis(_size(pixels, a) for a in "ZYX"), units, position)
    _own_fields(root, header, keep)
    return header, names


def _per_axis(values: Iterable[_T]) -> tuple[_T, _T, _T]:
    """Return three values as the tuple of three that they are."""
    z, y, x = values
    return z, y, x


def _size(pixels: ElementTree.Element, axis: str) -> float:
    """Return a voxel's size in the file's unit; 1 where the file has none, or only one voxel.

    Where it has sizes of other axes it is NaN: in a stack of 0.5 µm pixels, slices 1 mm or 1 µm
    apart would be a wrong guess each, by which all else is scaled.
    """
    stated = pixels.get(f"PhysicalSize{axis}")
    if stated is not None:
        return float(stated)
    is_any = any(pixels.get(f"PhysicalSize{a}") for a in "ZYX")
    return float("nan") if is_any and int(pixels.get(f"Size{axis}", "1")) > 1 else 1.0


def _position(plane: ElementTree.Element, axis: str) -> float:
    """Return a plane's stage position in mm; positions in OME's reference frame have no length."""
    unit = plane.get(f"Position{axis}Unit", "reference frame")
    if unit == "reference frame":
        return 0.0
    return float(plane.get(f"Position{axis}", "0")) * mm_per(unit)


def _own_fields(root: ElementTree.Element, header: TiffHeader, keep: dict[str, Any]) -> None:
    """Take the affine and labels of `tiff.write`, unless a program changed the spacing since."""
    for entry in root.iterfind(
        f".//{{*}}MapAnnotation[@Namespace='{NAMESPACE}']/{{*}}Value/{{*}}M"
    ):
        value = json.loads(entry.text or "null")
        if entry.get("K") == "labels":
            keep["labels"] = [tuple(label) for label in value]
        elif entry.get("K") == "affine":
            spacing = np.linalg.norm(np.array(value, float)[:3, :3], axis=0)
            if np.allclose(spacing, np.diag(header.affine)[:3], rtol=1e-6):
                keep["affine"] = value
