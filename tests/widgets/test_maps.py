from __future__ import annotations

import numpy as np
import pytest
from tests.widgets.conftest import settle

from napari_ka2er.core.task import COLORS
from napari_ka2er.widgets.looking import slice_index
from napari_ka2er.widgets.maps import UNSURE, next_slice


def test_uncertain_slices_are_gone_through_once_and_not_twice_in_the_same_place():
    scores = np.array([0.1, 0.5, 0.6, 0.5, 0.1, 0.0, 0.3])
    seen: set[int] = set()
    order = []
    while (index := next_slice(scores, frozenset(), seen)) is not None:
        order.append(index)
        seen.add(index)
    assert order == [2, 6]
    assert next_slice(scores, frozenset({2}), set()) in (1, 3)
    assert next_slice(scores, frozenset(range(7)), set()) is None


def test_maps_are_layers_in_the_volumes_place_that_can_be_told_apart(
    started, viewer, qtbot, failures
):
    started.show_uncertainty()
    assert started.work == "map"
    settle(started, qtbot)
    started.show_expert_map()
    settle(started, qtbot)
    assert not failures
    maps = [layer for layer in viewer.layers if "map" in layer.metadata.get("napari_ka2er", {})]
    names = [layer.name for layer in maps]
    assert names[0].startswith("uncertainty")
    assert [name.split(" in ")[0] for name in names[1:]] == [
        "expert one",
        "expert two",
        "expert null",
    ]
    assert len({layer.colormap.name for layer in maps}) == len(maps)
    for layer in maps:
        assert layer.data.shape == started.session.volume.shape
        at = started.view.labels.data_to_world((3, 5, 7))
        np.testing.assert_allclose(layer.data_to_world((3, 5, 7)), at)
    total = sum(layer.data.astype(float) for layer in maps[1:])
    np.testing.assert_allclose(total, 1, atol=0.01)
    started.show_uncertainty()
    settle(started, qtbot)
    assert len([layer for layer in viewer.layers if layer.name.startswith("uncertainty")]) == 1


def test_the_next_uncertain_slice_of_the_axis_that_is_shown(started, viewer, qtbot, failures):
    viewer.dims.order = (1, 0, 2)
    started.next_uncertain_slice()  # makes the map first
    settle(started, qtbot)
    assert not failures
    scores = started._maps.uncertainty.slices[1]
    assert len(scores) == 40
    assert slice_index(viewer.dims, started.view.labels) == int(scores.argmax())
    started.next_uncertain_slice()
    settle(started, qtbot)
    axis, index = started.shown_slice()
    assert axis == 1
    assert abs(index - int(scores.argmax())) >= 3


@pytest.mark.parametrize("how", ["whole", "across another axis"])
def test_no_slice_of_a_reviewed_volume_is_gone_to(started, viewer, qtbot, failures, how):
    told: list[str] = []
    started.told.connect(told.append)
    n_across_y = started.session.volume.shape[1]
    started.show_uncertainty()
    settle(started, qtbot)

    def review(session):
        if how == "whole":
            session.review_volume()
        for index in range(n_across_y if how != "whole" else 0):
            session.review_slice(1, index)

    started._act(review)
    settle(started, qtbot)
    before = started.shown_slice()
    started.next_uncertain_slice()
    assert told[-1] == "Every slice is reviewed."
    assert started.shown_slice() == before
    started._act(lambda session: session.review_slice(0, 7, False))
    settle(started, qtbot)
    started.next_uncertain_slice()
    assert started.shown_slice() == (0, 7)
    started.next_uncertain_slice()
    assert "All uncertain slices were looked at" in told[-1]
    assert not failures


def test_the_volume_is_encoded_in_the_background_and_a_click_comes_first(started, qtbot, failures):
    assert started.filled_share == 0
    started.set_filling(True)
    qtbot.waitUntil(lambda: started.filled_share > 0, timeout=60_000)
    assert started.work == "", "people may do anything meanwhile"
    started.view.points.add((6, 20, 15))
    settle(started, qtbot)
    assert started.session.mask[6, 20, 15] == 1
    qtbot.waitUntil(lambda: started.filled_share == 1, timeout=60_000)
    assert not failures
    started.set_filling(False)
    assert not started.is_filling


def test_uncertainty_has_no_label_s_colour():
    """Seen on the labels, it must be told from each of them."""
    labels = [[part / 255 for part in bytes.fromhex(color[1:])] for color in COLORS]
    for unsure in UNSURE:
        nearest = min(np.abs(np.subtract(unsure[:3], color)).max() for color in labels)
        assert nearest > 0.2, unsure
