import logging
from types import SimpleNamespace

import numpy as np
import pytest
from tests.model.folders import make_expert
from tests.training.test_amalgamate import SPACING, Ingredients, Source, write_case

from ka2er_training import amalgamate as amalgamate_module
from ka2er_training import student_work as student_work_module
from ka2er_training.amalgamate import prepare_cases, train_student
from ka2er_training.augmentation import random_window
from ka2er_training.plan import preset, student_config, task_entry
from ka2er_training.recipe import recipe_for
from ka2er_training.sides import has_sides, may_mirror
from ka2er_training.student_work import student_work
from ka2er_training.teaching import Teaching
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Geometry
from napari_ka2er.model.student import Student

PLAIN = Task("kidneys", (Label(1, "kidney"),))
SIDED = Task("kidneys", (Label(1, "kidney_left"), Label(2, "kidney_right")))
UPRIGHT = Geometry((4, 5, 6), np.eye(4))
# Stored as a sagittal scan: slices from left to right, so that the first axis is the lateral one.
SAGITTAL = Geometry((4, 5, 6), np.eye(4)[[1, 2, 0, 3]])


def expert(*mirroring, transpose=(0, 1, 2)):
    return SimpleNamespace(
        entry={"mirroring": mirroring or None}, plan=SimpleNamespace(transpose=transpose)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kidney_left", True),
        ("Right lung", True),
        ("KidneyL", True),
        ("femur-r", True),
        ("ctx-lh-insula", True),
        ("bright", False),
        ("vertebra L1", False),
        ("liver", False),
        ("leftover", False),
    ],
)
def test_words_tell_sides(name, expected):
    assert has_sides(Task("t", (Label(1, "other"), Label(2, name)))) == expected


@pytest.mark.parametrize(
    ("geometry", "own", "expected"),
    [
        (UPRIGHT, None, True),
        (UPRIGHT, expert(0, 1, 2), True),
        (UPRIGHT, expert(), False),
        (UPRIGHT, expert(0, 1), False),
        (UPRIGHT, expert(2), True),
        (SAGITTAL, expert(2), False),
        (SAGITTAL, expert(0), True),
        (UPRIGHT, expert(0, transpose=(2, 0, 1)), True),
        (UPRIGHT, expert(1, 2, transpose=(2, 0, 1)), False),
    ],
)
def test_what_an_expert_was_not_shown_mirrored_the_student_is_not(geometry, own, expected):
    assert may_mirror(PLAIN, geometry, own) == expected
    assert not may_mirror(SIDED, geometry, own)


def is_mirrored(window):
    return np.linalg.det(window.affine[:3, :3]) < 0


def test_a_window_is_the_same_but_for_the_swap():
    grid, size = Geometry((64, 64, 64), np.eye(4)), (32, 64, 32)
    swapped = 0
    for seed in range(40):
        free, kept = (
            random_window(grid, size, None, np.random.default_rng(seed), mirrored=mirrored)
            for mirrored in (True, False)
        )
        assert not is_mirrored(kept)
        swapped += is_mirrored(free)
        middle = (np.array(size) - 1) / 2
        np.testing.assert_allclose(free.to_world(middle), kept.to_world(middle))
    assert 10 < swapped < 30


@pytest.fixture(scope="module")
def teach(tmp_path_factory):
    """Return a function that makes a task's ingredients, config and training volumes."""

    def made(task, mirroring):
        folder = tmp_path_factory.mktemp("sides")
        image, label = write_case(folder, "case", 0)
        own = make_expert(folder / "expert", task, 0)
        own.entry["mirroring"] = mirroring
        ingredients = Ingredients(
            {task.name: (task, SPACING)}, [Source("case", task.name, image, label)], [own]
        )
        entry = task_entry(task, SPACING, [(48.0, 80.0, 40.0)], preset("tiny"))
        config = student_config([entry], [own], preset("tiny"), "attention")
        return config, prepare_cases(ingredients, config, folder / "cache")

    return made


PAIR = Task("pair", (Label(1, "kidney_left"), Label(2, "kidney_right")))
WHOLE = Task("pair", (Label(1, "a"), Label(2, "b")))


@pytest.mark.parametrize(
    ("task", "mirroring", "reason"),
    [
        (PAIR, [0, 1, 2], "labels are named by side"),
        (WHOLE, None, "expert was not trained on mirrored"),
        (WHOLE, [0, 1, 2], ""),
    ],
)
def test_sided_tasks_are_taught_unmirrored_and_the_log_says_so(
    teach, task, mirroring, reason, monkeypatch, caplog, tmp_path
):
    config, cases = teach(task, mirroring)
    windows = []

    def spied(*args, **kwargs):
        windows.append(random_window(*args, **kwargs))
        return windows[-1]

    monkeypatch.setattr(student_work_module, "random_window", spied)
    work = student_work(config, cases, Teaching(steps=10))
    for step in range(12):
        work.draw(step, np.random.default_rng(step))
    assert any(map(is_mirrored, windows)) == (not reason)
    monkeypatch.setattr(amalgamate_module, "train", lambda student, *_, **__: student)
    with caplog.at_level(logging.INFO):
        train_student(Student(config), cases, recipe_for(preset("tiny")), tmp_path)
    said = [line for line in caplog.messages if "not swapped left to right" in line]
    assert len(said) == bool(reason)
    assert all("pair" in line and reason in line for line in said)
