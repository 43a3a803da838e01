from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from napari.layers import Labels

from napari_ka2er.core.volume import Volume
from napari_ka2er.widgets.strokes import Limits, painted

SHAPE = (5, 7, 9)


class Atom(NamedTuple):
    """As napari 0.8 and newer tell a stroke."""

    slice_key: tuple
    mask: object
    old_values: object
    new_value: int


def strokes_of(act) -> list:
    """Return what napari tells of what is done to a labels layer."""
    layer, told = Labels(np.zeros(SHAPE, np.uint8)), []
    layer.events.paint.connect(lambda event: told.extend(event.value))
    act(layer)
    assert told
    return told, np.asarray(layer.data)


def brush(layer):
    layer.n_edit_dimensions = 3
    layer.brush_size = 3
    with layer.block_history():
        layer.paint((2, 3, 4), 1)
        layer.paint((2, 3, 6), 2)


def bucket(layer):
    layer.n_edit_dimensions = 3
    layer.fill((0, 0, 0), 3)


def polygon(layer):
    layer.paint_polygon([(1, 1, 1), (1, 1, 6), (1, 5, 6), (1, 5, 1)], 2)


def by_voxels(layer):
    layer.data_setitem((np.array([0, 4]), np.array([1, 6]), np.array([2, 8])), [1, 2])


@pytest.mark.parametrize("act", [brush, bucket, polygon, by_voxels])
def test_what_napari_paints_is_what_we_take(act):
    atoms, shown = strokes_of(act)
    mask = np.zeros(SHAPE, np.uint8)
    box, wanted = painted(atoms, mask)
    mask[box] = wanted
    np.testing.assert_array_equal(mask, shown)


def test_what_else_changed_while_the_mouse_was_down_stays():
    atoms, _ = strokes_of(brush)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 3, 5] = 0
    mask[1:4, 2:5, 3:8] = 7  # an answer came meanwhile
    box, wanted = painted(atoms, mask)
    result = mask.copy()
    result[box] = wanted
    assert result[2, 3, 4] == 1
    assert result[2, 3, 6] == 2
    assert result[1, 2, 3] == 7, "a corner that the brush did not reach"


def test_a_value_too_large_for_the_map_is_told_as_it_is():
    atom = Atom((slice(0, 1), slice(0, 1), slice(0, 1)), None, None, 300)
    _, wanted = painted([atom], np.zeros(SHAPE, np.uint8))
    assert wanted.item() == 300


def test_nothing_painted_is_nothing():
    assert painted([], np.zeros(SHAPE, np.uint8)) is None


def test_limits_keep_what_may_not_change():
    volume = Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), np.eye(4))
    box = (slice(0, 1), slice(0, 1), slice(0, 4))  # intensities 0 1 2 3
    present, wanted = np.array([[[0, 5, 0, 5]]]), np.full((1, 1, 4), 9)
    by_range = Limits((1, 2)).apply(box, wanted, present, volume)
    assert by_range.tolist() == [[[0, 9, 9, 5]]]
    assert Limits(only_over=5).apply(box, wanted, present, volume).tolist() == [[[0, 9, 0, 9]]]
    assert Limits().apply(box, wanted, present, volume).tolist() == wanted.tolist()
    assert not Limits()
    assert Limits(only_over=0)
