"""What tells a volume's kind: how its raw intensities are spread, and how large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.resampling import grid_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.volume import Volume

PERCENTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
# Hounsfield units between air, lung, lung's edge, fat, soft tissue, and bone or contrast agent.
BANDS = (-900.0, -500.0, -150.0, -20.0, 150.0)

# DICOM's names of kinds of volumes.
MODALITIES = ("CT", "MR", "PT", "NM", "US")

_MAX_SAMPLES = 1_000_000
# How far outside the training volumes' range a volume may be and still fit: measured on the real
# sets, one case's percentiles lie up to 0.1 of the range from the next case's.  Of CT the share of
# each kind of tissue counts, as percentiles jump where a histogram has two peaks.
_SHAPE_MARGIN, _SHAPE_FALL = 0.1, 0.15
_BAND_MARGIN, _BAND_FALL = 0.2, 0.2
# A field of view up to a quarter larger or smaller fits fully, one 2.5 times as large not at all.
_EXTENT_FREE, _EXTENT_END = 1.25, 2.5
# Neighbouring voxels of the real sets are correlated by .85 and more along one axis at least, those
# of noise by .00 (2026-11-30, by hand).
_NOISE = 0.3
_PAIRS = 200_000
# Intensities are called like those of the training volumes from these fits on.
_LIKE, _SOMEWHAT = 0.9, 0.5


def fingerprint(volume: Volume) -> dict[str, Any]:
    """Return what tells a volume's kind: how its raw intensities are spread, and its extent.

    Returns
    -------
    dict
        ``percentiles``: raw values at `PERCENTILES`, voxels at the minimum (padding, masked air)
        left out.  ``bands``: share of all voxels between `BANDS`.  ``extent_mm``: size along the
        world's (Z, Y, X).  ``smoothness``: see there.  ``modality``: DICOM's, where the image came
        with one.  Plain data.
    """
    values = volume.channels[0].ravel()
    values = values[:: max(1, values.size // _MAX_SAMPLES)].astype(np.float64)
    body = values[values > values.min()]
    raw = np.percentile(body if body.size else values, PERCENTILES)
    extent = grid_of(volume.geometry, (1.0, 1.0, 1.0), multiple=1).extent_mm
    counts = np.bincount(np.digitize(values, BANDS), minlength=len(BANDS) + 1)
    modality = [name for name in volume.channel_names[:1] if name in MODALITIES]
    return {
        "percentiles": [float(v) for v in raw],
        "bands": [float(n) for n in counts / values.size],
        "extent_mm": list(extent),
        "smoothness": smoothness(volume.channels[0]),
        **({"modality": modality[0]} if modality else {}),
    }


def smoothness(data: NDArray[Any]) -> float:
    """Return how much neighbouring voxels have in common.

    Parameters
    ----------
    data : ndarray, shape (Z, Y, X)
        Raw intensities.

    Returns
    -------
    float
        The highest, over the axes, of the correlations of voxels with their next neighbours; a
        sample of large volumes is used.  Voxels at the minimum (padding) are left out.  1 where too
        few are left, or all are equal.
    """
    generator = np.random.default_rng(0)
    found = []
    for axis in range(3):
        room = np.array(data.shape) - (np.arange(3) == axis)
        if room.min() < 1:
            continue
        here = generator.integers(0, room[:, None], (3, min(_PAIRS, 8 * int(room.prod()))))
        next_to = here + (np.arange(3) == axis)[:, None]
        pair = np.stack([data[tuple(here)], data[tuple(next_to)]]).astype(np.float64)
        pair = pair[:, (pair > data.min()).all(axis=0)]
        if pair.shape[1] > 1 and (np.ptp(pair, axis=1) > 0).all():
            correlations: NDArray[np.float64] = np.asarray(np.corrcoef(pair))
            found.append(float(correlations[0, 1]))
    return max(found, default=1.0)


def task_fingerprint(volumes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a task's training volumes have in common, to be kept in `TaskEntry.intensity`.

    The kind of more than half of them counts, Hounsfield units or not: one volume that was clipped
    or rescaled must not hide all others from recognition.  It is then not recognised itself.

    Parameters
    ----------
    volumes : sequence of dict
        Fingerprints of the training volumes, at least one.

    Returns
    -------
    dict
        ``is_hounsfield``, and the lowest and highest ``bands`` and ``shape`` (percentiles on a
        scale from 0 for the first to 1 for the last) over the volumes of that kind, ``extent_mm``
        over all.
    """
    are_hounsfield = [looks_like_hounsfield(v["percentiles"]) for v in volumes]
    is_hounsfield = 2 * sum(are_hounsfield) > len(volumes)
    usual = [v for v, one in zip(volumes, are_hounsfield, strict=True) if one == is_hounsfield]
    bands = np.array([v["bands"] for v in usual])
    shape = np.array([_shape(v["percentiles"]) for v in usual])
    extent = np.array([v["extent_mm"] for v in volumes])
    ranges = {
        name: {"low": values.min(axis=0).tolist(), "high": values.max(axis=0).tolist()}
        for name, values in (("bands", bands), ("shape", shape), ("extent_mm", extent))
    }
    return {"is_hounsfield": is_hounsfield, "n_volumes": len(volumes), **ranges}


