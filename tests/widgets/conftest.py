from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_ka2er.widgets.controller import AnnotateController
from napari_ka2er.widgets.jobs import Choice
from napari_ka2er.widgets.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_ka2er.core.volume import Volume


@pytest.fixture(scope="session")
def services(tmp_path_factory) -> Iterator[Services]:
    """The model's process, one for all tests: starting it takes seconds."""
    folder = tmp_path_factory.mktemp("cache")

    def launch(choice: Choice):
        from napari_ka2er.model.service import PredictorService

        return PredictorService(choice.student, choice.mode, choice.device, folder)

    services = Services(launch)
    yield services
    services.close()


@pytest.fixture
def small() -> Volume:
    """A flipped, anisotropic volume with a bright ellipsoid, small enough for a few windows."""
    from tests.model.folders import blob

    blob = blob(shape=(12, 40, 30), spacing=3.0)
    affine = np.diag([3.0, -2.1, 2.7, 1.0])
    affine[:3, 3] = 20, 40, -10
    return replace(blob, affine=affine)


@pytest.fixture
def oblique() -> Volume:
    """The same, rotated by 11 degrees."""
    from tests.model.folders import blob

    return blob(shape=(12, 40, 30), spacing=3.0)


@pytest.fixture
def viewer(small) -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.array(small.data), name="scan", affine=small.affine)
    return viewer


@pytest.fixture
def new_controller(tmp_path, services, qapp) -> Iterator[Callable[..., AnnotateController]]:
    """Makes controllers that keep their sessions in one folder and fill nothing unasked."""
    made: list[AnnotateController] = []

    def make(viewer, sessions: Path | None = None) -> AnnotateController:
        folder = sessions or tmp_path / "sessions"
        made.append(AnnotateController(viewer, sessions=folder, services=services))
        made[-1].set_filling(False)
        return made[-1]

    yield make
    for controller in made:
        controller.close()


@pytest.fixture
def controller(viewer, new_controller) -> AnnotateController:
    return new_controller(viewer)


@pytest.fixture
def failures(controller) -> list[str]:
    """What the user was told that went wrong."""
    found: list[str] = []
    controller.failed.connect(found.append)
    return found


@pytest.fixture
def begin(student_folder, qtbot) -> Callable[..., AnnotateController]:
    """Begins a session without experts, so that it is quick."""

    def begin(controller, layer, task="one") -> AnnotateController:
        failures: list[str] = []
        controller.failed.connect(failures.append)
        controller.start(layer, Choice(student_folder, task, "distilled", "cpu"))
        settle(controller, qtbot)
        assert not failures
        assert controller.session is not None
        return controller

    return begin


@pytest.fixture
def started(controller, viewer, begin, failures) -> AnnotateController:
    """A session on the viewer's only image."""
    return begin(controller, viewer.layers["scan"])


def settle(controller: AnnotateController, qtbot, timeout: int = 400_000) -> None:
    """Wait until nothing runs, nothing waits to be answered and everything is shown."""
    for _ in range(2):  # the end of one thing may start the next
        qtbot.wait(10)
        qtbot.waitUntil(lambda: controller.is_idle, timeout=timeout)
    qtbot.wait(10)
