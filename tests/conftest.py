from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import pytest

from napari_ka2er.core.volume import Volume


@pytest.fixture
def ball() -> Volume:
    """A bright ball of radius 6 mm in the middle of a dark (12, 24, 24) volume.

    Voxels are 2 x 1 x 1 mm, so the ball is 6 voxels across in Z and 12 in Y and X:

          Y,X ->                 Z ->
          . . # # . .            . # .
          . # # # # .            # # #
          . . # # . .            . # .
    """
    z, y, x = np.ogrid[:12, :24, :24]
    distance_mm = np.sqrt((2 * (z - 5.5)) ** 2 + (y - 11.5) ** 2 + (x - 11.5) ** 2)
    return Volume((distance_mm < 6).astype(np.float32), np.diag([2.0, 1.0, 1.0, 1.0]))


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory):
    """The folder of an untrained student with two tasks, two grids and two real experts."""
    from tests.model.folders import make_student_folder  # seconds of imports that few tests need

    return make_student_folder(tmp_path_factory.mktemp("students") / "student")
