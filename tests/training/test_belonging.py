from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from ka2er_training.belonging import Drawn, fit_of
from ka2er_training.belonging_rule import Fit, refusal
from napari_ka2er.core.volume import Geometry

SHAPE, SPACING = (18, 40, 33), (3.0, 1.0, 1.5)
VALUES = (1, 2)
IGNORE = 3


def lattice(shape=SHAPE, spacing=SPACING, origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def organ(seed, geometry=None):
    """An ellipsoid of two labels, bent and stretched by the seed, near the volume's centre."""
    geometry = geometry or lattice()
    rng = np.random.default_rng(seed)
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)
    middle = geometry.to_world((np.array(geometry.shape) - 1) / 2) + rng.uniform(-2, 2, 3)
    z, y, x = np.moveaxis(geometry.to_world(index) - middle, -1, 0)
    radii = np.array([12.0, 12.0, 9.0]) * rng.uniform(0.65, 1.35, 3)
    bend, tilt = rng.uniform(-0.04, 0.04), rng.uniform(-0.5, 0.5)
    x = x + bend * y**2 + tilt * z
    inside = (z / radii[0]) ** 2 + (y / radii[1]) ** 2 + (x / radii[2]) ** 2 < 1
    return Drawn((inside * np.where(y < rng.uniform(-3, 3), 1, 2)).astype(np.uint8), geometry)


def dice(a, b):
    return 2 * np.count_nonzero((a == b) & (a > 0)) / (np.count_nonzero(a) + np.count_nonzero(b))


def eroded(drawn, rng):
    core = ndimage.binary_erosion(drawn.labels > 0, iterations=2)
    return np.where(core, drawn.labels, 0)


def salted(drawn, rng):
    """Four voxels of five are gone, and there are specks elsewhere."""
    kept = drawn.labels * (rng.random(drawn.labels.shape) < 0.2)
    return np.where(rng.random(kept.shape) < 0.002, rng.integers(1, 3, kept.shape), kept)


def exact(drawn, rng):
    return drawn.labels


def moved(labels, by):
    return ndimage.shift(labels, by, order=0, mode="constant", cval=0)


def fits(labels, student=exact, n=8, earlier=8, seed=0):
    """The fits of n organs' labels, of which `labels(number)` tells the array."""
    rng = np.random.default_rng(seed)
    own = {f"c{i}": Drawn(labels(i), lattice()) for i in range(n)}
    old = {f"old{i}": organ(100 + i, lattice((14, 50, 40), (4, 0.8, 1.2))) for i in range(earlier)}
    found = []
    for i, (name, drawn) in enumerate(own.items()):
        mask = Drawn(student(organ(i), rng), lattice())
        others = {key: one for key, one in {**own, **old}.items() if key != name}
        found.append(fit_of(name, mask, drawn, others, VALUES))
    return found


def verdicts(found):
    return [fit.verdict for fit in found]


@pytest.mark.parametrize(
    ("student", "most"),
    [(exact, 1.0), (eroded, 0.5), (salted, 0.35)],
    ids=["exact", "eroded", "salted"],
)
def test_own_labels_belong_also_if_the_student_is_poor(student, most):
    rng = np.random.default_rng(0)
    scores = [dice(student(organ(i), rng), organ(i).labels) for i in range(8)]
    assert np.mean(scores) <= most
    found = fits(lambda i: organ(i).labels, student)
    assert verdicts(found).count("belongs") >= 6
    assert "strange" not in verdicts(found)
    assert refusal(found) == ""


@pytest.mark.parametrize("student", [exact, eroded, salted])
def test_labels_of_other_cases_do_not(student):
    found = fits(lambda i: organ((i + 3) % 8).labels, student)
    assert verdicts(found).count("belongs") <= 1
    assert "are they in the right files" in refusal(found)


def test_a_swap_is_told_with_the_case_that_fits():
    swapped = {0: 1, 1: 0}
    found = fits(lambda i: organ(swapped.get(i, i)).labels)
    assert [fit.verdict for fit in found[:2]] == ["strange", "strange"]
    assert "those of c1 fit" in found[0].why()
    assert "c0" in found[1].why()
    assert verdicts(found[2:]).count("belongs") >= 5
    assert refusal(found) == ""


