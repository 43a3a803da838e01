import json

import pytest
import torch
from tests.model.students import SHAPE, small_config, small_student, window_features

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.alignment import ABSENT, HALLUCINATED
from napari_ka2er.model.config import StudentConfig


@pytest.fixture
def image():
    return torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("given", ["full", "distilled"])
def test_an_untrained_student_is_exactly_swinunetr(image, given):
    student = small_student()
    features = window_features() if given == "full" else None
    with torch.no_grad():
        torch.testing.assert_close(
            student.encode(image, features).logits,
            student.foundation.net(image),
            atol=1e-6,
            rtol=0,
        )


def test_every_level_changes_the_result_once_it_is_awake(image):
    for stride in (16, 8, 4, 2, 1):
        student = small_student()
        levels = student.coarse if stride >= 8 else student.fine
        torch.nn.init.normal_(levels[str(stride)].out.weight)
        with torch.no_grad():
            change = student.encode(image, window_features()).logits - student.foundation.net(image)
        assert change.abs().max() > 1e-4, stride


def test_sizes_and_weights(image):
    with torch.no_grad():
        encoded = small_student(awake=True).encode(image, window_features())
    assert encoded.gold.shape == (1, 24, 4, 8, 4)
    assert encoded.dense.shape == (1, 8, 16, 32, 16)
    assert encoded.logits.shape == (1, 3, *SHAPE)
    assert encoded.weights.shape == (1, 3, 4, 8, 4)
    torch.testing.assert_close(encoded.weights.sum(dim=1), torch.ones(1, 4, 8, 4))


@pytest.mark.parametrize("state", [HALLUCINATED, ABSENT])
def test_features_of_an_expert_that_has_not_run_are_never_read(image, state):
    student = small_student(awake=True)
    features, others = window_features(), window_features(seed=2)
    features.state[0, 1] = others.state[0, 1] = state
    for stride, tensors in others.levels.items():
        tensors[0] = features.levels[stride][0]
    with torch.no_grad():
        first, second = student.encode(image, features), student.encode(image, others)
    torch.testing.assert_close(first.logits, second.logits)


def test_absent_experts_get_no_weight_and_leave_the_null_expert(image):
    features = window_features()
    features.state[:] = ABSENT
    with torch.no_grad():
        weights = small_student(awake=True).encode(image, features).weights
    torch.testing.assert_close(weights[:, -1], torch.ones(1, 4, 8, 4))


def test_an_expert_has_no_weight_outside_its_field(image):
    features = window_features()
    for mask in features.masks.values():
        mask[:, 0, : mask.shape[2] // 2] = False
    with torch.no_grad():
        weights = small_student(awake=True).encode(image, features).weights
    assert weights[:, 0, 0].max() < 1e-6  # the outermost tokens see no interpolated border
    assert weights[:, 0, 3].min() > 0


def test_uniform_averaging_weighs_present_experts_alike(image):
    features = window_features()
    with torch.no_grad():
        weights = small_student(amalgamation="uniform").encode(image, features).weights
    torch.testing.assert_close(weights[0, :, 0, 0, 0], torch.tensor([0.5, 0.5, 0.0]))


def test_the_bottleneck_student_has_no_fine_levels_and_the_plain_one_none():
    assert not small_student(amalgamation="bottleneck").fine
    plain = small_student(amalgamation="none")
    assert not plain.coarse
    assert not plain.fine


@pytest.mark.parametrize("amalgamation", ["attention", "uniform", "bottleneck"])
def test_distilled_mode_is_what_training_showed_without_experts(image, amalgamation):
    """Training has features in hand and calls all of them hallucinated; who predicts has none."""
    student = small_student(awake=True, amalgamation=amalgamation)
    features = window_features()
    features.state[:] = HALLUCINATED
    with torch.no_grad():
        trained, predicted = student.encode(image, features), student.encode(image, None)
    assert (trained.logits - student.foundation.net(image)).abs().max() > 1e-3
    for name in ("logits", "gold", "dense"):
        torch.testing.assert_close(getattr(predicted, name), getattr(trained, name), msg=name)


def test_routing_needs_no_expert_and_says_what_distilled_mode_says(image):
    student = small_student(awake=True)
    with torch.no_grad():
        torch.testing.assert_close(student.route(image), student.encode(image).weights)


def test_configuration_survives_json():
    config = small_config()
    assert StudentConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_unknown_keys_and_tasks_are_refused():
    data = small_config().to_json()
    with pytest.raises(UserError, match="unexpected"):
        StudentConfig.from_json({**data, "unexpected": 1})
    with pytest.raises(UserError, match="one, two"):
        small_config().entry("three")


def test_outputs_are_the_labels_in_order():
    config = small_config()
    assert list(config.outputs("one")) == [0, 1]
    assert list(config.outputs("two")) == [2]
