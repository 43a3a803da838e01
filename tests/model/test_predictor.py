import gc
import weakref
from itertools import product

import numpy as np
import pytest
import torch
from tests.model.folders import blob, make_student_folder

from napari_ka2er.core.errors import CancelledError, UserError
from napari_ka2er.core.prompts import Box, Point, Scribble
from napari_ka2er.core.volume import Volume
from napari_ka2er.model import expert_look, filling
from napari_ka2er.model.checkpoint import load_student
from napari_ka2er.model.predictor import Predictor
from napari_ka2er.model.roi import enlarged, image_box, is_cut, roi_around
from napari_ka2er.model.sampling import sample
from napari_ka2er.model.tiles import region_geometry

VOXEL = (15, 25, 14)


@pytest.fixture(scope="module")
def loaded(student_folder):
    return load_student(student_folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def predictor(loaded, cache):
    made = Predictor(loaded, "distilled", cache)
    made.set_volume(blob())
    return made


def position(voxel, volume=None):
    z, y, x = (volume or blob()).geometry.to_world(voxel)
    return float(z), float(y), float(x)


def test_the_label_map_is_what_the_network_says_at_every_voxel(predictor, loaded):
    """One window covers the coarse grid, so the cached result is the network's own."""
    result = predictor.segment("two")
    features = predictor.features("two")
    assert len(features.lattice.tiles) == 1
    with torch.no_grad():
        logits = loaded.student.encode(torch.from_numpy(features.image)[None, None]).logits
    own = logits[0, 2:3].numpy()
    expected = sample(own, features.geometry, result.geometry)[0]
    assert result.labels.shape == blob().shape
    sure = np.abs(expected) > 0.02  # the cache holds float16
    np.testing.assert_array_equal(result.labels[sure], (expected >= 0)[sure])
    assert 0.05 < result.labels.mean() < 0.95
    np.testing.assert_allclose(result.logits()[0], expected, atol=0.02)


@pytest.mark.parametrize("mode", ["distilled", "sparse", "full"])
def test_the_label_with_the_highest_probability_wins(loaded, cache, mode):
    predictor = Predictor(loaded, mode, cache)
    predictor.set_volume(blob())
    result = predictor.segment("one")
    a, b = result.logits()
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    np.testing.assert_array_equal(result.labels == 0, np.maximum(a, b) < 0)
    np.testing.assert_array_equal(result.labels[b > a] == 1, False)
    assert result.labels.dtype == np.uint8
    weights = result.expert_map()
    assert weights.shape == (3, *blob().shape)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=2e-3)


def test_modes_differ_and_full_runs_every_expert(loaded, tmp_path):
    results = {}
    for mode in ("distilled", "full"):
        predictor = Predictor(loaded, mode, tmp_path)
        predictor.set_volume(blob())
        predictor.segment("two")
        results[mode] = np.array(predictor.features("two").store.arrays["logits"])
        n_looked = len(list((tmp_path / "experts").glob("[!.]*")))
        assert n_looked == (2 if mode == "full" else 0)
    assert np.abs(results["full"] - results["distilled"]).max() > 0.05


def test_a_result_does_not_depend_on_the_order_of_its_tiles(loaded, tmp_path):
    stores = []
    for number, around in enumerate((None, position((0, 0, 0)))):
        predictor = Predictor(loaded, "full", tmp_path / str(number))
        predictor.set_volume(blob())
        predictor.fill("one", around)
        stores.append(predictor.features("one").store.arrays)
    for name in stores[0]:
        np.testing.assert_array_equal(stores[0][name], stores[1][name])


def test_a_stopped_pass_goes_on_where_it_stopped(loaded, tmp_path):
    predictor = Predictor(loaded, "distilled", tmp_path)
    predictor.set_volume(blob())
    answers = iter([False, False, True])
    with pytest.raises(CancelledError):
        predictor.segment("one", cancelled=lambda: next(answers))
    assert predictor.features("one").store.filled.sum() == 2
    again = Predictor(loaded, "distilled", tmp_path)
    again.set_volume(blob())
    shares = []
    result = again.segment("one", progress=lambda share, _: shares.append(share))
    assert result.n_windows == len(again.features("one").lattice.tiles) - 2 > 0
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert again.segment("one").n_windows == 0


