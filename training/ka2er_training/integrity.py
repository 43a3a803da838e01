"""Read every case of a source and refuse what no expert could be trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.hashing import content_digest
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.task import Label
from napari_ka2er.core.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ka2er_training.sources import Source, SourceCase
    from napari_ka2er.core.volume import Geometry


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a source: which channel of several, and what in a case id is the patient."""

    channel: int | None = None
    patient: str = ""

    def __post_init__(self) -> None:
        if self.channel is not None and self.channel < 0:
            raise UserError("a channel of at least 0", f"{self.channel}")


@dataclass(frozen=True, slots=True)
class CheckedCase:
    """A case that was read whole and found sound."""

    case: SourceCase
    patient: str
    image_digest: str
    label_digest: str
    values: frozenset[int]
    spacing: tuple[float, float, float]
    is_sheared: bool = False


def check_cases(
    source: Source,
    options: ReadOptions,
    progress: Callable[[float, str], None] | None,
    cancelled: Callable[[], bool] | None,
) -> list[CheckedCase]:
    """Read every case; two cases with the same image are an error, as one might be held out.

    Raises
    ------
    UserError
        If there is no labelled case, or one cannot be used.
    CancelledError
        If `cancelled` said so.
    """
    if not any(case.label for case in source.cases):
        raise UserError("a dataset with at least one labelled case", f"none in {source.name}")
    checked, seen = [], dict[str, str]()
    for number, case in enumerate(source.cases):
        if cancelled and cancelled():
            raise CancelledError
        if progress:
            progress(number / len(source.cases), f"checking {case.id}")
        one = _check(case, source, options)
        if other := seen.get(one.image_digest):
            raise UserError(
                "a different image in every case",
                f"the same in {other} and {case.id}",
                "remove one",
            )
        seen[one.image_digest] = case.id
        checked.append(one)
    if len({case.id for case in source.cases}) < len(source.cases):
        raise UserError("different case ids", "two of the same, perhaps labelled and unlabelled")
    return checked


def found_labels(checked: Sequence[CheckedCase]) -> tuple[Label, ...]:
    """Return labels named after the values found."""
    found = sorted(frozenset[int]().union(*(one.values for one in checked)) - {0})
    if not found or found != list(range(1, len(found) + 1)):
        raise UserError("label values 1, 2, 3 … without gaps", f"{found}", "renumber them")
    return tuple(Label(value, f"label_{value}") for value in found)


def require_every_label(labels: Sequence[Label], checked: Sequence[CheckedCase]) -> None:
    """Refuse labels that nobody drew: no expert can learn them."""
    found = frozenset[int]().union(*(one.values for one in checked))
    if absent := [label.name for label in labels if label.value not in found]:
        raise UserError("every label in at least one case", f"none with {', '.join(absent)}")


def read_channel(path: Path, channel: int | None, n_channels: int | None = None) -> Volume:
    """Return an image with one channel: its only one, or the chosen one of a 4D file.

    Parameters
    ----------
    path : Path
        The image.
    channel : int, optional
        Which one, where there are several.
    n_channels : int, optional
        How many a fourth axis of NIfTI holds, as the data set says; with any other number it is
        time.  By default what was checked before is believed: all of it is channels if one is
        chosen.

    Raises
    ------
    UserError
        If the image cannot be read, has several channels and none is chosen, or not this one.
    """
    if n_channels is None and channel is None:
        n_channels = 0
    volume = read_volume(path, n_channels=n_channels)
    if volume.n_channels == 1:
        return replace(volume, data=volume.channels[0], channel_names=volume.channel_names[:1])
    if channel is None:
        raise UserError(
            "one channel (the student reads one)",
            f"{volume.n_channels} in {path}",
            "choose --channel",
        )
    if not 0 <= channel < volume.n_channels:
        raise UserError(f"a channel from 0 to {volume.n_channels - 1} of {path}", f"{channel}")
    return Volume(
        volume.channels[channel], volume.affine, (volume.channel_names[channel],), volume.name
    )


def patient_of(case_id: str, pattern: str) -> str:
    """Return the patient of a case: what the pattern finds in its id, or the whole id.

    Raises
    ------
    UserError
        If the pattern is none, or it or its first group finds nothing: one nameless patient of many
        cases could not be split.
    """
    if not pattern:
        return case_id
    try:
        found = re.search(pattern, case_id)
    except re.error as error:
        raise UserError("a regular expression as --patient", f"{pattern}: {error}") from error
    if not found:
        raise UserError(f"case ids that the patient pattern {pattern} fits", case_id)
    patient: str | None = found.group(1) if found.re.groups else found.group()
    if not patient:
        raise UserError(
            f"a patient pattern that finds something in every case id ({pattern})",
            f"nothing in {case_id}",
            "its first group, if it has any, is the patient: use one, as in '^(p[0-9]+)_'",
        )
    return patient


def label_digest(labels: NDArray[Any], geometry: Geometry) -> str:
    """Return the digest of a label map, whatever its file format, data type or axis order."""
    return content_digest(Volume(labels, geometry.affine))


def _check(case: SourceCase, source: Source, options: ReadOptions) -> CheckedCase:
    """Read one case and compare image and labels."""
    volume = read_channel(case.image, options.channel, source.n_channels)
    if min(volume.shape) < 2:
        raise UserError("volumes of several slices", f"{case.image} of shape {volume.shape}")
    values, digest, sheared = frozenset[int](), "", volume.geometry.is_sheared
    if case.label is not None:
        labels, geometry = read_labels(case.label)
        tolerance_mm = 0.05 * min(volume.spacing)
        if not geometry.is_close(volume.geometry, tolerance_mm):
            raise UserError(
                f"labels on the lattice of {case.image} {volume.shape}",
                f"{case.label} {geometry.shape} elsewhere",
                "resample one onto the other",
            )
        values, digest = (
            frozenset(int(v) for v in np.unique(labels)),
            label_digest(labels, geometry),
        )
        _check_values(values, case, source)
        sheared |= geometry.is_sheared  # it is only close to the image's
    patient = patient_of(case.id, options.patient)
    image = content_digest(volume)
    return CheckedCase(case, patient, image, digest, values, volume.spacing, sheared)


def _check_values(values: frozenset[int], case: SourceCase, source: Source) -> None:
    """Refuse label values that the dataset does not name."""
    allowed = {0, *(label.value for label in source.labels)} | ({source.ignore} - {None})
    unknown = sorted(values - allowed) if source.labels else sorted(v for v in values if v < 0)
    if unknown:
        raise UserError(
            f"label values {sorted(v for v in allowed if v is not None)} in {case.label}",
            f"{unknown}",
        )
