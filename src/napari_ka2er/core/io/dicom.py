"""DICOM series through pydicom: which files belong together, and where their images lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io.checks import as_values, damaged, usable_affine
from napari_ka2er.core.io.dicom_pixels import READ_ERRORS, dataset_in, values_of
from napari_ka2er.core.volume import REVERSE, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pydicom
    from numpy.typing import NDArray

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_STEP_TOLERANCE = 0.05  # of a step: positions are written with few digits


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One image of a series: where it lies (LPS mm) and how its values are scaled."""

    file: Path
    frame: int
    identity: tuple[str, str]  # SOPInstanceUID (the file where there is none), InstanceNumber
    shape: tuple[int, int]
    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float
    slope: float
    intercept: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction out of the image."""
        return np.cross(self.along_row, self.along_column)

    @property
    def height(self) -> float:
        """Position along the normal, in mm."""
        return float(self.position @ self.normal)


def read(path: Path) -> Volume:
    """Return the volume of one DICOM series.

    Slices are sorted by position; a tilted gantry becomes a shear in the affine; values are scaled
    by each slice's own slope and intercept.  Of copies of a slice one counts.  The channel is named
    after the modality.  Nothing that names the patient is kept.

    Parameters
    ----------
    path : Path
        A folder with one series, or any file of a series.

    Raises
    ------
    UserError
        If there is none, or more than one; if a slice is missing, or slices overlap, are turned
        against each other, have no position of their own, or cannot be decoded.
    """
    modality, files = _one_series(path)
    try:
        slices = sorted(_without_copies(files), key=lambda s: s.height)
    except UserError:
        raise
    except READ_ERRORS as error:
        raise damaged("DICOM series", path, error) from error
    affine = usable_affine(_affine(slices, path), path.name)
    data = as_values(values_of(slices), path.name)
    names = (modality,) if data.ndim == 3 else ("red", "green", "blue", "alpha")[: len(data)]
    name = path.name if path.is_dir() else path.parent.name
    return Volume(data, affine, names, name, {})


def write(path: Path, volume: Volume) -> None:
    """Refuse: DICOM is read only."""
    raise UserError("a format to write", f"DICOM for {volume.name}", f"write {path.name}.nii.gz")


def _one_series(path: Path) -> tuple[str, list[Path]]:
    """Return the modality and the files of the only series in a folder, or of a file's series."""
    series = series_in(path if path.is_dir() else path.parent)
    if path.is_file():
        series = [(modality, files) for modality, files in series if path in files]
    if len(series) != 1:
        got = ", ".join(f"{len(f)} {modality} images ({f[0].name} …)" for modality, f in series)
        raise UserError(
            f"one DICOM series in {path}",
            f"{len(series)}: {got}" if series else "no DICOM image",
            "give one file of the series you want" if series else "give the folder with its slices",
        )
    return series[0]


def series_in(folder: Path) -> list[tuple[str, list[Path]]]:
    """Return the modality and the files, sorted by name, of each DICOM series right in a folder."""
    series: dict[str, list[Path]] = {}
    modality: dict[str, str] = {}
    tags = ["SeriesInstanceUID", "Modality", "Rows"]
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            head = dataset_in(file, stop_before_pixels=True, specific_tags=tags)
            is_image = isinstance(head.get("Rows"), int)
        except READ_ERRORS:
            continue  # not DICOM: a readme, a thumbnail
        if is_image:
            uid = str(head.get("SeriesInstanceUID", ""))
            series.setdefault(uid, []).append(file)
            modality[uid] = str(head.get("Modality", "") or "image")
    return [(modality[uid], files) for uid, files in series.items()]


def _without_copies(files: Sequence[Path]) -> list[Slice]:
    """Return the images in files, once where a file was copied."""
    slices = (each for file in files for each in _slices(file))
    # Bad anonymisers give all images one UID: the position must agree too.
    return list({(*s.identity, s.frame, *s.position): s for s in slices}.values())


def _slices(file: Path) -> list[Slice]:
    """Return the images in a file, without their voxels; refuse those of unknown position."""
    head = dataset_in(file, stop_before_pixels=True)
    n = int(head.get("NumberOfFrames", 1) or 1)
    remedy = "convert the series to NIfTI first, for example with "
    if "MOSAIC" in (head.get("ImageType") or ()):
        got = f"{file.name}, a Siemens mosaic of many"
        raise UserError("one slice in each image", got, f"{remedy}dcm2niix")
    if n > 1 and not head.get("PerFrameFunctionalGroupsSequence"):
        got = f"{n} frames without one in {file.name}"
        raise UserError("a position for each frame", got, f"{remedy}3D Slicer")
    return [_slice(file, head, frame) for frame in range(n)]


