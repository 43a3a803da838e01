"""What TIFF files say about spacing: ImageJ in its description and tags, OME in XML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import mm_per

if TYPE_CHECKING:
    from pathlib import Path

    import tifffile
    from numpy.typing import NDArray

NAMESPACE = "napari-ka2er"


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """The numbers of a file as they stand there, per (Z, Y, X).

    Parameters
    ----------
    kind : str
        ``"imagej"``, ``"ome"`` or ``"plain"``.
    spacing, units : tuple
        Distance between voxel centres, in the unit of each axis.
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
        """Whether the file says anything of its spacing: programs write 1 where they know none."""
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
    """Return ImageJ's spacing: Z in the description, Y and X as pixels per unit in tags."""
    metadata = file.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    tags = file.pages.first.tags
    found = [tags[f"{a}Resolution"].value if f"{a}Resolution" in tags else (1, 1) for a in "XY"]
    x, y = ((int(n), int(d)) for n, d in found)
    spacing_x, spacing_y = (d / n if n else 0.0 for n, d in (x, y))
    spacing = (float(metadata.get("spacing", 1.0)), spacing_y, spacing_x)
    units = (unit, str(metadata.get("yunit", unit)), unit)
    return TiffHeader("imagej", spacing, units, resolution=(x, y))


def ome_header(xml: str, keep: dict[str, Any]) -> tuple[TiffHeader, tuple[str, ...]]:
    """Return OME's physical sizes, the first plane's position and the channels' names."""
    root = ElementTree.fromstring(xml)
    pixels = root.find(".//{*}Image/{*}Pixels")
    if pixels is None:
        raise ValueError("no Pixels in the OME-XML")
    z, y, x = (float(pixels.get(f"PhysicalSize{a}", "1")) for a in "ZYX")
    units = tuple(
        pixels.get(f"PhysicalSize{a}Unit", "µm" if pixels.get(f"PhysicalSize{a}") else "")
        for a in "ZYX"
    )
    plane = pixels.find("{*}Plane")
    position = (0.0, 0.0, 0.0)
    if plane is not None:
        position = tuple(_position(plane, a) for a in "ZYX")  # type: ignore[assignment]
    names = tuple(c.get("Name", f"channel {i}") for i, c in enumerate(pixels.findall("{*}Channel")))
    header = TiffHeader("ome", (z, y, x), units, position)  # type: ignore[arg-type]
    _own_fields(root, header, keep)
    return header, names


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
