import json
import shutil

import pytest
from filelock import FileLock

from ka2er_training.bench.cells import Cell, Store, in_order, missing, run_cells
from ka2er_training.bench.running import listing, named, run_missing
from napari_ka2er.core.errors import CancelledError, UserError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cells")


def family():
    """expert -> student -> two evaluations."""
    expert = Cell("expert", "expert", {"epochs": 3})
    student = Cell("student", "student", {"seed": 0}, (expert,))
    tests = [Cell("evaluation", f"on {t}", {"task": t}, (student,)) for t in ("a", "b")]
    return expert, student, tests


def count(calls):
    def run(cell, store):
        calls.append(cell.name)
        (store.folder_of(cell) / cell.kind).mkdir(exist_ok=True)  # its weights
        return {"needs": [store.result(need) for need in cell.needs]}

    return dict.fromkeys(("expert", "student", "evaluation"), run)


def test_a_digest_depends_on_settings_and_needs_but_not_on_names():
    expert, student, _ = family()
    assert Cell("expert", "renamed", {"epochs": 3}).digest == expert.digest
    longer = Cell("expert", "expert", {"epochs": 4})
    assert longer.digest != expert.digest
    assert Cell("student", "student", {"seed": 0}, (longer,)).digest != student.digest


def test_needed_cells_come_first_and_each_once():
    expert, student, tests = family()
    assert [c.name for c in in_order(tests)] == ["expert", "student", "on a", "on b"]
    assert in_order([tests[1], expert])[0] is expert
    assert student.needed("expert") == [expert]


def test_finished_cells_do_not_run_again(store):
    _, _, tests = family()
    calls: list[str] = []
    run_cells(tests[:1], store, count(calls))
    outcome = run_cells(tests, store, count(calls))
    assert calls == ["expert", "student", "on a", "on b"]
    assert [cell.name for cell in outcome.done] == ["on b"]
    assert outcome.missing == ()


def test_a_result_keeps_its_settings_and_what_it_cost(store):
    expert, student, _ = family()
    run_cells([student], store, count([]))
    record = store.record(student)
    assert record["settings"] == {"seed": 0}
    assert record["needs"] == {"expert": expert.digest}
    assert record["seconds"] >= 0 <= record["cpu_s"]


def test_a_folder_without_a_result_is_not_finished(store):
    expert, _, _ = family()
    (store.folder_of(expert) / "checkpoint.pt").write_bytes(b"half way")
    assert missing([expert], store) == [expert]
    with pytest.raises(UserError, match="run it again"):
        store.record(expert)


def test_time_that_is_up_stops_before_the_next_cell(store):
    _, _, tests = family()
    calls: list[str] = []
    outcome = run_cells(tests, store, count(calls), max_minutes=0)
    assert calls == []
    assert [cell.name for cell in outcome.missing] == ["expert", "student", "on a", "on b"]


def test_a_failure_skips_what_needs_it_and_nothing_else(store):
    expert, student, tests = family()
    runners = count([])

    def fail(cell, store):
        raise UserError("a student", "trouble")

    other = Cell("expert", "other", {"epochs": 9})
    outcome = run_cells([*tests, other], store, {**runners, "student": fail})
    assert {cell.name for cell in outcome.done} == {"expert", "other"}
    assert "trouble" in outcome.failed[student.digest]
    assert {cell.name for cell in outcome.missing} == {"student", "on a", "on b"}
    assert store.is_finished(expert)


def test_cancelling_is_not_a_failure(store):
    _, _, tests = family()

    def stop(cell, store):
        raise CancelledError

    with pytest.raises(CancelledError):
        run_cells(tests, store, {**count([]), "student": stop})
    with pytest.raises(CancelledError):
        run_cells(tests, store, count([]), cancelled=lambda: True)


def test_a_damaged_result_is_refused_with_a_remedy(store):
    expert, _, _ = family()
    run_cells([expert], store, count([]))
    path = store.folder_of(expert) / "result.json"
    path.write_text(json.dumps({"kind": "expert"})[:-4])
    with pytest.raises(UserError, match="delete"):
        store.result(expert)


def test_two_processes_share_the_cells_of_one_store(store):
    expert, _, tests = family()
    other = Cell("expert", "another expert", {"epochs": 9})
    calls: list[str] = []
    with FileLock(store.folder_of(expert) / "at_work.lock"):  # as another process holds it
        outcome = run_cells([*tests, other], store, count(calls))
    assert calls == ["another expert"]
    assert {cell.name for cell in outcome.missing} == {"expert", "student", "on a", "on b"}
    assert outcome.failed == {}
    run_cells(tests, store, count(calls))
    assert calls[1:] == ["expert", "student", "on a", "on b"]


def test_what_only_finished_cells_need_does_not_run(store, tmp_path):
    """Results that were carried here without the weights they came from."""
    expert, student, tests = family()
    run_cells(tests[:1], store, count([]))
    shutil.rmtree(store.folder_of(expert))
    shutil.rmtree(store.folder_of(student))
    calls: list[str] = []
    assert run_cells(tests[:1], store, count(calls)).missing == ()
    assert calls == []
    assert {cell.name for cell in missing(tests, store)} == {"expert", "student", "on b"}
    run_cells(tests, store, count(calls))
    assert calls == ["expert", "student", "on b"]


def test_results_without_weights_make_what_needs_them_train_again(store):
    """As in the archive of results that the benchmark's page offers."""
    expert, student, tests = family()
    run_cells(tests[:1], store, count([]))
    for cell in (expert, student):
        shutil.rmtree(store.folder_of(cell) / cell.kind)
    assert missing([expert, student, *tests], store) == [expert, student, tests[1]]
    calls: list[str] = []
    assert run_cells([tests[1]], store, count(calls)).failed == {}
    assert calls == ["expert", "student", "on b"]
    assert missing([expert, student, *tests], store) == []


def test_a_name_that_no_cell_has_is_refused():
    _, _, tests = family()
    assert [cell.name for cell in named(tests, "student")] == ["student"]
    assert named(tests, "") == tests
    with pytest.raises(UserError, match="zzz"):
        named(tests, "zzz")


def test_nothing_runs_for_what_is_finished(store, tmp_path):
    expert, student, tests = family()
    run_cells(tests, store, count([]))
    for cell in (expert, student):
        shutil.rmtree(store.folder_of(cell))
    assert listing(tests, store) == ["0 of 4 cells are missing"]
    calls: list[str] = []
    runners = {k: lambda cell, store, means: calls.append(cell.name) for k in count([])}
    outcome = run_missing(tests, store, runners, tmp_path, device="cpu")
    assert (calls, outcome.missing) == ([], ())
    assert listing(tests, store, "student")[-1] == "2 of 2 cells are missing"