def test_stopping_and_progress_reach_the_experts_windows(loaded, tmp_path):
    predictor = Predictor(loaded, "full", tmp_path)
    predictor.set_volume(blob())
    told = []
    with pytest.raises(CancelledError):
        predictor.segment(
            "one",
            progress=lambda share, what: told.append((share, what)),
            cancelled=lambda: len(told) == 3,  # the tile's own, then two windows of an expert
        )
    assert [what.split()[:2] for _, what in told] == [["window", "1"], *[["expert", "one,"]] * 2]
    assert not predictor.features("one").store.filled.any()
    n_tiles = len(predictor.features("one").lattice.tiles)
    predictor.segment("one", progress=lambda share, what: told.append((share, what)))
    shares = [share for share, _ in told[3:]]
    assert shares == sorted(shares)
    assert len({what for share, what in told if "expert two" in what and share < 1 / n_tiles}) > 1


def test_experts_let_the_volume_go_when_all_tiles_are_filled(loaded, tmp_path, monkeypatch):
    """Sparse mode fills few of an expert's windows; their preprocessed volume would stay."""
    images = []
    prepare = expert_look._prepare

    def prepared(*args):
        images.append(prepare(*args))
        weakref.finalize(images[-1], gone.append, len(images))
        return images[-1]

    gone = []
    monkeypatch.setattr(expert_look, "_prepare", prepared)
    wanted = iter([[True, False]])  # by the first tile only
    monkeypatch.setattr(filling, "choose_experts", lambda *_: next(wanted, [False, False]))
    features = sparse_features(loaded, tmp_path)
    features.fill(max_windows=1)
    (view,) = features._experts._views.values()
    assert not view.filled.all()
    del view
    assert len(images) == 1  # the experts' next window needs it
    features.fill()
    images.clear()
    gc.collect()
    assert gone == [1]


def sparse_features(loaded, folder):
    predictor = Predictor(loaded, "sparse", folder)
    predictor.set_volume(blob((100, 20, 10)))  # of which a tile needs a part
    return predictor.features("one")


def test_the_limit_holds_while_tiles_are_filled(loaded, tmp_path):
    predictor = Predictor(loaded, "full", tmp_path)
    predictor.cache.limit_bytes = 2**20
    others = tmp_path / "experts" / "others"
    others.mkdir(parents=True)
    (others / "stage0.npy").write_bytes(bytes(2**20))
    predictor.set_volume(blob())
    predictor.fill("one", max_windows=1)
    kept = {path.name for path in (tmp_path / "experts").glob("[!.]*")}
    assert others.name not in kept
    assert len(kept) == 2  # these experts look at the next tiles too
    predictor.fill("one")
    assert not list((tmp_path / "experts").glob("[!.]*"))
    assert predictor.features("one").store.folder.is_dir()
    assert predictor.segment("one").n_windows == 0


def test_experts_features_stay_for_other_modes_while_there_is_room(loaded, tmp_path):
    for mode in ("full", "sparse"):
        predictor = Predictor(loaded, mode, tmp_path)
        predictor.set_volume(blob())
        predictor.segment("two")
        written = [p.stat().st_mtime_ns for p in sorted((tmp_path / "experts").glob("*/stage*"))]
        if mode == "full":
            before = written
    assert written == before