def test_displaced_labels_are_told_from_those_of_others():
    found = fits(lambda i: moved(organ(i).labels, (4, -9, 8)))
    assert set(verdicts(found)) == {"strange"}
    assert all(fit.is_displaced for fit in found)
    assert "are they displaced?" in refusal(found)


def test_labels_a_voxel_off_are_not_called_displaced():
    found = fits(lambda i: moved(organ(i).labels, (0, 1, 0)))
    assert verdicts(found).count("belongs") >= 6
    assert refusal(found) == ""


def test_emptied_labels_are_refused_and_a_single_empty_case_is_not():
    found = fits(lambda i: np.zeros(SHAPE, np.uint8))
    assert set(verdicts(found)) == {"strange"}
    assert "8 of 8 cases have no labels" in refusal(found)
    assert refusal(found[:1])
    found = fits(lambda i: organ(i).labels * (i != 2))
    assert found[2].verdict == "strange"
    assert "no labels where the student finds" in found[2].why()
    assert refusal(found) == ""


def test_where_neither_student_nor_labels_have_anything_nothing_is_decided():
    found = fits(lambda i: np.zeros(SHAPE, np.uint8), lambda drawn, rng: 0 * drawn.labels)
    assert set(verdicts(found)) == {"undecided"}
    found = fits(lambda i: organ(i).labels, lambda drawn, rng: 0 * drawn.labels)
    assert set(verdicts(found)) == {"undecided"}
    assert refusal(found) == refusal([]) == ""


def test_a_student_that_finds_rubbish_refuses_nothing():
    def rubbish(drawn, rng):
        return rng.integers(0, 3, drawn.labels.shape)

    for labels in (lambda i: organ(i).labels, lambda i: organ((i + 1) % 8).labels):
        assert refusal(fits(labels, rubbish)) == ""


def test_one_case_is_compared_with_earlier_ones():
    assert fits(lambda i: organ(i).labels, n=1)[0].verdict == "belongs"
    (wrong,) = fits(lambda i: moved(organ(i).labels, (4, -9, 8)), n=1)
    assert wrong.verdict == "strange"
    assert refusal([wrong])
    (alone,) = fits(lambda i: organ(i).labels, n=1, earlier=3)
    assert alone.verdict == "undecided"


def partly(labels, planes):
    """Only some planes of the first axis reviewed."""
    known = np.full(labels.shape, IGNORE, np.uint8)
    known[planes] = labels[planes]
    return Drawn(known, lattice(), IGNORE)


def test_only_reviewed_voxels_count_and_partly_reviewed_cases_are_no_comparison():
    old = {f"old{i}": organ(100 + i) for i in range(8)}
    mask = organ(0).labels.copy()
    planes = [7, 9, 10]
    elsewhere = np.ones(SHAPE[0], bool)
    elsewhere[planes] = False
    mask[elsewhere] = np.where(organ(1).labels[elsewhere] > 0, 2, 0)  # wrong, where nobody looked
    right = fit_of("a", Drawn(mask, lattice()), partly(organ(0).labels, planes), old, VALUES)
    assert right.own == 1.0
    assert right.moved is None
    assert right.verdict == "belongs"
    others = {**old, "part": partly(organ(2).labels, planes)}
    again = fit_of("a", Drawn(mask, lattice()), partly(organ(0).labels, planes), others, VALUES)
    assert again.others == right.others
    nothing = fit_of("a", Drawn(mask, lattice()), partly(0 * mask, [7]), old, VALUES)
    assert nothing.verdict == "undecided"
    most = partly(0 * mask, range(3, 15))  # a few slices were left, as after a long day
    assert fit_of("a", Drawn(mask, lattice()), most, old, VALUES).verdict == "strange"


def test_other_lattices_in_the_world_make_no_difference():
    """Labels of the same organ in other axes' order, spacing and place fit as well."""
    geometry = lattice()
    turn = np.eye(4)[[0, 2, 1, 3]]
    turn[:3, 3] = (500, -70, 3)
    turned = Drawn(organ(0).labels, Geometry(SHAPE, turn @ geometry.affine))
    finer = organ(0, lattice((27, 60, 50), (2.0, 0.7, 1.0)))
    mask = organ(0)
    found = fit_of("a", mask, mask, {"finer": finer, "other": organ(5)}, VALUES)
    assert found.others["finer"] > 0.9 > found.others["other"]
    assert fit_of("a", mask, mask, {"turned": turned}, VALUES).others["turned"] < 0.9
    same = Drawn(turned.labels, Geometry(SHAPE, turn @ geometry.affine))
    assert fit_of("a", turned, same, {"same": same}, VALUES).others["same"] == 1.0


