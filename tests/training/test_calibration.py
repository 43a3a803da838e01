from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.model.folders import TASKS, make_expert

from ka2er_training.calibration import calibrate, open_shortcut
from ka2er_training.plan import preset, student_config, task_entry
from ka2er_training.stored_map import StoredMap
from napari_ka2er.model.standardise import Standardise
from napari_ka2er.model.student import Student


def view(path, inside, low, high):
    """A map of (2, 6, 8, 10) that is 100 but from `low` to `high`, where it is `inside`."""
    data = np.full((2, 6, 8, 10), 100, np.float16)
    first, end = np.ceil(low).astype(int), np.floor(high).astype(int) + 1
    data[:, first[0] : end[0], first[1] : end[1], first[2] : end[2]] = inside
    np.save(path, data)
    return ((StoredMap(path, np.eye(4), np.array([low, high], dtype=float)),),)


def calibrated(*views):
    scale = Standardise(2)
    expert = SimpleNamespace(stages={8: 0})
    student = SimpleNamespace(
        config=SimpleNamespace(experts=[expert]), standardisers=lambda: {(8, 0): scale}
    )
    calibrate(student, [SimpleNamespace(task="t", views=v) for v in views])
    return scale


def test_only_tokens_in_the_image_count(tmp_path):
    rows = np.array([1.0, 3.0])[:, None]  # the image is 3 by 2 by 1 tokens
    scale = calibrated(view(tmp_path / "a.npy", rows, (1.5, 2.0, 4.2), (4.5, 3.9, 5.8)))
    torch.testing.assert_close(scale.mean, torch.tensor([2.0, 2.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(scale.deviation, torch.tensor([1.0, 1.0]), atol=0.05, rtol=0)


def test_a_volume_without_a_token_inside_says_nothing_and_small_ones_count_like_large(tmp_path):
    none = view(tmp_path / "none.npy", 100, (1.2, 2, 4), (1.8, 5, 8))
    one = view(tmp_path / "one.npy", 1, (2, 2, 2), (2, 2, 2))
    many = view(tmp_path / "many.npy", 3, (-0.5, -0.5, -0.5), (5.5, 7.5, 9.5))
    scale = calibrated(none, one, many)
    torch.testing.assert_close(scale.mean, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(scale.deviation, torch.tensor([1.0, 1.0]))


def test_a_stage_that_no_volume_has_tokens_of_is_left_as_it_is(tmp_path):
    scale = calibrated(view(tmp_path / "none.npy", 100, (1.2, 2, 4), (1.8, 5, 8)))
    assert (scale.mean == 0).all()
    assert (scale.deviation == 1).all()


@pytest.mark.parametrize(
    ("trainer", "stage", "is_taken"),
    [
        ("nnUNetTrainer", 0, True),
        ("nnUNetTrainer", 1, True),
        ("nnUNetTrainer", 2, False),  # the coarsest output; nnU-Net weighs its loss with 0
        ("nnUNetTrainerNoDeepSupervision", 0, True),
        ("nnUNetTrainerNoDeepSupervision", 1, False),
    ],
)
def test_a_layer_that_was_never_trained_is_no_shortcut(tmp_path, trainer, stage, is_taken):
    expert = make_expert(tmp_path / "expert", TASKS[0], 0)
    expert.entry["trainer"] = trainer
    # A grid as coarse as the stage's tokens, whose spacing the expert keeps as its own.
    spacing = tuple(2.0 * 2**stage for _ in range(3))
    entry = task_entry(TASKS[0], spacing, [(48.0, 80.0, 40.0)], preset("tiny"))
    config = student_config([entry], [expert], preset("tiny"), "attention")
    config.experts[0].stages[1] = stage
    config.experts[0].channels[1] = expert.stage_channels[stage]
    student = Student(config)
    open_shortcut(student, [expert])
    assert torch.equal(student.shortcut.heads[0].weight, expert.head(stage).weight) == is_taken
    assert bool((student.shortcut.gain == 1).all()) == is_taken
