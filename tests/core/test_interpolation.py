"""Shapes that move, branch or end between two slices that somebody drew."""

import numpy as np
import pytest
from scipy import ndimage

from napari_ka2er.core.interpolation import fill_between_slices

ROWS, COLUMNS = np.mgrid[:80, :90]
N = 9  # slices, the first and the last of them drawn


def disc(y, x, radius):
    return (ROWS - y) ** 2 + (COLUMNS - x) ** 2 <= radius**2


def line(y, first, last):
    mask = np.zeros(ROWS.shape, np.bool_)
    mask[y, first : last + 1] = True
    return mask


def filled(first, last, spacing=(5.0, 1.0, 1.0)):
    """The slices from the first to the last one, as masks."""
    labels = np.zeros((N, *ROWS.shape), np.uint8)
    labels[0], labels[-1] = first, last
    region, values = fill_between_slices(labels, 1, 0, spacing)
    labels[region] = values
    return labels == 1


def sizes(stack):
    return [int(np.count_nonzero(part)) for part in stack]


@pytest.mark.parametrize("step", range(25))
def test_a_disc_that_moves_stays_as_large_as_it_is(step):
    stack = filled(disc(40, 20, 8), disc(40, 20 + step, 8))
    assert sizes(stack) == [197] * N
    middles = [ndimage.center_of_mass(part)[1] for part in stack]
    np.testing.assert_allclose(middles, np.linspace(20, 20 + step, N), atol=0.51)


def test_one_of_two_structures_moves_and_the_other_stays():
    stack = filled(disc(20, 20, 8) | disc(60, 20, 6), disc(20, 22, 8) | disc(60, 36, 6))
    assert sizes(stack[:, :40]) == [197] * N
    assert sizes(stack[:, 40:]) == [113] * N


def test_two_structures_that_overlap_nothing_run_into_one():
    stack = filled(disc(20, 20, 6) | disc(60, 20, 6), disc(40, 20, 6))
    assert sizes(stack[:4]) == [226] * 4  # two discs of 113 pixels until they meet
    assert min(sizes(stack)) == 113
    back = filled(disc(40, 20, 6), disc(20, 20, 6) | disc(60, 20, 6))
    assert min(sizes(back)) == 113


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (line(40, 21, 49), line(41, 21, 49)),
        (disc(40, 40, 0), disc(41, 41, 0)),
        (disc(40, 40, 0), disc(45, 71, 0)),
    ],
)
def test_the_thinnest_shapes_move_as_they_are(first, last):
    assert sizes(filled(first, last)) == [np.count_nonzero(first)] * N


def test_a_ring_and_a_disc_in_it_leave_no_gap():
    """Nowhere does a pixel lie in both, so that their average is empty half way."""
    stack = filled(disc(40, 40, 20) & ~disc(40, 40, 12), disc(40, 40, 8))
    assert min(sizes(stack)) > 0


def test_what_grows_on_one_side_does_not_move_there():
    """A band of 2 rows that gets a branch at one end: the middle moves, the band must not."""
    band = (ROWS >= 40) & (ROWS < 42) & (COLUMNS >= 20) & (COLUMNS < 60)
    branch = (ROWS >= 10) & (ROWS < 42) & (COLUMNS >= 50) & (COLUMNS < 60)
    stack = filled(band, band | branch)
    assert (stack[:, band]).all()


def test_a_piece_that_the_other_slice_lacks_becomes_smaller_towards_it():
    both, one = disc(20, 20, 8) | disc(60, 60, 6), disc(20, 20, 8)
    for stack in (filled(both, one), filled(one, both)[::-1]):
        assert sizes(stack[:, :40]) == [197] * N
        piece = sizes(stack[:, 40:])
        assert piece[0] == 113
        assert piece == sorted(piece, reverse=True)
        assert piece[-2] >= 1
        assert piece[-1] == 0


def test_the_nearest_piece_is_the_one_that_is_nearest_in_mm():
    """Pixels of 4 x 1 mm: 20 columns are nearer (20 mm) than 8 rows (32 mm)."""
    first, last = disc(40, 20, 2), disc(48, 20, 2) | disc(40, 40, 2)
    other = disc(48, 0, 2)
    stack = filled(first | other, last, (5.0, 4.0, 1.0))
    middle = stack[N // 2]
    assert middle[40, 30]  # from (40, 20) to (40, 40)
    assert middle[48, 10]  # from (48, 0) to (48, 20)
    assert not middle[44].any()  # and nothing from row to row


@pytest.mark.parametrize("seed", range(20))
def test_no_slice_between_two_drawn_ones_is_empty(seed):
    rng = np.random.default_rng(seed)
    first, last = (
        np.any([disc(*rng.integers(0, 80, 2), rng.integers(0, 9)) for _ in range(n)], axis=0)
        for n in rng.integers(1, 5, 2)
    )
    assert min(sizes(filled(first, last, (5.0, *rng.uniform(0.3, 3, 2))))) > 0


def test_an_empty_list_of_slices_is_not_all_of_them():
    labels = np.zeros((N, 8, 8), np.uint8)
    labels[::4, 2:6, 2:6] = 1
    with pytest.raises(ValueError, match="two slices"):
        fill_between_slices(labels, 1, 0, (1.0, 1.0, 1.0), keys=())