def looks_like_hounsfield(percentiles: Sequence[float]) -> bool:
    """Return whether raw percentiles are those of CT: fat or air below, bone or vessels above.

    MR and PET are not negative, and images scaled to mean 0 do not reach so far.
    """
    lowest, middle, highest = percentiles[0], percentiles[3], percentiles[-1]
    return -2100 <= lowest <= -50 and -1100 <= middle <= 500 and 100 <= highest <= 5000


def _shape(percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Return percentiles on a scale from 0, the first, to 1, the last; zeros if all are equal."""
    values = np.asarray(percentiles, dtype=np.float64)
    span = values[-1] - values[0]
    return (values - values[0]) / span if span > 0 else np.zeros_like(values)


def likeness(known: dict[str, Any], volume: dict[str, Any]) -> tuple[float, str]:
    """Return how like a volume is to a task, by fingerprints, and why.

    A task without a fingerprint of its own fits anything; noise fits none that has one.
    """
    if not known:
        return 1.0, "nothing is known about its training volumes"
    if volume.get("smoothness", 1.0) < _NOISE:
        common = f"correlation {volume['smoothness']:.2f}"
        return 0.0, f"neighbouring voxels have little in common ({common}), as in noise"
    intensity, about_intensity = intensity_fit(known, volume)
    extent, about_extent = _extent_fit(known["extent_mm"], volume["extent_mm"])
    return intensity * extent, f"{about_intensity}; {about_extent}"


def intensity_fit(known: dict[str, Any], volume: dict[str, Any]) -> tuple[float, str]:
    """Return how like a volume's intensities are to a task's, in [0, 1], and why.

    Parameters
    ----------
    known : dict
        What `task_fingerprint` returned.
    volume : dict
        What `fingerprint` returned.
    """
    percentiles = volume["percentiles"]
    is_hounsfield = looks_like_hounsfield(percentiles)
    span = f"{percentiles[0]:.4g} to {percentiles[-1]:.4g}"
    if is_hounsfield != known["is_hounsfield"]:
        own, other = ("Hounsfield units", "other intensities")[:: 1 if is_hounsfield else -1]
        return 0.0, f"{own} ({span}), but it was trained on {other}"
    if not np.ptp(percentiles):
        return 0.0, "all voxels are equal"
    if is_hounsfield:
        off = _outside(volume["bands"], known["bands"]).max()
        fit = falling(off, _BAND_MARGIN, _BAND_FALL)
    else:
        off = _outside(_shape(percentiles), known["shape"]).max()
        fit = falling(off, _SHAPE_MARGIN, _SHAPE_FALL)
    likeness = "like" if fit > _LIKE else "somewhat like" if fit > _SOMEWHAT else "unlike"
    return fit, f"intensities ({span}) {likeness} those of its training volumes"


def _extent_fit(known: dict[str, Any], extent: Sequence[float]) -> tuple[float, str]:
    sizes = np.asarray(extent, dtype=np.float64)
    larger, smaller = sizes / np.asarray(known["high"]), np.asarray(known["low"]) / sizes
    axis = int(np.maximum(larger, smaller).argmax())
    fit = falling(float(max(larger[axis], smaller[axis])), _EXTENT_FREE, _EXTENT_END - _EXTENT_FREE)
    size = " x ".join(f"{e:.0f}" for e in extent)
    if fit > _LIKE:
        return fit, f"field of view {size} mm fits"
    is_larger = larger[axis] >= smaller[axis]
    word, end, key = ("larger", "most", "high") if is_larger else ("smaller", "least", "low")
    limit = f"at {end} {known[key][axis]:.0f} mm"
    return fit, f"field of view {size} mm is {word} along {'ZYX'[axis]} than in training ({limit})"


def _outside(values: Any, limits: dict[str, Any]) -> NDArray[np.float64]:
    """Return how far values lie outside limits, 0 where inside."""
    low, high = np.asarray(limits["low"]), np.asarray(limits["high"])
    off: NDArray[np.float64] = np.maximum(np.maximum(low - values, values - high), 0)
    return off


def falling(value: float, margin: float, fall: float) -> float:
    """Return 1 up to `margin`, then less, and 0 from `margin` + `fall` on."""
    return float(np.clip(1 - (value - margin) / fall, 0, 1))
