from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.core.acting import TASK, new_volume

from napari_ka2er.core.correction import correction_of, export_package
from napari_ka2er.core.errors import UserError
from napari_ka2er.core.session_exports import note_export, packages_in, read_exports
from napari_ka2er.core.sessions import (
    create_session,
    find_sessions,
    restore_session,
    session_folders,
    summarise_session,
)


@pytest.fixture
def exported(tmp_path):
    """A session's folder and a package made of it."""
    session = create_session(tmp_path / "sessions" / "one", new_volume(), TASK)
    session.set_student("v0001", "sparse")
    session.write((slice(0, 1),) * 3, np.ones((1, 1, 1), np.uint8), "brush")
    session.review_volume()
    package = export_package(tmp_path / "Dataset001", [correction_of(session)])
    note_export(session.folder, package, session.state.n_worked, 100.0)
    session.close()
    return session.folder, package


def test_a_session_remembers_its_packages(exported, tmp_path):
    folder, package = exported
    [export] = read_exports(folder)
    assert (export.package, export.n_worked, export.time_s) == (package, 2, 100.0)
    assert summarise_session(folder).is_exported
    other = shutil.copytree(package, tmp_path / "elsewhere")
    note_export(folder, other, 2, 200.0)
    assert [e.time_s for e in read_exports(folder)] == [100.0, 200.0]


def test_a_session_with_work_since_is_not_exported_any_more(exported):
    folder, _ = exported
    session = restore_session(folder, new_volume())
    session.set_student("v0002", "sparse")
    session.close()
    assert summarise_session(folder).is_exported, "the choice of a student is no work"
    session = restore_session(folder, new_volume())
    session.review_volume(False)
    session.close()
    assert not summarise_session(folder).is_exported


def test_packages_are_found_newest_first_once_each_while_they_are_there(exported, tmp_path):
    folder, package = exported
    create_session(tmp_path / "sessions" / "two", new_volume(), TASK).close()
    note_export(tmp_path / "sessions" / "two", package, 0, 100.0)
    second = shutil.copytree(package, tmp_path / "Dataset002")
    manifest = json.loads((second / "manifest.json").read_text("utf-8"))
    (second / "manifest.json").write_text(json.dumps({**manifest, "note": "another"}))
    note_export(folder, second, 2, 200.0)
    found = packages_in(tmp_path / "sessions")
    assert [export.package for export in found] == [second, package]
    shutil.rmtree(package)
    (second / "manifest.json").write_text("{}")  # another package lies there now
    assert packages_in(tmp_path / "sessions") == []
    assert packages_in(tmp_path / "nowhere") == []


def test_a_session_that_was_never_exported_or_a_torn_note_tells_of_none(exported, tmp_path):
    folder, _ = exported
    (folder / "exports.json").write_text('{"exports": [{"package": 3')
    assert read_exports(folder) == ()
    assert not summarise_session(folder).is_exported
    assert read_exports(tmp_path) == ()


BAD = [None, 5, {"package": "x"}, {"package": 3, "digest": "", "n_worked": 1, "time_s": 1.0}]


@pytest.mark.parametrize("bad", [*BAD, {"n_worked": float("inf")}])
def test_a_malformed_note_is_left_out_and_the_others_stay(exported, bad):
    folder, package = exported
    [good] = json.loads((folder / "exports.json").read_text("utf-8"))["exports"]
    entry = {**good, **bad} if isinstance(bad, dict) and "n_worked" in bad else bad
    (folder / "exports.json").write_text(json.dumps({"exports": [entry, good]}))
    assert [export.time_s for export in read_exports(folder)] == [100.0]
    note_export(folder, package, 3, 200.0)
    assert [export.time_s for export in read_exports(folder)] == [100.0, 200.0]


def test_notes_that_cannot_be_read_now_are_not_replaced(exported, monkeypatch):
    folder, package = exported
    before = (folder / "exports.json").read_bytes()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        assert read_exports(folder) == ()
        with pytest.raises(UserError, match=r"exports.json, got Permission denied; Dataset001 is"):
            note_export(folder, package, 3, 200.0)
    assert (folder / "exports.json").read_bytes() == before


def test_sessions_that_cannot_be_read_are_told_and_the_others_found(exported, tmp_path):
    folder, _ = exported
    for name, text in (("torn", "{"), ("strange", '{"format": "recipe", "version": 1}')):
        (tmp_path / "sessions" / name).mkdir()
        (tmp_path / "sessions" / name / "session.json").write_text(text)
    create_session(tmp_path / "sessions" / "gone", new_volume(), TASK).close()
    shutil.rmtree(tmp_path / "sessions" / "gone" / "actions.jsonl", ignore_errors=True)
    (tmp_path / "sessions" / "gone" / "actions.jsonl").unlink(missing_ok=True)
    (tmp_path / "sessions" / "gone" / "actions.jsonl").mkdir()
    told: dict[str, UserError] = {}
    found = find_sessions(
        tmp_path / "sessions", unreadable=lambda at, error: told.update({at.name: error})
    )
    assert [summary.folder for summary in found] == [folder]
    assert sorted(told) == ["gone", "strange", "torn"]
    assert all(isinstance(error, UserError) for error in told.values())
    told.clear()
    session_folders(
        tmp_path / "sessions", unreadable=lambda at, error: told.update({at.name: error})
    )
    assert sorted(told) == ["strange", "torn"], "logs stay unread"
