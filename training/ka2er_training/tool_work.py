"""Apply a correction tool to a label map in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.io import check_target, read_labels, read_volume, write_labels
from napari_ka2er.core.io.atomic import make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_ka2er.core.tool_call import ToolCall
    from napari_ka2er.core.volume import Volume


def apply_to_file(
    call: ToolCall, labels: Path, out: Path, image: Path | None = None
) -> dict[str, Any]:
    """Write a label map as a tool leaves it, with the geometry and header of the one it had.

    Parameters
    ----------
    call : ToolCall
        The tool.
    labels, out : Path
        The label map to read, and the one to write.
    image : Path, optional
        The image it was drawn on, for tools that look at intensities; its first channel counts.

    Returns
    -------
    dict
        The tool, the file written and the number of voxels that changed, as plain data.

    Raises
    ------
    UserError
        If a file cannot be read or written, the image lies elsewhere, or the tool cannot do its
        work.
    """
    check_target(out)  # before the work, not after
    like = read_volume(labels)
    before, lattice = read_labels(labels)
    intensities = None if image is None else _intensities(image, like)
    region, wanted = call.apply(before, intensities, lattice)
    after = before.astype(np.promote_types(before.dtype, wanted.dtype))
    after[region] = wanted
    make_folder(out.parent)
    write_labels(out, after, like)
    n_changed = int(np.count_nonzero(after != before))
    return {"tool": call.to_json(), "out": str(out), "n_changed": n_changed}


def _intensities(path: Path, labels: Volume) -> NDArray[Any]:
    image = read_volume(path)
    if not image.geometry.is_close(labels.geometry):
        raise UserError(f"an image in the place of {labels.name}", f"{path}")
    first: NDArray[Any] = image.channels[0]
    return first
