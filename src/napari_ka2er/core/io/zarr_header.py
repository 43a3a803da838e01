"""The metadata of OME-Zarr 0.4 and 0.5: axes, scale, translation, channels and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import mm_per

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Volume

NAMESPACE = "napari-ka2er"


@dataclass(frozen=True, slots=True)
class ZarrHeader:
    """One level's numbers as they stand in the file, per (Z, Y, X).

    Parameters
    ----------
    version : str
        Version of OME-Zarr, ``"0.4"`` or ``"0.5"``.
    scale, translation : tuple of float
        Index to position, in the unit of each axis.
    units : tuple of str
        ``"micrometer"`` and so on; empty where the file names none.
    """

    version: str
    scale: tuple[float, float, float]
    translation: tuple[float, float, float]
    units: tuple[str, str, str]

    @property
    def affine(self) -> NDArray[np.float64]:
        """Map (z, y, x, 1) to mm, in the order of the file's axes."""
        mm = np.array([mm_per(unit) for unit in self.units])
        affine = np.diag([*(mm * self.scale), 1.0])
        affine[:3, 3] = mm * self.translation
        return affine


def multiscale_of(attributes: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], str]:
    """Return the first image's description and the version of OME-Zarr."""
    ome = attributes.get("ome", attributes)
    found = ome.get("multiscales")
    if not found:
        kind = next(
            (k for k in ("plate", "well", "bioformats2raw.layout", "labels") if k in ome),
            "no image",
        )
        raise UserError(
            "an OME-Zarr image",
            f"{path.name}, which holds {kind}",
            "give the folder of one image in it",
        )
    version = str(ome.get("version", found[0].get("version", "0.4")))
    if "axes" not in found[0] or version not in ("0.4", "0.5"):
        raise UserError(
            "OME-Zarr version 0.4 or 0.5", f"version {version}", "convert it with ome_zarr"
        )
    return found[0], version


def dataset_of(multiscale: Mapping[str, Any], level: int, path: Path) -> dict[str, Any]:
    """Return the description of one level."""
    datasets = multiscale["datasets"]
    if not 0 <= level < len(datasets):
        raise UserError(f"a level from 0 to {len(datasets) - 1} of {path.name}", f"{level}")
    return dict(datasets[level])


def header_of(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], version: str
) -> tuple[ZarrHeader, list[str]]:
    """Return a level's scale and translation along (Z, Y, X), and the names of all axes."""
    axes = [str(axis["name"]).lower() for axis in multiscale["axes"]]
    units = {str(a["name"]).lower(): str(a.get("unit", "")) for a in multiscale["axes"]}
    scale, translation = np.ones(len(axes)), np.zeros(len(axes))
    steps = [
        *dataset["coordinateTransformations"],
        *multiscale.get("coordinateTransformations", []),
    ]
    for step in steps:
        if step["type"] == "scale":
            scale, translation = scale * step["scale"], translation * step["scale"]
        elif step["type"] == "translation":
            translation = translation + step["translation"]
    of = {a: (float(s), float(t)) for a, s, t in zip(axes, scale, translation, strict=True)}
    z, y, x = (of.get(a, (1.0, 0.0)) for a in "zyx")
    header = ZarrHeader(
        version,
        (z[0], y[0], x[0]),
        (z[1], y[1], x[1]),
        (units.get("z", ""), units["y"], units["x"]),
    )
    return header, axes


def channel_names(attributes: Mapping[str, Any], version: str) -> tuple[str, ...]:
    """Return the channels' names that OMERO's block holds."""
    ome = attributes["ome"] if version == "0.5" and "ome" in attributes else attributes
    channels = (ome.get("omero") or {}).get("channels") or []
    return tuple(str(c.get("label", f"channel {i}")) for i, c in enumerate(channels))


def own_fields(
    attributes: Mapping[str, Any], header: ZarrHeader, finest: ZarrHeader, keep: dict[str, Any]
) -> None:
    """Take the labels, and the affine of `write` unless somebody changed the scale since.

    The affine is that of the finest level; `header` tells where the indices of its own level lie.
    """
    block = attributes.get("ome", attributes).get("image-label")
    if block is not None:
        rgba = {c["label-value"]: c.get("rgba", (0, 0, 0, 255)) for c in block.get("colors", [])}
        keep["labels"] = [
            (p["label-value"], p["name"], "#" + bytes(rgba[p["label-value"]][:3]).hex().upper())
            for p in block.get("properties", [])
            if "name" in p and p["label-value"] in rgba
        ]
    affine = attributes.get(NAMESPACE, {}).get("affine")
    if affine is not None:
        matrix = np.array(affine, float)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if np.allclose(spacing, np.abs(np.diag(finest.affine)[:3]), rtol=1e-6):
            to_finest = np.linalg.solve(finest.affine, header.affine)
            keep["affine"] = matrix if header == finest else matrix @ to_finest


def metadata_of(volume: Volume, header: ZarrHeader) -> dict[str, Any]:
    """Return the OME block: axes, scale, translation, and names of channels or labels."""
    has_channels = volume.data.ndim == 4
    axes = [{"name": "c", "type": "channel"}] if has_channels else []
    for name, unit in zip("zyx", header.units, strict=True):
        axes.append({"name": name, "type": "space", **({"unit": unit} if unit else {})})
    lead = [1.0] * has_channels
    steps = [
        {"type": "scale", "scale": [*lead, *header.scale]},
        {"type": "translation", "translation": [*(0.0 for _ in lead), *header.translation]},
    ]
    image = {
        "name": volume.name,
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    old = {"version": header.version} if header.version == "0.4" else {}
    metadata: dict[str, Any] = {"multiscales": [{**image, **old}]}
    if has_channels:
        metadata["omero"] = {
            "channels": [
                {"label": n, "color": "FFFFFF", "window": _window(volume)}
                for n in volume.channel_names
            ]
        }
    if "labels" in volume.header:
        metadata["image-label"] = {**_label_block(volume.header["labels"]), **old}
    return metadata


def _window(volume: Volume) -> dict[str, float]:
    """Return the range of values, which OMERO's block must have."""
    low, high = float(volume.data.min()), float(volume.data.max())
    return {"min": low, "max": high, "start": low, "end": high}


def _label_block(labels: list[tuple[int, str, str]]) -> dict[str, Any]:
    """Return names and colours of the labels as OME-Zarr wants them."""
    if not labels:
        return {}
    colors = [
        {"label-value": v, "rgba": [*bytes.fromhex(color[1:]), 255]} for v, _, color in labels
    ]
    return {
        "colors": colors,
        "properties": [{"label-value": v, "name": name} for v, name, _ in labels],
    }
