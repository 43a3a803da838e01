"""OME-Zarr 0.4 and 0.5 through zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import (
    as_values,
    damaged,
    refuse_time_series,
    same_place,
    stem,
    usable_affine,
)
from napari_ka2er.core.io.zarr_header import (
    NAMESPACE,
    ZarrHeader,
    channel_names,
    dataset_of,
    header_of,
    metadata_of,
    multiscale_of,
    own_fields,
)
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_CHUNK = 64
_READ_ERRORS = (
    OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, MemoryError,
)  # fmt: skip


def read(path: Path, level: int = 0) -> Volume:
    """Return one level of the first image in an OME-Zarr folder.

    Raises
    ------
    UserError
        If there is no such level, the folder is damaged or a time series, or its scale or voxels
        cannot be used.
    """
    keep: dict[str, Any] = {}
    try:
        group = zarr.open_group(path, mode="r")
        attributes = group.attrs.asdict()
        multiscale, version = multiscale_of(attributes, path)
        dataset = dataset_of(multiscale, level, path)
        array = group[dataset["path"]]
        header, axes = header_of(multiscale, dataset, version)
        names = channel_names(attributes, version)
        finest, _ = header_of(multiscale, dataset_of(multiscale, 0, path), version)
        own_fields(attributes, header, finest, keep)
        data = _channels_first(array, axes, path.name)
    except UserError:
        raise
    except _READ_ERRORS as error:
        raise damaged("OME-Zarr folder", path, error) from error
    data = as_values(data, path.name)
    n = 1 if data.ndim == 3 else len(data)
    if n == 1 or len(names) != n:
        names = ("image",) if n == 1 else tuple(f"channel {i}" for i in range(n))
    if not all(np.isfinite(s) and s != 0 for s in header.scale):
        raise UserError(
            "a scale other than 0 along z, y, x",
            f"{header.scale} in {path.name}",
            "repair the metadata",
        )
    affine = usable_affine(np.array(keep.pop("affine", header.affine)), path.name)
    return Volume(data, affine, names, stem(path), {**keep, "zarr": header})


def write(path: Path, volume: Volume) -> None:
    """Write an OME-Zarr of one level, in the version that the volume came from, or 0.5."""
    header = volume.header.get("zarr")
    if header is None or not same_place(header.affine, volume.affine):
        translation = tuple(volume.affine[:3, 3].tolist())
        header = ZarrHeader("0.5", volume.spacing, translation, ("millimeter",) * 3)
    data = volume.data
    is_old = header.version == "0.4"
    group = zarr.create_group(path, zarr_format=2 if is_old else 3)
    array = group.create_array(
        "0",
        shape=data.shape,
        dtype=data.dtype,
        chunks=(1,) * (data.ndim - 3) + tuple(min(_CHUNK, n) for n in data.shape[-3:]),
        dimension_names=None if is_old else list("czyx")[-data.ndim :],
        chunk_key_encoding={"name": "v2", "separator": "/"} if is_old else None,
    )
    array[...] = data
    metadata = metadata_of(volume, header)
    group.attrs.update(metadata if is_old else {"ome": {"version": header.version, **metadata}})
    if not np.array_equal(header.affine, volume.affine):
        group.attrs[NAMESPACE] = {"affine": volume.affine.tolist()}


def _channels_first(array: Any, axes: list[str], name: str) -> NDArray[Any]:
    """Return a level as (Z, Y, X) or (C, Z, Y, X)."""
    if len(array.shape) != len(axes):
        raise ValueError(f"{len(axes)} axes named for an array of shape {array.shape}")
    if "t" in axes and array.shape[axes.index("t")] > 1:
        refuse_time_series(array.shape, name, "save one time point of it")
    odd = [a for a, n in zip(axes, array.shape, strict=True) if n > 1 and a not in "czyx"]
    if odd:
        raise UserError("axes of c, z, y and x", f"{', '.join(axes)} in {name}")
    data = np.asarray(array[tuple(slice(None) if a in "czyx" else 0 for a in axes)])
    kept = [a for a in axes if a in "czyx"]
    for axis in "cz":
        if axis not in kept:
            data, kept = data[None], [axis, *kept]
    data = np.ascontiguousarray(np.transpose(data, [kept.index(a) for a in "czyx"]))
    return data[0] if len(data) == 1 else data
