"""Variants of the few chest CTs: other people, other breaths, blankets and gowns, a wider view.

Four volumes teach what a lung looks like, not what it is not.  Their images end close to the body;
on others an expert took blankets' insides and the empty air before the chest for lung.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ka2er_training.sample import warps
from ka2er_training.sample.brain import Case, write_case
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_labels, read_volume
from napari_ka2er.core.volume import Geometry, Volume

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.random import Generator
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Mask = NDArray[np.bool_]

# With `make_chest_task`'s names: all variants of a patient are held out or none.
PATIENT = r"(.+)_v\d+$"
_ENDING = ".nii.gz"
_BODY_HU = -400
_FOLD_MM = 35.0
_MARGIN_MM = 120.0
_AIR_HU, _AIR_NOISE = -1000.0, 12.0
# A border with less of the body than this is one of air, beyond which more air may be.
_TOUCHED = 0.03


def make_chest_task(source: Path, out: Path, *, n_variants: int = 3, seed: int = 0) -> Path:
    """Write each CT as it is and `n_variants` variants of it; return the folder.

    Case ``c`` becomes ``c_v0`` (unchanged), ``c_v1`` … A variant depends on `seed`, its number and
    the case's place in the source alone.  The folder appears only when it is complete.

    Parameters
    ----------
    source : Path
        An nnU-Net raw dataset of CTs in Hounsfield units with one label, the lungs.
    out : Path
        A new folder, written as an nnU-Net raw dataset.
    n_variants : int
        Variants per CT, 0 or more.
    seed : int
        Of everything random.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UserError
        If `out` exists or the source has no images.
    """
    images = sorted((source / "imagesTr").glob(f"*_0000{_ENDING}"))
    if out.exists() or not images:
        raise UserError("a new folder and imagesTr/*_0000.nii.gz", f"{out}, {source}")
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        for index, path in enumerate(images):
            labels = source / "labelsTr" / path.name.replace(f"_0000{_ENDING}", _ENDING)
            _write_variants(path, labels, building, n_variants, [seed, index])
        _write_dataset_json(source, building, len(images) * (n_variants + 1))
        os.replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out


def vary(
    volume: Volume, labels: NDArray[Any], rng: Generator
) -> tuple[Array, NDArray[np.uint8], Geometry]:
    """Return another patient: warped, breathing otherwise, covered, with more air around.

    Parameters
    ----------
    volume : Volume
        A CT in Hounsfield units.
    labels : ndarray, shape (Z, Y, X)
        Not 0 in the lungs.
    rng : Generator
        Decides everything.

    Returns
    -------
    values : ndarray of float32, shape (Z, Y, X)
        Hounsfield units, -1024 or more.
    labels : ndarray of uint8, shape (Z, Y, X)
        The warped lungs.
    geometry : Geometry
        The lattice, as fine as the volume's and larger.
    """
    geometry: Geometry = volume.geometry
    index = warps.template_index(geometry, geometry, rng)
    values = volume.channels[0].astype(np.float32)
    values = ndimage.map_coordinates(values, index, order=1, mode="nearest")
    warped = ndimage.map_coordinates(labels.astype(np.uint8), index, order=0, mode="nearest")
    lungs = warped > 0
    body = body_of(values, lungs)
    # Less air in the lungs, never more: two of the four have lungs that are nearly as dark as air,
    # and an expert that saw them darker than air (-60 to 90 and -10 to 40 HU) took 1.3 l of air
    # around the held-out chest for lung.
    values = values + np.float32(rng.uniform(0, 100)) * lungs
    values = values + np.float32(rng.uniform(-10, 16)) * ~body
    ends = margins(body, geometry, rng)
    values, geometry = with_air(values, geometry, ends, rng)
    body, warped = np.pad(body, ends), np.pad(warped, ends)
    for _ in range(rng.integers(1, 4)):
        values = with_cloth(values, body, geometry, rng)
    return np.maximum(values, -1024).astype(np.float32), warped, geometry


def margins(body: Mask, geometry: Geometry, rng: Generator) -> list[tuple[int, int]]:
    """Return how many voxels of air to add before and after each axis; none where the body ends.

    Up to 120 mm, and none in half of the cases.
    """
    ends = []
    for axis, edge in enumerate(geometry.spacing):
        faces = (body.take(at, axis=axis).mean() for at in (0, -1))
        wide = [rng.uniform(-_MARGIN_MM, _MARGIN_MM) * (face < _TOUCHED) for face in faces]
        ends.append((int(max(wide[0], 0) / edge), int(max(wide[1], 0) / edge)))
    return ends


def with_air(
    values: Array, geometry: Geometry, ends: list[tuple[int, int]], rng: Generator
) -> tuple[Array, Geometry]:
    """Return the volume with noisy air around it, and its lattice, which begins earlier."""
    inner = np.pad(np.ones(values.shape, bool), ends)
    noise = rng.standard_normal(inner.shape, dtype=np.float32) * np.float32(_AIR_NOISE)
    wider = np.where(inner, np.pad(values, ends), np.float32(_AIR_HU) + noise)
    affine = geometry.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.array([before for before, _ in ends])
    z, y, x = wider.shape
    return wider.astype(np.float32), Geometry((z, y, x), affine)


def body_of(values: Array, lungs: Mask) -> Mask:
    """Return the body with its lungs, (Z, Y, X): the largest part that is no air, holes filled."""
    dense: Mask = ndimage.binary_opening(values > _BODY_HU) | lungs
    parts, n_parts = ndimage.label(dense)
    if n_parts == 0:
        return dense
    largest: Mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


def with_cloth(values: Array, body: Mask, geometry: Geometry, rng: Generator) -> Array:
    """Return the volume with one sheet of cloth in the air, with folds and gaps.

    Parameters
    ----------
    values : ndarray of float32, shape (Z, Y, X)
        Hounsfield units.
    body : ndarray of bool, shape (Z, Y, X)
        Stays as it is.
    geometry : Geometry
        Their lattice.
    rng : Generator
        Decides where the sheet hangs, how thick and how dense it is.
    """
    if not body.any():
        return values
    above_skin = ndimage.distance_transform_edt(~body, sampling=geometry.spacing)
    folds, gaps = (warps.smooth_noise(values.shape, _folds(geometry), rng) for _ in range(2))
    height = rng.uniform(5, 45) + rng.uniform(5, 20) * folds
    thickness = rng.uniform(1.5, 4)
    share = np.exp(-(((above_skin - height) / thickness) ** 2)) * (gaps > rng.uniform(-1.5, 0))
    share = (share * ~body).astype(np.float32)
    cloth: Array = values * (1 - share) + np.float32(rng.uniform(-850, -150)) * share
    return cloth


def _folds(geometry: Geometry) -> tuple[float, ...]:
    return tuple(_FOLD_MM / edge for edge in geometry.spacing)


def _write_variants(
    image: Path, label: Path, root: Path, n_variants: int, seeds: list[int]
) -> None:
    """Write a CT as it is and its variants; `seeds` go before each variant's number."""
    volume, (labels, geometry) = read_volume(image), read_labels(label)
    name = label.name.removesuffix(_ENDING)
    _write(root, f"{name}_v0", (volume.channels[0], labels, geometry))
    for number in range(1, n_variants + 1):
        rng = np.random.default_rng([*seeds, number])
        _write(root, f"{name}_v{number}", vary(volume, labels, rng))


def _write(root: Path, name: str, made: tuple[NDArray[Any], NDArray[Any], Geometry]) -> None:
    values, labels, geometry = made
    image = np.round(values).astype(np.int16)
    write_case(root, "Tr", name, Case(image, labels.astype(np.uint8), geometry))


def _write_dataset_json(source: Path, root: Path, n_cases: int) -> None:
    content = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    content["numTraining"] = n_cases
    (root / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
