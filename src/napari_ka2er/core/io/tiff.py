"""TIFF, ImageJ TIFF and OME-TIFF through tifffile."""

from __future__ import annotations

import json
import logging
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import (
    as_values,
    damaged,
    logged,
    refuse_time_series,
    same_place,
    stem,
    usable_affine,
)
from napari_ka2er.core.io.tiff_header import (
    NAMESPACE,
    TiffHeader,
    imagej_header,
    imagej_units,
    ome_header,
    ome_unit,
    sidecar_header,
)
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_READ_ERRORS = (
    OSError, ValueError, IndexError, KeyError, TypeError, RuntimeError, MemoryError, struct.error,
    zlib.error, ElementTree.ParseError, tifffile.TiffFileError,
)  # fmt: skip
# From here on classic TIFF is too small.  tifffile sees to it itself, unless data are compressed.
_CLASSIC_BYTES = 2**32 - 2**25
_IMAGEJ_TYPES = (np.uint8, np.uint16, np.float32)


def read(path: Path) -> Volume:
    """Return the volume in the first image of a TIFF file.

    The spacing is ImageJ's or OME's.  Where the file has none, nnU-Net's ``<case>.json`` beside it
    counts, and without one 1 mm; but of an axis of several voxels it must be known if that of
    others is.

    Raises
    ------
    UserError
        If the file is damaged or a time series, or its spacing or voxels cannot be used.
    """
    keep: dict[str, Any] = {}
    try:
        with logged("tifffile") as records, tifffile.TiffFile(path) as file:
            _refuse_missing_pages(file, path)
            series = file.series[0]
            data, axes = series.asarray(), series.axes
            header, names = _header(file, keep)
        _refuse_complaints(records)
    except UserError:
        raise
    except _READ_ERRORS as error:
        raise damaged("TIFF file", path, error) from error
    if not header.has_spacing:
        header = sidecar_header(path) or header
    data = as_values(_channels_first(data, axes, path.name), path.name)
    n = 1 if data.ndim == 3 else len(data)
    if len(names) != n:
        rgb = ("red", "green", "blue", "alpha")
        names = rgb[:n] if "S" in axes and n <= 4 else tuple(f"channel {i}" for i in range(n))
    names = ("image",) if n == 1 else names
    _refuse_spacing(header, path)
    affine = usable_affine(np.array(keep.pop("affine", header.affine)), path.name)
    return Volume(data, affine, names, stem(path), {**keep, "tiff": header})


def write(path: Path, volume: Volume) -> None:
    """Write an ImageJ TIFF where the volume came from one, an OME-TIFF else."""
    header = volume.header.get("tiff")
    if header is None or not same_place(header.affine, volume.affine):
        spacing, units = volume.spacing, ("mm", "mm", "mm")
        header = TiffHeader("ome", spacing, units, tuple(volume.affine[:3, 3].tolist()))
    data = volume.data
    if header.kind == "imagej" and data.dtype in _IMAGEJ_TYPES:
        _write_imagej(path, data, header)
    elif data.dtype.kind in "iu" and data.dtype.itemsize > 4:
        raise UserError("values that OME-TIFF can hold", f"{data.dtype}", "write .nii.gz or .zarr")
    else:
        _write_ome(path, volume, data, header)


def _refuse_spacing(header: TiffHeader, path: Path) -> None:
    """Refuse a spacing that is missing along some axes only, or not above 0."""
    missing = [axis for axis, s in zip("ZYX", header.spacing, strict=True) if np.isnan(s)]
    if missing:
        raise UserError(
            "a voxel's size along z, y and x",
            f"none along {' and '.join(missing).lower()} in {path.name}",
            f"state PhysicalSize{missing[0]} (Fiji: Image, Properties, and save again), or write "
            f'{{"spacing": [z, y, x]}} in mm to {path.stem}.json beside it',
        )
    if not all(np.isfinite(s) and s > 0 for s in header.spacing):
        raise UserError(
            "a spacing above 0 along z, y, x",
            f"{header.spacing} in {path.name}",
            "repair the metadata",
        )


def _refuse_complaints(records: list[logging.LogRecord]) -> None:
    """Refuse what tifffile only logs: it goes on without a tag that it cannot read.

    Tags from 32768 on are private to the makers of microscopes; nothing here needs them.
    """
    for record in records:
        tag = re.search(r"TiffTag (\d+)", record.getMessage())
        if record.levelno >= logging.ERROR and not (tag and int(tag[1]) >= 32768):
            raise ValueError(record.getMessage())


