from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.gl


@pytest.mark.parametrize("name", ["icbm_t1", "ct_chest", "phantom"])
def test_napari_shows_a_sample(make_napari_viewer_proxy, name):
    viewer = make_napari_viewer_proxy(show=True)
    [layer] = viewer.open_sample("napari-ka2er", name)
    assert layer.name != name, "the manifest's reader gave no title"
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    assert np.ptp(picture) > 100, "an empty canvas"
