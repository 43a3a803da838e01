"""Growing and shrinking in slabs, and what memory they take."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from napari_ka2er.core import editing


def whole(labels, value, mm, spacing, tool):
    """The map after a tool, by one distance transform of all of it."""
    inside = labels == value
    away = inside if tool is editing.shrink else ~inside
    near = np.zeros(labels.shape, np.bool_)
    if not away.all():
        near = ndimage.distance_transform_edt(away, sampling=spacing) <= mm * (1 + 1e-9)
    if tool is editing.shrink:
        return np.where(inside & near, 0, labels)
    return np.where(near & (labels == 0), value, labels)


@pytest.mark.parametrize("tool", [editing.grow, editing.shrink])
@pytest.mark.parametrize("seed", range(15))
def test_slabs_give_what_the_whole_map_gives(tool, seed, monkeypatch):
    monkeypatch.setattr(editing, "_SLAB_VOXELS", 1)
    rng = np.random.default_rng(seed)
    labels = (rng.random((23, 11, 13)) < rng.choice([0.002, 0.1, 0.98])).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.05] = 2
    labels[11, 5, 6] = 1
    spacing = tuple(rng.choice([0.1, 0.3, 0.7, 1.0, 3.0], 3))
    for mm in (0.05, 0.3, 0.7, 1.0, 2.1, 3.0, 1e9):
        region, values = tool(labels, 1, mm, spacing)
        result = labels.copy()
        result[region] = values
        np.testing.assert_array_equal(result, whole(labels, 1, mm, spacing, tool))


@pytest.mark.parametrize("tool", [editing.grow, editing.shrink])
def test_no_more_than_a_few_bytes_a_voxel_are_taken(tool, monkeypatch):
    """One distance transform of the whole map takes more than 30 bytes for each."""
    monkeypatch.setattr(editing, "_SLAB_VOXELS", 2**16)
    z, y, x = np.ogrid[:240, :96, :96]
    labels = ((z - 120) ** 2 / 9 + (y - 48) ** 2 + (x - 48) ** 2 < 39**2).astype(np.uint8)
    tracemalloc.start()
    tool(labels, 1, 2.0, (1.0, 1.0, 1.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * labels.size
