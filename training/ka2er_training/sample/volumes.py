"""The volumes that ship with the project, each with its licence beside it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

from ka2er_training.sample.phantom import make_phantom
from ka2er_training.sample.sources import nilearn_data
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import read_volume
from napari_ka2er.core.resampling import grid_of, resample
from napari_ka2er.core.volume import REVERSE, Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

ICBM = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
LUNG = "pyradiomics-3.0.1/data/lung1_image.nrrd"
CT_SPACING_MM = (5.0, 1.5, 1.5)
AIR_HU = -1024

# What volumes.json says of each file, beside its checksum.
CARDS: dict[str, dict[str, str]] = {
    "icbm_t1": {
        "title": "MR: T1 brain (ICBM 152)",
        "modality": "MR",
        "source": "nilearn's wheel, nilearn/datasets/data/" + ICBM,
        "changes": "none but the compression",
        "licence": "ICBM notice",
    },
    "ct_chest": {
        "title": "CT: chest (pyradiomics lung1)",
        "modality": "CT",
        "source": "source distribution of pyradiomics 3.0.1, data/lung1_image.nrrd",
        "changes": "resampled from 5 x 0.57 x 0.57 mm to 5 x 1.5 x 1.5 mm; axes in RAS+ order",
        "licence": "BSD-3-Clause",
    },
    "phantom": {
        "title": "CT: chest phantom (synthetic)",
        "modality": "CT",
        "source": "ka2er_training.sample.phantom, this project",
        "changes": "none",
        "licence": "Apache-2.0",
    },
}


def make_sample_volumes(out: Path, *, pyradiomics: Path, nilearn: Path | None = None) -> Path:
    """Write the sample volumes, a licence beside each, and ``volumes.json``; return the folder.

    The same sources give the same voxels, and with the same zlib the same bytes.

    Parameters
    ----------
    out : Path
        The folder to write; one that exists is replaced.
    pyradiomics : Path
        The source distribution, ``pyradiomics-3.0.1.tar.gz``
        (``pip download pyradiomics==3.0.1 --no-deps --no-binary :all: --no-build-isolation``).
    nilearn : Path, optional
        Folder with nilearn's ``mni_icbm152_*`` files; by default the installed nilearn's.

    Raises
    ------
    UserError
        If a source is missing or is not what it should be.
    """
    icbm = (nilearn or nilearn_data()) / ICBM
    if not icbm.is_file():
        raise UserError(f"the ICBM template {ICBM}", f"nothing of that name in {icbm.parent}")
    chest = read_chest(pyradiomics)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _compress(icbm, temporary / "icbm_t1.nii.gz")
        _write(shrink_chest(chest), temporary / "ct_chest.nii.gz")
        _write(make_phantom().volume, temporary / "phantom.nii.gz")
        _write_cards(temporary)
        shutil.rmtree(out, ignore_errors=True)
        temporary.chmod(0o755)  # mkdtemp makes it private, a project's folder is not
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def read_chest(sdist: Path) -> Volume:
    """Return the CT `lung1` out of pyradiomics' source distribution.

    Raises
    ------
    UserError
        If `sdist` is not that archive.
    """
    try:
        with tarfile.open(sdist) as archive, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lung1.nrrd"
            member = archive.extractfile(LUNG)
            if member is None:
                raise KeyError(LUNG)
            path.write_bytes(member.read())
            return read_volume(path)
    except (OSError, tarfile.TarError, KeyError) as error:
        raise UserError(f"pyradiomics-3.0.1.tar.gz with {LUNG}", f"{sdist} ({error})") from error


def shrink_chest(chest: Volume) -> Volume:
    """Return the chest at `CT_SPACING_MM`, so that it stays small; int16, air outside."""
    grid = grid_of(chest.geometry, CT_SPACING_MM, multiple=1)
    values = resample(chest.data, chest.geometry, grid, order=1, cval=AIR_HU)
    return Volume(np.round(values).astype(np.int16), grid.affine, name="ct_chest")


def _compress(source: Path, target: Path) -> None:
    """Copy a .gz with the best compression and without its time."""
    target.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), 9, mtime=0))


def _write(volume: Volume, path: Path) -> None:
    """Write a NIfTI whose bytes depend on the volume alone."""
    data: NDArray[Any] = volume.data.T
    image = nibabel.Nifti1Image(data, REVERSE @ volume.affine @ REVERSE)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


def _write_cards(folder: Path) -> None:
    """Write the licences and the list of volumes with their checksums."""
    rows = []
    for name, card in CARDS.items():
        path = folder / f"{name}.nii.gz"
        licence = files("ka2er_training.sample").joinpath("licences", f"{name}.txt")
        (folder / f"{name}.txt").write_bytes(licence.read_bytes())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append({"name": name, "file": path.name, **card, "sha256": digest})
    (folder / "volumes.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
