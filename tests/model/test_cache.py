import os
import time
from dataclasses import replace

import numpy as np
import pytest

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.cache import Cache
from napari_ka2er.model.tile_store import STRIDES, Identity
from napari_ka2er.model.tiles import Lattice

LATTICE = Lattice((32, 64, 96), (32, 32, 64))
IDENTITY = Identity(
    "volume",
    "student",
    "full",
    (1.0, 1.0, 1.0),
    LATTICE.window,
    LATTICE.shape,
    {"gold": 3, "dense": 2, "logits": 2, "weights": 2},
    "head",
)


def encoded(tile, seed):
    """Random values of a whole window."""
    generator = np.random.default_rng(seed)
    size = [s.stop - s.start for s in tile.window]
    return {
        name: generator.normal(size=(IDENTITY.channels[name], *(n // s for n in size))).astype(
            np.float16
        )
        for name, s in STRIDES.items()
    }


def fill(store, numbers=None):
    for tile in LATTICE.tiles:
        if numbers is None or tile.number in numbers:
            store.write(tile, encoded(tile, tile.number))


def test_only_the_core_of_a_window_is_kept(tmp_path):
    store = Cache(tmp_path).open(IDENTITY, len(LATTICE.tiles))
    fill(store)
    for tile in LATTICE.tiles:
        values = encoded(tile, tile.number)
        for name, stride in STRIDES.items():
            core = tuple(slice(s.start // stride, s.stop // stride) for s in tile.core)
            inner = tuple(slice(s.start // stride, s.stop // stride) for s in tile.core_in_window)
            kept = store.arrays[name][(slice(None), *core)]
            np.testing.assert_array_equal(kept, values[name][(slice(None), *inner)])
    assert store.filled.all()


def test_the_order_of_filling_does_not_matter(tmp_path):
    stores = [Cache(tmp_path / n).open(IDENTITY, len(LATTICE.tiles)) for n in "ab"]
    fill(stores[0])
    for tile in reversed(LATTICE.tiles):
        stores[1].write(tile, encoded(tile, tile.number))
    for name in STRIDES:
        np.testing.assert_array_equal(stores[0].arrays[name], stores[1].arrays[name])


def test_a_store_is_found_again_with_what_was_filled(tmp_path):
    fill(Cache(tmp_path).open(IDENTITY, len(LATTICE.tiles)), {0, 2})
    again = Cache(tmp_path).open(replace(IDENTITY, name="renamed"), len(LATTICE.tiles))
    assert list(np.flatnonzero(again.filled)) == [0, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"volume": "v"},
        {"student": "s"},
        {"mode": "sparse"},
        {"spacing_mm": (2.0, 1.0, 1.0)},
        {"window": (32, 64, 64)},
        {"shape": (64, 64, 96)},
        {"token_centres": {"head": [[0.0, 0.5, 1.0]]}},
        {"precision": "bfloat16"},
    ],
)
def test_whatever_a_result_depends_on_makes_another_store(tmp_path, change):
    assert replace(IDENTITY, **change).key != IDENTITY.key


def test_a_damaged_store_is_made_anew(tmp_path):
    cache = Cache(tmp_path)
    fill(cache.open(IDENTITY, len(LATTICE.tiles)))
    (tmp_path / "volumes" / IDENTITY.key / "filled.npy").write_bytes(b"")
    assert cache.entries() == []
    assert not cache.open(IDENTITY, len(LATTICE.tiles)).filled.any()


@pytest.mark.parametrize("damage", ["cut", "missing"])
@pytest.mark.parametrize("name", [*STRIDES, "filled"])
def test_a_store_with_a_damaged_array_is_made_anew(tmp_path, name, damage):
    """NumPy fills a short file up with zeros: logits of 0, which are inside."""
    cache = Cache(tmp_path)
    fill(cache.open(IDENTITY, len(LATTICE.tiles)))
    path = tmp_path / "volumes" / IDENTITY.key / f"{name}.npy"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 4])
    store = cache.open(IDENTITY, len(LATTICE.tiles))
    assert not store.filled.any()
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == [IDENTITY.key]


def test_the_least_recently_used_store_goes_first(tmp_path):
    large = Cache(tmp_path)
    for age, name in enumerate("cab"):
        identity = replace(IDENTITY, volume=name, name=name)
        fill(large.open(identity, len(LATTICE.tiles)))
        entry = tmp_path / "volumes" / identity.key / "entry.json"
        os.utime(entry, (1000 + age, 1000 + age))
    size = large.entries()[0].size_bytes
    assert [entry.name for entry in large.entries()] == ["b", "a", "c"]
    small = Cache(tmp_path, limit_bytes=round(2.5 * size))
    small.open(replace(IDENTITY, volume="c", name="c"), len(LATTICE.tiles))
    assert [entry.name for entry in small.entries()] == ["c", "b"]


def test_the_store_in_use_stays_even_above_the_limit(tmp_path):
    store = Cache(tmp_path, limit_bytes=1).open(IDENTITY, len(LATTICE.tiles))
    fill(store)
    again = Cache(tmp_path, limit_bytes=1).open(IDENTITY, len(LATTICE.tiles))
    assert again.filled.all()


def test_looking_through_the_cache_takes_a_twentieth_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]
    looks = []

    def look(self, keep=()):
        looks.append(clock[0])
        clock[0] += 2.0

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Cache, "shrink", look)
    cache = Cache(tmp_path)
    while clock[0] < 100:
        cache.keep_small({"one"})
        clock[0] += 1.0
    assert looks == [0.0, 40.0, 80.0]


