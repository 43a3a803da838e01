"""The smallest loop, run for real: phantoms, two experts, one round, a damaged package."""

import json

import pytest
from tests.training.conftest import write_raw

from ka2er_training.bench.loop import RUNNERS, open_loop
from ka2er_training.bench.loop_report import write_report
from ka2er_training.bench.running import listing, run_missing
from ka2er_training.workspace import Workspace
from napari_ka2er.core.package import check_package, read_package

SETTINGS = """
corrected = "balls"

[tasks.balls]
spacing_mm = [2.0, 2.0, 2.0]
test_share = 0.3

[tasks.others]
spacing_mm = [2.0, 2.0, 2.0]
test_share = 0.3
max_train = 2

[start.balls]
cases = 2
epochs = 2
[start.others]
cases = 2
epochs = 1

[student]
steps = 3
polish_steps = 1
click_steps = 2

[annotation]
rounds = 1
cases_per_round = 3
n_clicks = 2
n_strokes = 300
candidates = 3

[retrain]
expert_epochs = 1
steps = 2
polish_steps = 1
click_steps = 1

[controls]
packages = 1

[measurement]
click_cases = 1
n_clicks = 2
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_raw(tmp_path / "data" / "balls", 14)
    write_raw(tmp_path / "data" / "others", 6, first=50)
    (tmp_path / "loop.toml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.slow
def test_the_smallest_loop_runs_and_a_second_run_has_nothing_to_do(small):
    data, out = small / "data", small / "out"
    plan, store = open_loop(data, out, str(small / "loop.toml"))
    run = plan.cells(), store, RUNNERS, data
    for only in ("measure replay, round 1", "copy of", "control 1"):
        assert not run_missing(*run, device="cpu", only=only).failed
    found = {(e.table, e.arm): e.cell for e in plan.entries() if store.is_finished(e.cell)}

    work = store.result(found["annotation", "replay"])
    assert [case["case"] for case in work["cases"]] == list(plan.cases["balls"].new[:3])
    (package,) = (store.folder_of(found["annotation", "replay"]) / "package").iterdir()
    assert check_package(package) == []
    assert {case.record["student"]["version"] for case in read_package(package).cases} == {"v0001"}

    home = store.folder_of(found["state", "replay"]) / "workspace"
    told = store.result(found["state", "replay"])
    assert told["candidate"] == "v0002"
    assert told["student"] == ("v0002" if told["promoted"] else "v0001")
    start = Workspace.open(store.folder_of(found["state", "no change"]) / "workspace")
    assert {c.id for c in start.training_cases("balls")} == set(plan.cases["balls"].start)
    assert {c.id for c in start.holdout_cases("balls")} == set(plan.cases["balls"].holdout)
    assert {c.id for c in Workspace.open(home).holdout_cases("balls")} == set(
        plan.cases["balls"].holdout
    )
    assert not (start.folder / "students" / "v0002").exists()  # rounds work on copies

    assert store.result(found["copy", "copy"])["refused"]
    assert isinstance(store.result(found["control", "shuffled"])["refused"], bool)

    again = run_missing(*run, device="cpu", only="measure replay, round 1")
    assert not again.done
    assert f"{len(listing(plan.cells(), store)) - 1} of" in listing(plan.cells(), store)[-1]
    report = write_report(plan, store, out / "report", "command")
    assert "| 1 | " in report.read_text("utf-8")
    assert json.loads((report.parent / "loop.json").read_text("utf-8"))
