from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_ka2er.widgets.controller import AnnotateController
from napari_ka2er.widgets.jobs import Choice

if TYPE_CHECKING:
    from napari_ka2er.core.volume import Volume


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Features in a folder of the test's own."""
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache")


@pytest.fixture
def small() -> Volume:
    """A rotated, anisotropic volume with a bright ellipsoid, small enough for a few windows."""
    from tests.model.folders import blob

    return blob(shape=(12, 40, 30), spacing=3.0)


@pytest.fixture
def viewer(small) -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.array(small.data), name="scan", affine=small.affine)
    return viewer


@pytest.fixture
def controller(viewer, tmp_path, qapp):
    controller = AnnotateController(viewer, sessions=tmp_path / "sessions")
    yield controller
    controller.close()


@pytest.fixture
def failures(controller) -> list[str]:
    """What the user was told that went wrong."""
    found: list[str] = []
    controller.failed.connect(found.append)
    return found


@pytest.fixture
def started(controller, viewer, student_folder, qtbot, failures) -> AnnotateController:
    """A session on the viewer's only image, without experts, so that it is quick."""
    controller.start(viewer.layers["scan"], Choice(student_folder, "one", "distilled"))
    qtbot.waitUntil(lambda: bool(failures) or controller.session is not None, timeout=60_000)
    assert not failures
    return controller