def test_experts_features_count_and_go_first_but_not_those_in_use(tmp_path):
    cache = Cache(tmp_path)
    fill(cache.open(IDENTITY, len(LATTICE.tiles)))
    size = cache.entries()[0].size_bytes
    os.utime(tmp_path / "volumes" / IDENTITY.key / "entry.json", (1000, 1000))
    for name in ("old", "new"):
        folder = cache.experts / name
        folder.mkdir(parents=True)
        (folder / "stage0.npy").write_bytes(bytes(4 * size))
        os.utime(folder / "stage0.npy", (2000 if name == "old" else 3000,) * 2)
    Cache(tmp_path, limit_bytes=10 * size).shrink()
    assert (cache.experts / "old").exists()
    Cache(tmp_path, limit_bytes=6 * size).shrink(keep={"old"})
    assert [path.name for path in cache.experts.iterdir()] == ["old"]
    Cache(tmp_path, limit_bytes=4 * size).shrink()
    assert not list(cache.experts.iterdir())
    assert len(cache.entries()) == 1


def test_entries_say_what_is_kept_and_can_be_removed(tmp_path):
    cache = Cache(tmp_path)
    fill(cache.open(IDENTITY, len(LATTICE.tiles)), {1})
    cache.open(replace(IDENTITY, volume="other"), len(LATTICE.tiles))
    entry = next(e for e in cache.entries() if e.key == IDENTITY.key)
    assert (entry.name, entry.mode, entry.n_filled, entry.n_tiles) == ("head", "full", 1, 6)
    assert cache.remove([entry.key[:10]]) == entry.size_bytes
    assert len(cache.entries()) == 1
    with pytest.raises(UserError, match="cache ls"):
        cache.remove(["nothing"])
    with pytest.raises(UserError, match="cache ls"):
        cache.remove([""])
    cache.remove()
    assert cache.entries() == []


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("napari_ka2er.model.cache.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="MiB for the cache"):
        Cache(tmp_path).open(IDENTITY, len(LATTICE.tiles))


def test_a_cache_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache-dir"):
        Cache(tmp_path / "file").open(IDENTITY, len(LATTICE.tiles))


@pytest.mark.parametrize(("text", "limit"), [("", 8 * 2**30), ("0.5", 2**29), ("3", 3 * 2**30)])
def test_the_limit_is_the_environment_s_unless_one_is_given(tmp_path, monkeypatch, text, limit):
    monkeypatch.setenv("KA2ER_CACHE_GIB", text)
    assert Cache(tmp_path).limit_bytes == limit
    assert Cache(tmp_path, limit_bytes=7).limit_bytes == 7


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("KA2ER_CACHE_GIB", text)
    with pytest.raises(UserError, match="KA2ER_CACHE_GIB"):
        Cache(tmp_path)