def test_a_large_volume_is_looked_at_coarsely():
    geometry = lattice((70, 150, 160), (1.0, 0.5, 0.4))
    mask = organ(0, geometry)
    others = {f"o{i}": organ(i, geometry) for i in range(1, 9)}
    found = fit_of("a", mask, mask, others, VALUES)
    assert found.own == 1.0
    assert found.verdict == "belongs"


def test_strangers_labels_are_called_the_own_ones_at_most_as_often_as_promised():
    """Labels drawn from the same population as those that they are compared with."""
    belongs, refused = [], []
    for seed in range(12):
        start = 1000 + 20 * seed
        found = fits(lambda i, start=start: organ(start + i).labels, eroded, n=6, seed=seed)
        belongs += [fit.verdict == "belongs" for fit in found]
        refused.append(bool(refusal(found)))
    assert np.mean(belongs) <= 1 / 8
    assert np.mean(refused) >= 0.8


def flat(own, others, **more):
    return Fit("a", own, {f"o{i}": value for i, value in enumerate(others)}, **more)


def test_fewer_than_half_decided_cases_decide_nothing():
    strange = flat(0.1, [0.5] * 8)
    blind = flat(0.1, [0.2] * 8)
    assert (strange.verdict, blind.verdict) == ("strange", "undecided")
    assert refusal([strange] * 3 + [blind] * 3)
    assert refusal([strange] * 3 + [blind] * 4) == ""


def test_half_of_the_cases_may_be_strange():
    strange, good = flat(0.5, [0.6] * 8), flat(0.9, [0.6] * 8)
    assert refusal([strange] * 4 + [good] * 4) == ""
    assert refusal([strange] * 5 + [good] * 3)


def test_one_hard_case_is_refused_only_if_that_is_clear():
    hard = flat(0.55, [0.5] * 3 + [0.6] * 5)
    assert hard.verdict == "strange"
    assert refusal([hard]) == ""
    assert refusal([flat(0.45, [0.5] * 8)])
    assert refusal([flat(0.55, [0.5] * 7 + [0.8])])


def test_labels_that_agree_very_well_are_never_strange():
    assert flat(0.91, [0.99] * 8, moved=1.0).verdict == "unclear"


def rate(n, draw, trials=300):
    """How often a package of n cases is refused whose labels beat each other one by chance."""
    rng = np.random.default_rng(n)
    refused = 0
    for _ in range(trials):
        worse = [rng.binomial(15, draw(rng)) for _ in range(n)]
        refused += bool(refusal([flat(0.55, [0.5] * k + [0.6] * (15 - k)) for k in worse]))
    return refused / trials


@pytest.mark.parametrize(
    ("n", "strangers", "hard"),
    [(1, 0.25, 0.04), (2, 0.25, 0.02), (4, 0.61, 0.04), (8, 0.8, 0.04)],
)
def test_the_chances_are_those_that_are_told(n, strangers, hard):
    assert rate(n, lambda rng: rng.uniform()) == pytest.approx(strangers, abs=0.08)
    assert rate(n, lambda rng: rng.beta(2.2, 0.7)) == pytest.approx(hard, abs=0.03)
    assert rate(n, lambda rng: rng.beta(4, 0.45)) <= 0.01


def test_labels_of_an_organ_that_is_alike_in_everybody_are_not_strange_by_chance():
    assert flat(0.70, [0.69, 0.71] * 4).verdict == "unclear"
    assert flat(0.70, [0.69, 0.73, 0.73, 0.73] * 2).verdict == "strange"


def test_a_fit_survives_json_and_no_others_make_no_numbers():
    fit = flat(0.5, [0.6, 0.4], moved=0.55)
    assert Fit.from_json(json.loads(json.dumps(fit.to_json()))) == fit
    alone = flat(0.5, [])
    assert np.isnan(alone.rank)
    assert (alone.best_other, alone.verdict) == (("", 0.0), "undecided")