def _refuse_missing_pages(file: tifffile.TiffFile, path: Path) -> None:
    """Refuse a truncated file: tifffile would fill what is missing with zeros, or end early."""
    size = path.stat().st_size
    pages = file.series[0].pages
    if file.is_imagej and len(file.pages) == 1:
        promised = int((file.imagej_metadata or {}).get("images", 1))
        needed = file.pages[0].dataoffsets[0] + promised * sum(file.pages[0].databytecounts)
        missing = int(needed > size)
    elif file.is_imagej:
        missing = int((file.imagej_metadata or {}).get("images", 1)) - len(file.pages)
    else:
        missing = sum(page is None for page in pages)
    ends = [
        offset + count
        for page in file.pages
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if missing or max(ends, default=size + 1) > size or (file.pages.next_page_offset or 0) > size:
        raise damaged("TIFF file", path, EOFError("the file ends too early"))


def _channels_first(data: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    """Turn tifffile's axes into (Z, Y, X) or (C, Z, Y, X)."""
    if "T" in axes and data.shape[axes.index("T")] > 1:
        refuse_time_series(data.shape, f"{name} ({axes})", "save one time point of it")
    if "Z" not in axes:
        # Q and I are pages of which nobody said what they are: slices, in a 3D program.
        axes = axes.replace("Q", "Z", 1) if "Q" in axes else axes.replace("I", "Z", 1)
    odd = [a for a, n in zip(axes, data.shape, strict=True) if n > 1 and a not in "SCZYX"]
    if odd or "Y" not in axes or "X" not in axes:
        raise UserError(
            "axes of C, Z, Y and X", f"{axes} in {name}", "save them as files of their own"
        )
    kept = [a for a in axes if a in "SCZYX"]
    data = data.reshape([n for a, n in zip(axes, data.shape, strict=True) if a in "SCZYX"])
    for axis in "SCZ":
        if axis not in kept:
            data, kept = data[None], [axis, *kept]
    data = np.transpose(data, [kept.index(a) for a in "CSZYX"])
    data = data.reshape(-1, *data.shape[2:])
    return data[0] if len(data) == 1 else data


def _header(file: tifffile.TiffFile, keep: dict[str, Any]) -> tuple[TiffHeader, tuple[str, ...]]:
    """Return spacing and channel names; what this package stored goes to `keep`."""
    if file.is_imagej:
        return imagej_header(file), ()
    if file.is_ome and file.ome_metadata:
        return ome_header(file.ome_metadata, keep)
    return TiffHeader("plain", (1.0, 1.0, 1.0), ("", "", "")), ()


def _write_imagej(path: Path, data: NDArray[Any], header: TiffHeader) -> None:
    """Write an ImageJ hyperstack with the units and numbers of `header`."""
    axes = "ZYX" if data.ndim == 3 else "ZCYX"
    tifffile.imwrite(
        path,
        data if data.ndim == 3 else np.moveaxis(data, 0, 1),
        imagej=True,
        resolution=header.resolution,
        metadata={"axes": axes, "spacing": header.spacing[0], **imagej_units(header.units)},
    )


def _write_ome(path: Path, volume: Volume, data: NDArray[Any], header: TiffHeader) -> None:
    """Write an OME-TIFF with the numbers of `header`, and the affine where OME cannot say it."""
    metadata: dict[str, Any] = {"axes": "ZYX" if data.ndim == 3 else "CZYX", "Name": volume.name}
    for axis, spacing, unit in zip("ZYX", header.spacing, header.units, strict=True):
        metadata |= {f"PhysicalSize{axis}": spacing, f"PhysicalSize{axis}Unit": ome_unit(unit)}
    own = {"labels": json.dumps(volume.header["labels"])} if "labels" in volume.header else {}
    if not np.array_equal(header.affine, volume.affine):
        own["affine"] = json.dumps(volume.affine.tolist())
    metadata |= {"Plane": _planes(volume, header), "Channel": {"Name": list(volume.channel_names)}}
    if own:
        metadata["MapAnnotation"] = {"Namespace": NAMESPACE, **own}
    tifffile.imwrite(
        path,
        data,
        ome=True,
        photometric="minisblack",
        compression="zlib",
        bigtiff=data.nbytes > _CLASSIC_BYTES,
        metadata=metadata,
    )


def _planes(volume: Volume, header: TiffHeader) -> dict[str, Any]:
    """Return OME's positions of all planes in mm: channel by channel, slice by slice."""
    (z, y, x), step = header.position, header.affine[0, 0]
    n = volume.n_channels * volume.shape[0]
    heights = [z + step * k for k in range(volume.shape[0])] * volume.n_channels
    positions = {"PositionZ": heights, "PositionY": [y] * n, "PositionX": [x] * n}
    return positions | {f"{name}Unit": ["mm"] * n for name in positions}
