"""MR brain tissue: random people and scanners around the ICBM template.

One anatomy stands behind all cases: the symmetric ICBM 152 2009a average with its grey and white
matter maps, as nilearn's wheel carries them.  Each case warps it smoothly, tilts head and lattice,
and images it with another contrast, bias field, noise and resolution.  Scores on these cases tell
whether the tissues are found in that range of appearances; they say nothing about other anatomies.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from ka2er_training.sample import scanner, warps
from ka2er_training.sample.sources import nilearn_data
from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.volume import REVERSE, Geometry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.random import Generator
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

GREY, WHITE = 1, 2
SOURCES = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
LICENCE = "made from the ICBM 152 2009a template (its notice: see sample_data/volumes/icbm_t1.txt)"


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The anatomy behind every case.

    Parameters
    ----------
    t1, grey, white : ndarray of float32, shape (Z, Y, X)
        T1 intensity and tissue probabilities, all in [0, 1]; the brain without its skull.
    geometry : Geometry
        Their lattice.
    """

    t1: Array
    grey: Array
    white: Array
    geometry: Geometry


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One made-up acquisition: `image` int16 and `labels` uint8, both (Z, Y, X), on `geometry`."""

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    geometry: Geometry


def load_template(folder: Path | None = None) -> Template:
    """Return the ICBM template.

    Parameters
    ----------
    folder : Path, optional
        Holds nilearn's three ``mni_icbm152_*`` files; by default the installed nilearn's.

    Raises
    ------
    UserError
        If nilearn is not installed or a file is missing.
    """
    folder = folder or nilearn_data()
    arrays: list[Array] = []
    affine = np.eye(4)
    for kind in ("t1", "gm", "wm"):
        path = folder / SOURCES.format(kind)
        if not path.is_file():
            raise UserError(f"the ICBM template {path.name}", f"nothing of that name in {folder}")
        image = nibabel.Nifti1Image.from_filename(path)
        arrays.append((np.asarray(image.dataobj).T / np.float32(255)).astype(np.float32))
        affine = REVERSE @ image.affine @ REVERSE
    t1, grey, white = arrays
    z, y, x = t1.shape
    return Template(t1, grey, white, Geometry((z, y, x), affine))


def make_brain_task(
    out: Path,
    *,
    template: Template | None = None,
    n_cases: int = 24,
    n_holdout: int = 6,
    spacing_mm: float = 1.5,
    seed: int = 0,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """Write the task as an nnU-Net raw dataset and return its folder, which must be new.

    `n_cases` to train on and `n_holdout` (``imagesTs``, ``labelsTs``), most at `spacing_mm`.
    Case i depends on `seed` and i alone.  The folder appears only when it is complete.

    Raises
    ------
    UserError
        If `out` exists or there is nothing to write.
    """
    if out.exists() or n_cases < 1 or n_holdout < 0:
        got = f"{out}, {n_cases} + {n_holdout} cases"
        raise UserError("a new folder and at least one case", got)
    template = template or load_template()
    n_all = n_cases + n_holdout
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        for index in range(n_all):
            if cancelled is not None and cancelled():
                raise CancelledError("the brain task was cancelled")
            name = f"brain_{index:03d}"
            if progress is not None:
                progress(index / n_all, name)
            case = draw_case(template, np.random.default_rng([seed, index]), spacing_mm)
            write_case(temporary, "Tr" if index < n_cases else "Ts", name, case)
        _write_dataset_json(temporary, n_cases, seed)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def draw_case(template: Template, rng: Generator, spacing_mm: float = 1.5) -> Case:
    """Return one random acquisition of a random warp of the template.

    Parameters
    ----------
    template : Template
        The anatomy.
    rng : Generator
        Decides everything.
    spacing_mm : float
        Usual distance between voxels.
    """
    spacing = warps.random_spacing(rng, spacing_mm)
    lattice = warps.random_lattice(template.geometry, rng, spacing)
    index = warps.template_index(template.geometry, lattice, rng)
    blur = warps.blur_voxels(lattice, template.geometry)
    t1, grey, white = (
        map_coordinates(gaussian_filter(a, blur), index, order=1, output=np.float32)
        for a in (template.t1, template.grey, template.white)
    )
    labels = np.argmax(np.stack([1 - grey - white, grey, white]), axis=0).astype(np.uint8)
    return Case(scanner.acquire(t1, (grey, white), rng), labels, lattice)


def write_case(root: Path, part: str, name: str, case: Case) -> None:
    """Write one case of an nnU-Net raw dataset; `part` is ``"Tr"`` or ``"Ts"``."""
    arrays: dict[str, NDArray[Any]] = {
        f"images{part}/{name}_0000.nii.gz": case.image,
        f"labels{part}/{name}.nii.gz": case.labels,
    }
    for relative, data in arrays.items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(data.T, REVERSE @ case.geometry.affine @ REVERSE)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path)


def _write_dataset_json(root: Path, n_cases: int, seed: int) -> None:
    """Write what nnU-Net wants to know, and where the data come from."""
    content = {
        "name": "brain_tissue",
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "grey matter": GREY, "white matter": WHITE},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
        "licence": LICENCE,
        "made_by": f"ka2er_training.sample.brain.make_brain_task, seed {seed}",
    }
    (root / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
