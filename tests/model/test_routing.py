import numpy as np
import pytest

from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.config import ExpertEntry, StudentConfig, TaskEntry
from napari_ka2er.model.fingerprints import fingerprint, task_fingerprint
from napari_ka2er.model.routing import choose_experts, knowing_experts

rng = np.random.default_rng(0)
CT = np.concatenate([np.full(3000, -1000.0), rng.normal(40, 60, 4000), rng.normal(600, 90, 1000)])
MR = rng.gamma(3.0, 100.0, 8000)


def seen(values):
    return fingerprint(Volume(values.reshape(20, 20, 20).astype(np.float32), np.eye(4)))


def student(**intensities):
    def entry(name, intensity):
        task = Task(name, (Label(1, "a"),))
        return TaskEntry(task, (1.0, 1.0, 1.0), (32, 32, 32), intensity=intensity)

    tasks = tuple(entry(name, known) for name, known in intensities.items())
    experts = tuple(ExpertEntry(name, "d", {}, {}) for name in intensities)
    return StudentConfig(tasks, experts)


@pytest.fixture
def mixed():
    kinds = {"ct": task_fingerprint([seen(CT)]), "mr": task_fingerprint([seen(MR)])}
    return student(**kinds, unknown={})


def test_experts_of_another_kind_of_image_know_nothing_of_it(mixed):
    assert knowing_experts(mixed, seen(CT)) == [True, False, True]
    assert knowing_experts(mixed, seen(MR * 7)) == [False, True, True]


def test_all_may_know_where_the_kind_of_the_volume_is_nobodys():
    ct_only = student(one=task_fingerprint([seen(CT)]), two=task_fingerprint([seen(CT)]))
    assert knowing_experts(ct_only, seen(MR)) == [True, True]


def test_an_expert_runs_from_the_threshold_on():
    every = [True, True, True]
    assert choose_experts(np.array([0.5, 0.2, 0.3]), 0.25, every[:2]) == [True, False]
    assert choose_experts(np.array([0.3, 0.3, 0.4]), 0.25, every[:2]) == [True, True]


def test_the_best_one_runs_below_it_too_unless_null_outweighs_all():
    assert choose_experts(np.array([0.1, 0.2, 0.2, 0.5]), 0.25, [True] * 3) == [False, True, False]
    assert choose_experts(np.array([0.1, 0.2, 0.7]), 0.25, [True] * 2) == [False, False]
    assert choose_experts(np.array([1.0]), 0.25, []) == []


def test_the_best_one_that_knows_the_kind_of_volume_always_runs():
    assert choose_experts(np.array([0.05, 0.6, 0.35]), 0.1, [True, False]) == [True, True]
    assert choose_experts(np.array([0.05, 0.6, 0.35]), 0.1, [False, True]) == [False, True]
    assert choose_experts(np.array([0.04, 0.06, 0.45, 0.45]), 0.1, [True, True, False]) == [
        False,
        True,
        True,
    ]