def test_another_place_where_tokens_look_or_another_precision_is_another_result(
    loaded, tmp_path, monkeypatch
):
    def key(mode):
        predictor = Predictor(loaded, mode, tmp_path)
        predictor.set_volume(blob())
        return predictor.features("one").store.identity.key

    modes = ("full", "sparse", "distilled")
    before = {mode: key(mode) for mode in modes}
    assert {mode: key(mode) for mode in modes} == before
    with monkeypatch.context() as changed:
        entry = loaded.experts["two"].entry
        moved = [[c + 0.5 for c in centre] for centre in entry["token_centres"]]
        changed.setitem(entry, "token_centres", moved)
        assert [key(mode) == before[mode] for mode in modes] == [False, False, True]
    assert {mode: key(mode) for mode in modes} == before
    monkeypatch.setattr(filling, "precision", lambda _: torch.bfloat16)
    assert not any(key(mode) == before[mode] for mode in modes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_finite_numbers_are_refused(predictor, bad):
    data = np.array(blob().data)
    data[3, 4, 5] = bad
    with pytest.raises(UserError, match=r"finite voxels.* of 42000 in scan"):
        predictor.set_volume(Volume(data, np.eye(4), name="scan"))
    assert predictor.volume.name == "blob"


def test_a_student_without_experts_is_not_blamed_for_trusting_none(tmp_path):
    folder = make_student_folder(tmp_path / "student", amalgamation="none")
    predictor = Predictor(load_student(folder), "full", tmp_path / "cache")
    predictor.set_volume(blob())
    found = predictor.segment("two").evidence()
    assert found.volume_ml > 0
    assert found.null_weight == 0


def test_tiles_are_filled_nearest_first(predictor):
    features = predictor.features("one")
    corner = np.array(features.geometry.shape) - 1
    first = features.lattice.touching(features.everything, corner)[0]
    assert all(c.stop == n for c, n in zip(first.core, features.geometry.shape, strict=True))


def test_tasks_with_the_same_grid_share_it(predictor):
    assert predictor.features("one") is predictor.features("one")
    assert predictor.features("one") is not predictor.features("two")
    assert predictor.features("one").outputs == [0, 1]
    assert predictor.features("two").outputs == [2]


def test_uncertainty_needs_no_second_opinion_but_takes_one(loaded, cache):
    predictor = Predictor(loaded, "full", cache)
    predictor.set_volume(blob())
    result = predictor.segment("two")
    alone = result.uncertainty()
    assert alone.min() >= 0
    assert alone.max() <= 1 + 1e-5
    other = predictor.segment("two", mode="distilled")
    both = result.uncertainty(other)
    assert not np.allclose(alone, both)
    assert result.uncertainty(result).max() == pytest.approx(alone.max() / 2, abs=1e-3)


def test_a_positive_click_ends_up_in_the_mask_and_a_negative_one_out_of_it(predictor):
    clicks = [Point(position(VOXEL))]
    first = predictor.prompt("one", 2, clicks)
    mask = np.zeros(blob().shape, bool)
    mask[first.box] = first.mask
    assert mask[VOXEL]
    assert 0 <= first.predicted_dice <= 1
    clicks.append(Point(position(VOXEL), positive=False))
    second = predictor.prompt("one", 2, clicks, mask)
    mask[second.box] = second.mask
    assert not mask[VOXEL]


def test_the_box_holds_every_change_and_no_more(predictor):
    previous = np.zeros(blob().shape, bool)
    previous[10:20, 20:30, 10:18] = True
    result = predictor.prompt("one", 1, [Point(position((2, 3, 4)))], previous, is_free=True)
    new = previous.copy()
    new[result.box] = result.mask
    changed = np.argwhere(new != previous)
    assert [s.start for s in result.box] == changed.min(axis=0).tolist()
    assert [s.stop - 1 for s in result.box] == changed.max(axis=0).tolist()
    assert result.mask.shape == tuple(s.stop - s.start for s in result.box)


def test_a_click_changes_only_what_it_touches(predictor):
    previous = np.zeros(blob().shape, bool)
    previous[2:6, 2:6, 2:6] = True  # far from the click
    result = predictor.prompt("one", 2, [Point(position(VOXEL))], previous)
    new = previous.copy()
    new[result.box] = result.mask
    assert new[2:6, 2:6, 2:6].all()
    assert new[VOXEL]


def test_any_structure_can_be_meant(predictor, loaded):
    assert predictor.output("two", None) == loaded.config.n_outputs == 3
    assert predictor.output("two", 1) == 2
    result = predictor.prompt("two", None, [Point(position(VOXEL))])
    assert result.mask.any()


@pytest.mark.parametrize(
    "prompt",
    [
        Box(position((5, 5, 5)), position((20, 30, 20))),
        Scribble((position((5, 5, 5)), position((5, 30, 20)))),
    ],
)
def test_other_prompts_are_answered_too(predictor, prompt):
    assert predictor.prompt("one", 1, [prompt]).seconds > 0


@pytest.mark.parametrize("far", list(product((False, True), repeat=3)))
def test_a_click_in_any_corner_changes_the_mask_there_and_nowhere_beyond(predictor, far):
    corner = tuple(n - 1 if is_far else 0 for n, is_far in zip(blob().shape, far, strict=True))
    previous = np.zeros(blob().shape, bool)
    previous[tuple(slice(-3, None) if is_far else slice(3) for is_far in far)] = True
    point = Point(position(corner), positive=False)
    result = predictor.prompt("one", 1, [point], previous)
    assert all(0 <= s.start < s.stop <= n for s, n in zip(result.box, blob().shape, strict=True))
    after = previous.copy()
    after[result.box] = result.mask
    assert not after[corner]
    assert not (after & ~previous).any()  # a negative click adds nothing


def test_prompts_encode_only_the_tiles_they_need(loaded, tmp_path):
    long = np.tile(blob().data, (1, 1, 8))
    volume = Volume(long, blob().affine)
    predictor = Predictor(loaded, "distilled", tmp_path)
    predictor.set_volume(volume)
    result = predictor.prompt("one", 1, [Point(position((15, 25, 3), volume))])
    n_tiles = len(predictor.features("one").lattice.tiles)
    assert 0 < result.n_windows < n_tiles
    assert predictor.features("one").store.filled.sum() == result.n_windows
    again = predictor.prompt("one", 1, [Point(position((15, 25, 3), volume))])
    assert again.n_windows == 0
    assert again.box == result.box


@pytest.mark.parametrize(
    ("task", "label", "prompts", "message"),
    [
        ("three", 1, [Point((0, 0, 0))], "one, two"),
        ("one", 9, [Point(position(VOXEL))], "1 a, 2 b"),
        ("one", 1, [], "at least one prompt"),
        ("one", 1, [Point((1e4, 0, 0))], "outside"),
        ("one", 1, [Point(position(VOXEL)), Point(position((-2, 0, 0)))], "outside"),
        ("one", 1, [Scribble(((1e4, 0, 0), (2e4, 0, 0)))], "a scribble at"),
    ],
)
def test_questions_without_an_answer_are_refused(predictor, task, label, prompts, message):
    with pytest.raises(UserError, match=message):
        predictor.prompt(task, label, prompts)


def test_wrong_input_is_refused(loaded, cache, predictor):
    with pytest.raises(UserError, match="sparse, full, distilled"):
        Predictor(loaded, "fast", cache)
    with pytest.raises(UserError, match="mask of shape"):
        predictor.prompt("one", 1, [Point(position(VOXEL))], np.zeros((2, 2, 2), bool))
    with pytest.raises(UserError, match="set one first"):
        Predictor(loaded, "full", cache).segment("one")
    two = Volume(np.zeros((2, 4, 4, 4), np.float32), np.eye(4), ("a", "b"))
    with pytest.raises(UserError, match="one channel"):
        predictor.set_volume(two)


def test_regions_lie_on_the_token_lattice_inside_the_grid():
    shape = (200, 96, 64)
    for point in ((0, 0, 0), (199, 95, 63), (77, 51, 30)):
        at = np.array(point, float)
        roi = roi_around(at, at, shape)
        assert [s.stop - s.start for s in roi] == [96, 96, 64]
        assert all(s.start % 8 == 0 and s.start <= p < s.stop for s, p in zip(roi, at, strict=True))
        larger = enlarged(roi, shape)
        assert [s.stop - s.start for s in larger] == [144, 96, 64]
        assert [s.stop - s.start for s in enlarged(larger, shape)] == [160, 96, 64]
    long = roi_around(np.array([0.0, 40, 30]), np.array([120.0, 40, 30]), shape)
    assert long[0].stop - long[0].start == 136


def test_a_change_at_the_end_of_the_grid_is_not_cut():
    changed = np.zeros((8, 8, 8), bool)
    changed[0, 4, 4] = True
    assert not is_cut(changed, (slice(0, 8), slice(8, 16), slice(8, 16)), (64, 64, 64))
    assert is_cut(changed, (slice(8, 16), slice(8, 16), slice(8, 16)), (64, 64, 64))


def test_the_image_box_of_a_region_is_where_its_voxels_lie():
    volume = blob()
    whole = image_box(volume.geometry, volume.geometry)
    assert whole == tuple(slice(0, n) for n in volume.shape)
    part = region_geometry(volume.geometry, (slice(2, 5), slice(0, 7), slice(20, 28)))
    assert image_box(part, volume.geometry) == (slice(2, 5), slice(0, 7), slice(20, 28))
