import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from napari_ka2er.core.errors import UserError
from napari_ka2er.core.task import Label, Task
from napari_ka2er.core.volume import Volume
from napari_ka2er.model.config import TaskEntry
from napari_ka2er.model.fingerprints import fingerprint, task_fingerprint
from napari_ka2er.model.ranking import (
    Evidence,
    TaskFit,
    guess,
    judge,
    prior_fit,
    taken_or_refuse,
)

# A folder with the real sets, each in nnU-Net's layout; they may not be shipped.
REAL_SETS = Path(os.environ.get("KA2ER_REAL_SETS", "none"))


def volume(data, spacing=2.0, order=(0, 1, 2)):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * spacing
    return Volume(np.asarray(data, np.float32), affine)


def mr(seed, scale=1.0, shape=(20, 24, 28)):
    """Tissue of two kinds around bright fluid, in arbitrary units."""
    generator = np.random.default_rng(seed)
    values = scale * (100 + 30 * generator.normal(size=shape) ** 2 + seed)
    return volume(np.sort(values))  # the same histogram, but no noise


def ct(seed, shape=(40, 60, 62), spacing=5.0):
    """Air, lung, soft tissue and bone."""
    generator = np.random.default_rng(seed)
    kinds = generator.choice([-1000, -800, 40, 600], p=[0.3, 0.3, 0.35, 0.05], size=shape)
    return volume(np.sort(kinds + generator.normal(0, 20, shape)), spacing)


def entry_of(name, volumes, modality="MR"):
    known = task_fingerprint([fingerprint(v) for v in volumes])
    return TaskEntry(
        Task(name, (Label(1, "x"),), modality), (2.0,) * 3, (32, 32, 64), intensity=known
    )


@pytest.fixture
def brain():
    return entry_of("brain", [mr(seed, scale) for seed, scale in enumerate((1, 30, 0.01))])


@pytest.fixture
def lungs():
    return entry_of("lungs", [ct(seed) for seed in range(3)], "CT")


def test_a_volume_like_the_training_volumes_fits_at_any_scale(brain):
    for scale in (1, 0.001, 500):
        score, reason = prior_fit(brain, fingerprint(mr(9, scale)))
        assert score > 0.9
        assert "like those" in reason
        assert "fits" in reason


def test_ct_and_mr_exclude_each_other_and_say_so(brain, lungs):
    score, reason = prior_fit(lungs, fingerprint(mr(9, shape=(100, 150, 155))))
    assert score == 0
    assert "but it was trained on Hounsfield units" in reason
    score, reason = prior_fit(brain, fingerprint(ct(9)))
    assert score == 0
    assert "Hounsfield units (" in reason


def test_ct_fits_ct(lungs):
    assert prior_fit(lungs, fingerprint(ct(9)))[0] > 0.9


def test_ct_of_other_tissue_fits_less(lungs):
    data = np.array(ct(9).data)
    abdomen = volume(np.where(data < -500, data / 20 - 40, data), 5.0)
    score, reason = prior_fit(lungs, fingerprint(abdomen))
    assert score < 0.5
    assert "unlike" in reason


@pytest.mark.parametrize(("shape", "word"), [((120, 140, 150), "larger"), ((8, 9, 10), "smaller")])
def test_a_foreign_field_of_view_does_not_fit(brain, shape, word):
    score, reason = prior_fit(brain, fingerprint(mr(9, shape=shape)))
    assert score == 0
    assert word in reason


def test_the_extent_is_that_of_the_world_not_of_the_file(brain):
    turned = mr(9, shape=(28, 20, 24))
    turned = volume(turned.data, order=(2, 0, 1))
    assert fingerprint(turned)["extent_mm"] == [40.0, 48.0, 56.0]
    assert prior_fit(brain, fingerprint(turned))[0] > 0.9


def test_another_histogram_does_not_fit(brain):
    inverted = volume(500 - np.array(mr(9).data))
    assert prior_fit(brain, fingerprint(inverted))[0] < 0.5


