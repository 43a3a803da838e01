import errno
import os
import subprocess
import sys
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest

from napari_ka2er.core.errors import UserError
from napari_ka2er.model.shared import PREFIX, SharedMask, attached, shared_array

SHM = Path("/dev/shm")
on_linux = pytest.mark.skipif(not SHM.is_dir(), reason="shared memory has no folder here")


def named() -> set[str]:
    return {path.name for path in SHM.glob(f"{PREFIX}{os.getpid()}-*")}


def test_an_array_outlives_its_name():
    with shared_array((2, 3, 5), ">i2") as (array, place):
        assert not array.any()
        array[...] = np.arange(30).reshape(2, 3, 5)
        other = attached(place)
        # Both ends are in this process, and so its tracker is told twice what two are told once.
        resource_tracker.register(f"/{place.name}", "shared_memory")
        with pytest.raises(FileNotFoundError):
            attached(place)
    part = other[1, 1:]
    del other
    array[1, 2, 4] = -7
    del array
    assert part.dtype == np.dtype(">i2")
    assert part[1, 4] == -7
    assert part[0].tolist() == [20, 21, 22, 23, 24]


def test_what_nobody_looked_for_loses_its_name_too():
    with shared_array((2, 3, 5), "<f4") as (_, place):
        assert not SHM.is_dir() or place.name in named()
    assert place.name not in named()
    with pytest.raises(FileNotFoundError):
        attached(place)


def test_another_process_writes_and_its_end_takes_nothing_away():
    code = (
        "import sys; from napari_ka2er.model.shared import Place, attached\n"
        "attached(Place(sys.argv[1], (3, 2), '<f4'))[2] = 1.5"
    )
    with shared_array((3, 2), "<f4") as (array, place):
        done = subprocess.run(
            [sys.executable, "-c", code, place.name], capture_output=True, text=True, check=True
        )
        assert place.name not in named()  # from here on nothing is left, whoever ends how
    assert array.tolist() == [[0, 0], [0, 0], [1.5, 1.5]]
    assert done.stderr == ""  # no tracker complains about what was not its own


@on_linux
def test_where_there_is_no_room_nothing_stays(monkeypatch):
    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = named()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(UserError, match=r"64 MiB.*No space left.*shm-size"),
        shared_array((64, 1024, 1024), np.uint8),
    ):
        pytest.fail("there is no room")
    assert named() == before


@on_linux
def test_the_room_is_taken_at_once():
    with shared_array((5, 1 << 20), np.uint8) as (_, place):
        assert (SHM / place.name).stat().st_blocks * 512 >= 5 << 20


def box(*ends):
    return tuple(slice(a, b) for a, b in ends)


def test_a_mask_goes_back_and_forth_in_boxes():
    array = np.zeros((6, 8, 10), bool)
    mask = SharedMask(array)
    first, second = np.zeros((2, 6, 8, 10), bool)
    first[1:3, 2:5, 4:9] = True
    second[4:6, 0:2, 0:3] = True

    mask.lay(first)
    np.testing.assert_array_equal(array, first)
    changed = box((3, 6), (5, 8), (8, 10))
    array[changed] = True  # the other process's answer
    assert mask.take(changed).all()

    mask.lay(second)
    np.testing.assert_array_equal(array, second)
    array[...] = True  # what the other process did before it was stopped; nothing is taken
    mask.lay(first)
    np.testing.assert_array_equal(array, first)

    mask.take(box((0, 0), (0, 0), (0, 0)))
    mask.lay(None)
    array[changed] = False
    copy = mask.take(changed)
    array[changed] = True
    assert not copy.any()
    mask.lay(second)
    np.testing.assert_array_equal(array, second)
