"""Checks and conversions that all formats share."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.volume import is_invertible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.task import Task

MM_PER_UNIT = {
    **dict.fromkeys(("", "pixel", "pixels", "mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(
        ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1e-3
    ),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("å", "angstrom"), 1e-7),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1000.0),
    **dict.fromkeys(("in", "inch"), 25.4),
}


def mm_per(unit: str | None) -> float:
    """Return a length unit in mm; no unit and pixels count as mm.

    Raises
    ------
    UserError
        If the unit is unknown.
    """
    try:
        return MM_PER_UNIT[(unit or "").strip().lower()]
    except KeyError as error:
        known = "nm, µm, mm, cm, m or inch"
        raise UserError(f"a unit of length ({known})", repr(unit), "repair the metadata") from error


@contextmanager
def logged(name: str) -> Iterator[list[logging.LogRecord]]:
    """Collect what a library logs, instead of showing it beside our own one line."""
    records: list[logging.LogRecord] = []

    def collect(record: logging.LogRecord) -> bool:
        records.append(record)
        return False

    logger = logging.getLogger(name)
    logger.addFilter(collect)
    try:
        yield records
    finally:
        logger.removeFilter(collect)


def damaged(kind: str, path: Path, error: BaseException) -> UserError:
    """Return the error for a file that its library cannot read, with the library's reason."""
    # ITK and pydantic explain over several lines; the last one that says something is the cause.
    lines = [line.strip() for line in re.split(r"[\n\r]+", str(error)) if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    if isinstance(error, KeyError):
        line = f"{line} is missing"
    reason = re.sub(r"^(sitk::ERROR|ITK ERROR|Reason):\s*", "", line)
    return UserError(
        f"a readable {kind}", f"{path.name} ({reason[:200]})", "copy or export it again"
    )


def as_values(data: NDArray[Any], name: str) -> NDArray[Any]:
    """Return voxels as native integers or floats of at most 8 bytes.

    Raises
    ------
    UserError
        If they are complex or no numbers, or some are NaN or infinite.
    """
    if data.dtype.kind not in "biuf":
        raise UserError("integer or real voxels", f"{data.dtype} in {name}", "store one real part")
    data = as_storable(data)
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    refuse_non_finite(data, name)
    return data


def as_storable(data: NDArray[Any]) -> NDArray[Any]:
    """Return voxels in a type that every format has: no truth values, halves or long doubles."""
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    if data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
        return data.astype(np.float32 if data.dtype.itemsize < 4 else np.float64)
    return data


def refuse_non_finite(data: NDArray[Any], name: str) -> None:
    """Raise a `UserError` that counts the voxels that are NaN or infinite, if there are any."""
    if data.dtype.kind != "f":
        return
    n_bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    if n_bad:
        n_nan = int(np.count_nonzero(np.isnan(data)))
        raise UserError(
            "finite voxels",
            f"{n_nan} NaN and {n_bad - n_nan} infinite of {data.size} in {name}",
            "replace them, for example by the background's value",
        )


def usable_affine(affine: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return the affine.

    Raises
    ------
    UserError
        If it is not finite or squeezes space: `Geometry` would refuse it without naming the file.
    """
    if not is_invertible(affine):
        rows = "; ".join(" ".join(f"{v:.4g}" for v in row) for row in affine[:3])
        raise UserError(
            "a spacing above 0 and directions that differ",
            f"the affine [{rows}] in {name}",
            "repair the file's header",
        )
    return affine


def same_place(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Return whether two affines agree to a millionth of a voxel, and of the largest offset."""
    spacing = np.linalg.norm(second[:3, :3], axis=0).min()
    return np.allclose(first, second, rtol=1e-9, atol=1e-6 * float(spacing))


def refuse_time_series(sizes: Sequence[int], name: str, remedy: str) -> None:
    """Raise a `UserError` for a file with more than one time point."""
    raise UserError(
        "one 3D volume", f"{name} with sizes {tuple(int(n) for n in sizes)}: a time series", remedy
    )


def smallest_integers(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return labels in the smallest unsigned integer type that holds them.

    Raises
    ------
    UserError
        If some are not whole numbers of at least 0, or too large for a signed integer.
    """
    if labels.dtype.kind not in "biuf":
        raise UserError("labels as whole numbers", f"{labels.dtype} in {name}")
    refuse_non_finite(labels, name)
    low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
    if low < 0:
        raise UserError("labels of at least 0", f"{low} in {name}")
    if int(high) >= 2**63:
        raise UserError("labels below 2**63", f"{high:g} in {name}", "is it an image?")
    whole = labels.astype(np.min_scalar_type(int(high)))
    n_broken = int(np.count_nonzero(whole != labels)) if labels.dtype.kind == "f" else 0
    if n_broken:
        raise UserError(
            "labels as whole numbers",
            f"fractions in {n_broken} voxels of {name}",
            "is it an image?",
        )
    return whole


def refuse_values_outside(labels: NDArray[Any], task: Task) -> None:
    """Raise a `UserError` that names the values that are neither 0 nor a label of the task."""
    strange = sorted(set(np.unique(labels).tolist()) - {0, *task.values})
    if strange:
        raise UserError(
            f"labels of task {task.name} (0, {', '.join(map(str, task.values))})",
            f"{', '.join(map(str, strange[:5]))}{' …' if len(strange) > 5 else ''}",
        )


def stem(path: Path) -> str:
    """Return a file's or folder's name without its suffixes of this package."""
    return re.sub(
        r"(\.ome)?\.(nii(\.gz)?|nrrd|nhdr|mha|mhd|tiff?|zarr|dcm|ima)$", "", path.name, flags=re.I
    )
