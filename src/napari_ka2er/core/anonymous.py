"""What a file's header may tell about a person, left out of what is given away."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_ka2er.core.volume import Volume


def without_names(volume: Volume) -> Volume:
    """Return a volume whose header tells the geometry and nothing about a person."""
    from napari_ka2er.core.io.nifti import TEXT_FIELDS  # nibabel takes its time to import

    header = {key: value for key, value in volume.header.items() if key != "labels"}
    if "nifti" in header:
        header["nifti"] = header["nifti"].copy()
        header["nifti"].extensions.clear()  # they tell of the acquisition, often of the patient
        for name in TEXT_FIELDS:
            if name in header["nifti"]:
                header["nifti"][name] = b""
    return replace(volume, header=header, name="case")
