"""How far a package is told, and that it can be stopped before each of its files."""

from __future__ import annotations

import pytest
from tests.core.test_correction import correction

from napari_ka2er.core.correction import export_package
from napari_ka2er.core.errors import CancelledError


def shares_and_words(path, cases):
    told = []
    export_package(path, cases, progress=lambda share, what: told.append((share, what)))
    return told


def test_every_file_is_told_before_it_is_written_and_shares_rise(tmp_path):
    told = shares_and_words(tmp_path / "one", [correction()])
    assert [what for _, what in told] == ["digest", "image", "labels", "checksums", "done"]
    told = shares_and_words(tmp_path / "two", [correction(0), correction(1)])
    assert told[1][1] == "case 1 of 2, image"
    assert told[4][1] == "case 2 of 2, image"
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_an_export_that_is_stopped_leaves_nothing(tmp_path):
    steps = [what for _, what in shares_and_words(tmp_path / "p", [correction(0), correction(1)])]
    for stop in steps:

        def progress(share, what, stop=stop):
            if what == stop:
                raise CancelledError(what)

        out = tmp_path / "out"
        with pytest.raises(CancelledError):
            export_package(out / "q", [correction(0), correction(1)], progress=progress)
        assert list(out.iterdir()) == [], stop