def _slice(file: Path, head: pydicom.Dataset, frame: int) -> Slice:
    """Return one image's place; multi-frame files keep it in sequences, shared or per frame."""
    orientation = _field(head, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    position = _field(head, frame, "PlanePositionSequence", "ImagePositionPatient")
    spacing = _field(head, frame, "PixelMeasuresSequence", "PixelSpacing")
    if orientation is None or position is None or spacing is None:
        raise ValueError(f"no position, orientation or pixel spacing in {file.name}")
    measures = "PixelMeasuresSequence"
    thickness = _field(head, frame, measures, "SpacingBetweenSlices") or _field(
        head, frame, measures, "SliceThickness"
    )
    values = "PixelValueTransformationSequence"
    slope, intercept = (_field(head, frame, values, f"Rescale{n}") for n in ("Slope", "Intercept"))
    direction = np.array(orientation, float).reshape(2, 3)
    if not np.allclose(direction @ direction.T, np.eye(2), atol=1e-3):
        raise ValueError(f"image axes that are not orthogonal in {file.name}: {list(orientation)}")
    return Slice(
        file,
        frame,
        (str(head.get("SOPInstanceUID") or file), str(head.get("InstanceNumber", ""))),
        (int(head.Rows), int(head.Columns)),
        np.array(position, float),
        direction[0],
        direction[1],
        (float(spacing[0]), float(spacing[1])),
        abs(float(thickness or 1.0)),
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )


def _field(head: pydicom.Dataset, frame: int, sequence: str, keyword: str) -> Any:
    """Return a frame's own value, the shared one, or the file's; None if there is none."""
    per_frame = head.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*per_frame[frame : frame + 1], *(head.get("SharedFunctionalGroupsSequence") or [])]
    for group in groups:
        items = group.get(sequence)
        if items and keyword in items[0]:
            return items[0][keyword].value
    return head.get(keyword)


def _affine(slices: Sequence[Slice], path: Path) -> NDArray[np.float64]:
    """Return (z, y, x, 1) -> RAS+ mm of sorted slices.

    Raises
    ------
    UserError
        If the slices differ in size or direction, or their distance is not the same throughout.
    """
    first, last = slices[0], slices[-1]
    _refuse_mixed(slices)
    step = first.normal * first.thickness
    if len(slices) > 1:
        _refuse_uneven_steps(slices, path)
        step = (last.position - first.position) / (len(slices) - 1)
    matrix = np.eye(4)
    matrix[:3, 0] = first.along_row * first.spacing[1]
    matrix[:3, 1] = first.along_column * first.spacing[0]
    matrix[:3, 2] = step
    matrix[:3, 3] = first.position
    return np.asarray(REVERSE @ _LPS @ matrix @ REVERSE, np.float64)


def _refuse_mixed(slices: Sequence[Slice]) -> None:
    """Refuse slices that differ in size, pixel spacing or direction from the first."""
    first = slices[0]
    axes = np.array([first.along_row, first.along_column])
    for each in slices:
        is_turned = np.abs(np.array([each.along_row, each.along_column]) - axes).max() > 1e-3
        if is_turned or (each.shape, each.spacing) != (first.shape, first.spacing):
            words = [f"{s.file.name} ({s.shape} at {s.spacing} mm)" for s in (first, each)]
            raise UserError(
                "slices of one size, spacing and direction",
                " and ".join(words),
                "move the scouts to a folder of their own",
            )


def _refuse_uneven_steps(slices: Sequence[Slice], path: Path) -> None:
    """Refuse missing and repeated slices, and those that are shifted sideways against the rest."""
    positions = np.array([s.position for s in slices])
    steps = np.diff(positions, axis=0)
    heights = np.diff([s.height for s in slices])
    typical = float(np.median(heights))
    if typical < 1e-3 or heights.min() < 1e-3:
        n = int(np.count_nonzero(heights < 1e-3))
        verb = "export" if len({s.file for s in slices}) == 1 else "move"
        raise UserError(
            "one slice at each position",
            f"{n} of {len(slices)} in {path.name} lie on another (several times or echoes?)",
            f"{verb} one time point to a folder of its own",
        )
    deviation = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    worst = int(deviation.argmax())
    if deviation[worst] > _STEP_TOLERANCE * typical:
        raise UserError(
            f"slices every {typical:.3g} mm",
            f"{heights[worst]:.3g} mm between {slices[worst].file.name} and "
            f"{slices[worst + 1].file.name} in {path.name}",
            "a slice is missing: export the series again",
        )