def test_a_constant_volume_fits_nothing(brain):
    assert prior_fit(brain, fingerprint(volume(np.full((20, 24, 28), 7))))[0] == 0


def test_a_task_without_fingerprint_fits_anything(brain):
    bare = TaskEntry(brain.task, brain.spacing_mm, brain.window)
    assert prior_fit(bare, fingerprint(ct(0)))[0] == 1


def test_what_was_found_counts():
    prior = (1.0, "looks right")
    good = judge("t", prior, Evidence(10.0, 0.95, 0.1))
    unsure = judge("t", prior, Evidence(10.0, 0.6, 0.1))
    nothing = judge("t", prior, Evidence(0.0, 0.0, 0.0))
    assert good.taken
    assert not unsure.taken
    assert unsure.score < good.score
    assert nothing == TaskFit("t", 0.0, "looks right; found nothing", taken=False)
    assert judge("t", prior, None).taken is False


def test_far_more_than_in_any_training_volume_does_not_fit():
    found = Evidence(volume_ml=8000, confidence=0.85, null_weight=0.0)
    fit = judge("brain", (1.0, "MR"), found, most_ml=1900)
    assert not fit.taken
    assert "more than in training (at most 1900 ml)" in fit.reason
    assert judge("brain", (1.0, "MR"), Evidence(2200, 0.85, 0.0), most_ml=1900).score == 1
    assert judge("brain", (1.0, "MR"), found).taken  # students of before know no limit


def test_an_image_that_dicom_calls_otherwise_does_not_fit(brain):
    pet = dataclasses.replace(mr(9), channel_names=("PT",))
    score, reason = prior_fit(brain, fingerprint(pet))
    assert (score, reason) == (0.0, "a PT image, but it was trained on MR")
    same = dataclasses.replace(mr(9), channel_names=("MR",))
    assert prior_fit(brain, fingerprint(same))[0] > 0.9


def test_when_nothing_fits_one_line_says_why():
    fits = [TaskFit("a", 0.1, "too large", taken=False), TaskFit("b", 0, "CT", taken=False)]
    with pytest.raises(UserError, match=r"a: too large \| b: CT.*--task") as caught:
        taken_or_refuse(fits, "head.nii")
    assert "\n" not in str(caught.value)
    good = TaskFit("c", 0.9, "like", taken=True)
    assert taken_or_refuse([*fits, good], "head.nii") == [good]


@pytest.mark.skipif(
    not REAL_SETS.is_dir(), reason="needs real sets, in the folder that KA2ER_REAL_SETS names"
)
def test_real_volumes_are_told_apart():
    from napari_ka2er.core.io import read_volume

    def some(name, step):
        paths = sorted((REAL_SETS / name / "imagesTr").iterdir())[::step]
        return [fingerprint(read_volume(path)) for path in paths]

    hippocampi, lungs = some("hippocampus", 6), some("ct_lungs", 1)
    entries = {}
    for name, prints in (("hippocampus", hippocampi[::2]), ("lungs", lungs[1:])):
        task = Task(name, (Label(1, "x"),))
        known = task_fingerprint(prints)
        entries[name] = TaskEntry(task, (1.0,) * 3, (32, 32, 64), intensity=known)
    unseen = [prior_fit(entries["hippocampus"], v)[0] for v in hippocampi[1::2]]
    assert np.mean(np.array(unseen) > 0.5) > 0.9
    assert prior_fit(entries["lungs"], lungs[0])[0] > 0.5
    for foreign in (*some("vertebrae", 25), *some("flair_lesions", 9)):
        assert all(prior_fit(entry, foreign)[0] == 0 for entry in entries.values())


def test_a_guess_orders_tasks_by_fingerprints_and_leaves_out_what_nobody_noted(brain, lungs):
    known = {"lungs": lungs.intensity, "brain": brain.intensity, "new": {}}
    best, other = guess(known, fingerprint(mr(7)))
    assert (best.task, best.taken) == ("brain", True)
    assert (other.task, other.taken, other.score) == ("lungs", False, 0.0)
    assert "Hounsfield" in other.reason
    assert guess({"new": {}}, fingerprint(mr(7))) == []
