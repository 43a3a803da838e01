from __future__ import annotations

import numpy as np
import pytest

from napari_ka2er import _sample_data

NAMES = [card["name"] for card in _sample_data.sample_cards()]


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_one_image_layer_with_its_place_in_mm(name):
    layers = pytest.importorskip("napari.layers")
    [(data, attributes, kind)] = getattr(_sample_data, name)()
    layer = layers.Layer.create(data, attributes, kind)
    assert isinstance(layer, layers.Image)
    assert layer.ndim == 3
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    # A person is between 10 and 60 cm wide; a wrong unit or axis order is not.
    assert (np.ptp(layer.extent.world, axis=0) > 100).all()
    assert (np.ptp(layer.extent.world, axis=0) < 600).all()


def test_the_ct_lies_head_up(tmp_path):
    """The lungs' apices are in the upper half: more air of the lung below than above."""
    data, attributes, _ = _sample_data.sample_layer("ct_chest")
    lung = (data > -950) & (data < -650)
    z = (attributes["affine"] @ [*np.argwhere(lung).mean(axis=0), 1])[0]
    middle = (attributes["affine"] @ [*(np.array(data.shape) - 1) / 2, 1])[0]
    assert z < middle
    assert attributes["contrast_limits"] == (-1000.0, 400.0)
