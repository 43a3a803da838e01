import dataclasses
import math

import numpy as np
import pytest
import torch
from tests.model.students import SHAPE, small_config, small_student, window_features
from tests.model.test_expert_view import expert as expert
from torch import nn

from napari_ka2er.model.alignment import ABSENT, HALLUCINATED
from napari_ka2er.model.config import StudentConfig
from napari_ka2er.model.expert_features import decode
from napari_ka2er.model.shortcut import Shortcut


@pytest.fixture
def shortcut():
    """Experts of three and two channels; the first answers a and b, the second c."""
    made = Shortcut(small_config())
    for k, head in enumerate(made.heads):
        torch.manual_seed(k)
        other = nn.Conv3d(head.in_channels, head.out_channels, 1)
        made.open(k, other)
    return made


def trust(*weights):
    return torch.tensor(weights)[None, :, None, None, None].expand(1, -1, *SHAPE).clone()


def answer(shortcut, features, weights):
    with torch.no_grad():
        return shortcut(features.levels[1], features.masks[1], features.state, weights)


def test_an_answer_is_the_log_odds_of_the_expert_s_softmax_times_trust(shortcut):
    features = window_features()
    added = answer(shortcut, features, trust(1.0, 0.25, 0.0))
    with torch.no_grad():
        for k, outputs, weight in ((0, (0, 1), 1.0), (1, (2,), 0.25)):
            logits = shortcut.heads[k](features.levels[1][k])[0, :, 3, 40, 20].tolist()
            odds = [math.exp(v) for v in logits]
            for label, output in enumerate(outputs, start=1):
                wanted = math.log(odds[label] / (sum(odds) - odds[label]))
                assert float(added[0, output, 3, 40, 20]) == pytest.approx(
                    weight * wanted, abs=1e-4
                )


def test_labels_in_another_order_get_the_answers_of_their_values(shortcut):
    config = small_config()
    first, second = config.tasks
    turned = dataclasses.replace(first.task, labels=first.task.labels[::-1])
    tasks = (dataclasses.replace(first, task=turned), second)
    other = Shortcut(dataclasses.replace(config, tasks=tasks))
    other.load_state_dict(shortcut.state_dict())
    features, weights = window_features(), trust(1.0, 1.0, 0.0)
    wanted = answer(shortcut, features, weights)[:, [1, 0, 2]]
    torch.testing.assert_close(answer(other, features, weights), wanted)


def test_certain_answers_stay_finite(shortcut):
    features = window_features()
    features.levels[1][0] *= 1000
    added = answer(shortcut, features, trust(1.0, 0.0, 0.0))
    assert added.abs().max() == 8


@pytest.mark.parametrize("state", [HALLUCINATED, ABSENT])
def test_an_expert_that_has_not_run_and_one_beyond_its_field_say_nothing(shortcut, state):
    features = window_features()
    features.state[0, 0] = state
    features.masks[1][:, 1, :10] = False
    added = answer(shortcut, features, trust(0.5, 0.5, 0.0))
    assert not added[:, :2].any()
    assert not added[:, 2, :10].any()
    assert added[:, 2, 10:].all()


def test_a_head_of_another_size_is_left_out_and_a_new_one_keeps_the_gain(shortcut):
    fresh = Shortcut(small_config())
    fresh.open(0, nn.Conv3d(3, 2, 1))
    assert not fresh.gain.any()
    with torch.no_grad():
        shortcut.gain.copy_(torch.tensor([0.5, 0.6, 0.7]))
    head = nn.Conv3d(3, 3, 1, bias=False)
    shortcut.open(0, head, gain=None)
    torch.testing.assert_close(shortcut.gain.data, torch.tensor([0.5, 0.6, 0.7]))
    torch.testing.assert_close(shortcut.heads[0].weight, head.weight)
    assert not shortcut.heads[0].bias.any()


def test_a_closed_shortcut_leaves_a_student_swinunetr_and_an_open_one_adds_the_answers():
    student, features = small_student(shortcut=True), window_features()
    image = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = student.foundation.net(image)
        torch.testing.assert_close(student.encode(image, features).logits, plain, atol=1e-6, rtol=0)
        student.shortcut.open(1, nn.Conv3d(2, 2, 1))
        change = student.encode(image, features).logits - plain
        distilled = student.encode(image).logits
    assert change[:, 2].abs().max() > 0.01
    assert change[:, :2].abs().max() < 1e-6
    torch.testing.assert_close(distilled, plain, atol=1e-6, rtol=0)


def test_students_made_before_there_was_a_shortcut_have_none():
    data = small_config(shortcut=True).to_json()
    del data["shortcut"]
    assert not StudentConfig.from_json(data).shortcut
    assert not any("shortcut" in name for name in small_student().state_dict())


def test_an_expert_s_head_makes_its_logits_of_its_features(expert):
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 16, 24, 16))).float()
    with torch.no_grad():
        wanted = expert.network(image)
        features = decode(expert.network, image)
        torch.testing.assert_close(expert.head(0)(features[0]), wanted)
