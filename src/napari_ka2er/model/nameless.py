"""What prompts say about a structure that the student has no name for.

There is no automatic result to lean on: only what was clicked tells what is meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_ka2er.core.prompts import Box, Point
from napari_ka2er.core.touched import extent_of, touched_by, values_near

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_ka2er.core.boxes import Region
    from napari_ka2er.core.prompts import Prompt
    from napari_ka2er.core.volume import Geometry

    Mask = NDArray[np.bool_]

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
# Half of the box that the mask decoder refines: what lies farther off is not the newest prompt's.
_NEAR = 24


def centre_of(box: Box) -> Point:
    """Return a click in the middle of a box."""
    z, y, x = ((a + b) / 2 for a, b in zip(box.low_mm, box.high_mm, strict=True))
    return Point((z, y, x))


def with_centres(prompts: Sequence[Prompt], grid: Geometry) -> list[Prompt]:
    """Return prompts with a click in the middle of each box, after it.

    A box alone does not show what the structure looks like; its middle nearly always does.  Boxes
    drawn around one structure in several slices become one that spans them.
    """
    asked: list[Prompt] = []
    newest: Box | None = None
    for prompt in prompts:
        if isinstance(prompt, Box) and prompt.positive:
            newest = prompt if newest is None else _spanning(newest, prompt, grid)
            asked += [newest, centre_of(newest)]
        else:
            asked.append(prompt)
    return asked


def newest_box(prompts: Sequence[Prompt], grid: Geometry) -> Box | None:
    """Return the box if the newest prompt is one, spanning those before it; see above."""
    newest = prompts[-1]
    if not isinstance(newest, Box) or not newest.positive:
        return None
    box = with_centres(prompts, grid)[-2]
    assert isinstance(box, Box)
    return box


def _spanning(first: Box, second: Box, grid: Geometry) -> Box:
    """Return a box around both if the second is one slice of the same structure, or the second."""
    extent = extent_of(second, grid)
    flat = _flat_axis(extent)
    pairs = zip(extent, extent_of(first, grid), strict=True)
    meets = [a.start < b.stop and b.start < a.stop for a, b in pairs]
    if flat is None or not all(meet for axis, meet in enumerate(meets) if axis != flat):
        return second
    corners = [first.low_mm, first.high_mm, second.low_mm, second.high_mm]
    index = grid.to_index(corners)
    (z, y, x), (zz, yy, xx) = grid.to_world([index.min(axis=0), index.max(axis=0)]).tolist()
    return Box((z, y, x), (zz, yy, xx))


def _flat_axis(extent: Region) -> int | None:
    sizes = [part.stop - part.start for part in extent]
    return sizes.index(1) if 1 in sizes else None


def room_of(box: Box, grid: Geometry) -> Region:
    """Return the voxels in which a boxed structure may lie.

    Parameters
    ----------
    box : Box
        Drawn in one slice, it says nothing about how far the structure reaches across the slices.
    grid : Geometry
        Any lattice.

    Returns
    -------
    tuple of slice
        The box; along the axis on which it is one voxel thick, the whole lattice.  Empty outside.
    """
    extent = extent_of(box, grid)
    flat = _flat_axis(extent)
    z, y, x = (slice(0, grid.shape[i]) if i == flat else part for i, part in enumerate(extent))
    return z, y, x


def own_pieces(mask: Mask, prompts: Sequence[Prompt], grid: Geometry) -> Mask:
    """Return the part of a mask that an object's newest prompt is about.

    A label may hold many structures; to a click on the next one, those before are no mask so far.

    Parameters
    ----------
    mask : ndarray of bool, shape grid.shape
        All that has the object's label.
    prompts : sequence of Prompt
        The object's, oldest first, at least one, with the middles of boxes.
    grid : Geometry
        The mask's lattice.

    Returns
    -------
    ndarray of bool, shape grid.shape
        The connected pieces at prompts that come within 24 voxels of the newest one.
    """
    if not mask.any():
        return mask
    pieces, n_pieces = ndimage.label(mask, _TOUCHING)
    touched = touched_by(prompts, grid)
    is_own = np.zeros(n_pieces + 1, dtype=bool)
    is_own[values_near(pieces, np.argwhere(touched.positive | touched.negative))] = True
    is_near = np.zeros(n_pieces + 1, dtype=bool)
    is_near[pieces[_around(extent_of(prompts[-1], grid), grid.shape)]] = True
    is_own[0] = False
    own: Mask = (is_own & is_near)[pieces]
    return own


def _around(extent: Region, shape: tuple[int, int, int]) -> Region:
    z, y, x = (
        slice(max(part.start - _NEAR, 0), min(part.stop + _NEAR, n))
        for part, n in zip(extent, shape, strict=True)
    )
    return z, y, x
