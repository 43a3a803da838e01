from types import SimpleNamespace

import numpy as np
import pytest

from ka2er_training.plan import expert_entry
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.expert_look import working_spacing

STRIDES = [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32)]


def stages(planned, grid):
    expert = SimpleNamespace(
        spacing_mm=planned,
        strides=STRIDES,
        stage_channels=[2, 4, 6, 8, 10, 12],
        task=SimpleNamespace(name="t"),
        digest="d",
    )
    return expert_entry(expert, grid).stages


@pytest.mark.parametrize(
    ("planned", "grid", "expected"),
    [
        # Works at the grid's 5 mm; at its own, stage 2 would be as coarse as stride 1.
        ((1.0, 1.0, 1.0), (5.0, 5.0, 5.0), {16: 4, 8: 3, 4: 2, 2: 1, 1: 0}),
        # Finer, but not much: works at its own 4 mm.
        ((4.0, 4.0, 4.0), (5.0, 5.0, 5.0), {16: 4, 8: 3, 4: 2, 2: 1, 1: 0}),
        # Coarser than the grid by 4: strides 1 to 4 get the finest stage.
        ((4.0, 4.0, 4.0), (1.0, 1.0, 1.0), {16: 2, 8: 1, 4: 0, 2: 0, 1: 0}),
        # Works at 5 by 3 by 3 mm: only the axes that are much finer are coarsened.
        ((5.0, 0.8, 0.8), (5.0, 3.0, 3.0), {16: 4, 8: 3, 4: 2, 2: 1, 1: 0}),
    ],
)
def test_stages_are_chosen_at_the_spacing_at_which_the_expert_works(planned, grid, expected):
    assert stages(planned, grid) == expected
    geometry = Geometry((300, 400, 400), np.diag([0.7, 0.9, 1.1, 1.0]))
    pitch = np.prod(working_spacing(planned, geometry, grid)) ** (1 / 3)
    for stride, stage in expected.items():  # no stage's tokens are nearer to the student's
        wanted = np.log2(stride * np.prod(grid) ** (1 / 3))
        off = [abs(np.log2(pitch * s[0]) - wanted) for s in STRIDES]
        assert off[stage] == pytest.approx(min(off))
