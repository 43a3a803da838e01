from __future__ import annotations

import numpy as np
import pytest
import torch

from ka2er_training.cases import Sample
from ka2er_training.click_objects import draw_objects

SHAPE = (16, 24, 32)


@pytest.fixture
def window() -> Sample:
    """Two labels, the second one absent; a bright box that no label names."""
    image = torch.zeros(1, 1, *SHAPE)
    image[..., 2:10, 3:12, 5:15] = 2.0
    target = torch.zeros(1, 2, *SHAPE)
    target[0, 0, 4:12, 14:20, 18:30] = 1.0
    valid = torch.ones(1, 1, *SHAPE)
    valid[..., 31:] = 0
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return Sample("task", image + noise, target, valid, None)


def test_the_first_object_is_a_label_that_is_in_the_window(window):
    for seed in range(10):
        drawn = draw_objects(window, 3, 1.0, np.random.default_rng(seed))
        assert drawn.labels[0] == 0
        assert torch.equal(drawn.target[0], window.target[0, :1])
        assert torch.equal(drawn.valid[0], window.valid[0] > 0)


def test_the_others_are_structures_without_a_name_known_everywhere(window):
    drawn = draw_objects(window, 4, 1.0, np.random.default_rng(1))
    assert drawn.target.shape == (4, 1, *SHAPE)
    foreign = [i for i, label in enumerate(drawn.labels) if label is None]
    assert foreign
    for i in foreign:
        assert drawn.target[i].sum() >= 40
        assert drawn.valid[i].all()


def test_without_foreign_objects_all_are_labels(window):
    drawn = draw_objects(window, 3, 0.0, np.random.default_rng(0))
    assert drawn.labels == (0, 0, 0)


def test_where_no_structure_is_found_a_label_is_taken(window):
    window.image[:] = 0
    assert draw_objects(window, 3, 1.0, np.random.default_rng(0)).labels == (0, 0, 0)


def test_an_absent_label_may_be_asked_for_where_there_is_none(window):
    window.target[:] = 0
    labels = {draw_objects(window, 1, 0, np.random.default_rng(s)).labels[0] for s in range(20)}
    assert labels == {0, 1}
