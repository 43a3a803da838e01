"""Name the Decathlon's hippocampus cases by patient, so that a hold-out by patient is one."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from napari_ka2er.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

# With `name_by_patient`'s names.
PATIENT = r"p(\d+)_"
_ENDING = ".nii.gz"


def name_by_patient(source: Path, out: Path) -> Path:
    """Copy the hippocampus set with names ``p<patient>_<case>`` and return its folder.

    Cases 2k-1 and 2k are the left and right hippocampus of one scan: grey values of a case are
    multiples of a factor that belongs to its scan.  In the public training set, of the 49 pairs
    (2k-1, 2k) with both cases 39 share a factor other than 1 and 9 have 1; of the 57 pairs
    (2k, 2k+1) none shares one.

    Parameters
    ----------
    source : Path
        An nnU-Net raw dataset or an MSD task folder with cases ``hippocampus_<number>``.
    out : Path
        A new folder, written as an nnU-Net raw dataset or MSD folder like the source.

    Raises
    ------
    UserError
        If the source has no such cases, or `out` exists.
    """
    images = sorted((source / "imagesTr").glob(f"hippocampus_*{_ENDING}"))
    if not images or not (source / "dataset.json").is_file():
        raise UserError("imagesTr/hippocampus_*.nii.gz and dataset.json", f"none in {source}")
    if out.exists():
        raise UserError("a new folder", f"{out}, which exists")
    building = out.with_name(f".{out.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    for part in ("imagesTr", "labelsTr"):
        (building / part).mkdir(parents=True)
        for path in sorted((source / part).glob(f"hippocampus_*{_ENDING}")):
            shutil.copyfile(path, building / part / _rename_all(path.name))
    text = (source / "dataset.json").read_text(encoding="utf-8")
    (building / "dataset.json").write_text(_rename_all(text), encoding="utf-8")
    building.rename(out)
    return out


def _rename_all(text: str) -> str:
    def rename(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"p{(number + 1) // 2:03d}_{number:03d}"

    return re.sub(r"hippocampus_(\d+)", rename, text)
